//! What must be true of any measurement, whoever made it: a point that breaks one of these laws says something else
//! than its numbers seem to.

use super::{ImportFlaw, ImportedPoint};
use crate::units::significant;
use std::collections::BTreeMap;

/// By how much two ways to find one number may differ.
const NEARLY: f64 = 0.05;
/// What two decimals leave out at most.
const ROUNDED: f64 = 0.005;
/// Share of the asked concurrency that must have been in flight.
const IN_FLIGHT: f64 = 0.9;
/// How often the mean may be the median before most of it is somebody's wait.
const SKEWED: f64 = 3.0;
/// By how much two names of one number differ.
const AS_WELL: f64 = 1e-4;
/// Requests below which a 99th percentile is hardly more than the largest value.
const FOR_P99: f64 = 100.0;

/// A law: what breaks it, or nothing.
type Law = fn(&ImportedPoint) -> Option<String>;

const LAWS: &[(&str, Law)] = &[
    ("no_numbers", nothing),
    ("impossible_number", impossible),
    ("requests_failed", failed),
    ("fewer_requests_than_users", too_few_requests),
    ("concurrency_not_reached", little),
    ("percentiles_out_of_order", order),
    ("answers_short", short_answers),
    ("rates_disagree", rates),
    ("ttft_is_queueing", skewed),
    ("not_streamed", not_streamed),
    ("few_samples", few),
];

/// The laws that `point` breaks.
pub(super) fn broken(point: &ImportedPoint) -> Vec<ImportFlaw> {
    let of = |(code, law): &(&str, Law)| Some(ImportFlaw::new(code, law(point)?));
    LAWS.iter().filter_map(of).collect()
}

/// A table without a number says nothing, whatever it is a table of.
fn nothing(point: &ImportedPoint) -> Option<String> {
    let numbers = || point.metrics.values().flat_map(BTreeMap::values);
    if numbers().next().is_none() {
        return Some("it has no number of a metric that is known".to_owned());
    }
    let is_nothing = numbers().all(|n| n.abs() <= 0.0);
    is_nothing.then(|| "all its numbers are 0: nothing was measured".to_owned())
}

/// Times, rates and counts of what happened are at least nothing. Only what is early is late by less.
fn impossible(point: &ImportedPoint) -> Option<String> {
    let counts = [("completed", point.completed), ("failed", point.failed)].into_iter();
    let counts = counts.filter_map(|(name, n)| Some((name.to_owned(), n?)));
    let of = |(metric, stats): (&String, &BTreeMap<String, f64>)| -> Vec<(String, f64)> {
        stats.iter().map(|(stat, n)| (format!("{metric} {stat}"), *n)).collect()
    };
    let metrics = point.metrics.iter().filter(|(name, _)| !name.starts_with("lateness"));
    let mut all = counts.chain(metrics.flat_map(of));
    if let Some((name, n)) = all.find(|(_, n)| *n < 0.0 || !n.is_finite()) {
        return Some(format!("{name} is {}: no measurement gives that", significant(n)));
    }
    let took_nothing = point.single("wall_s").is_some_and(|s| s <= 0.0);
    let rate = point.single("rps").or(point.single("output_tps")).filter(|r| *r > 0.0)?;
    let in_no_time = || format!("{} a second in 0 s: no measurement gives that", significant(rate));
    took_nothing.then(in_no_time)
}

/// What failed is in no latency, and what timed out was the slowest.
fn failed(point: &ImportedPoint) -> Option<String> {
    let failed = point.failed.filter(|n| *n > 0.0)?;
    let all = point.completed.map_or_else(String::new, |n| format!(" of {}", n + failed));
    Some(format!(
        "{failed}{all} requests failed: latencies are of those that came back, and throughput is not what was asked for"
    ))
}

fn too_few_requests(point: &ImportedPoint) -> Option<String> {
    let (users, sent) = (users(point)?, sent(point)?);
    (sent < users).then(|| {
        format!(
            "{sent} requests were sent for {users} at once: so many were never in flight together"
        )
    })
}

/// Beside a rate, requests at once are a bound and no load.
fn users(point: &ImportedPoint) -> Option<f64> {
    point.asked.concurrency.filter(|_| point.asked.rate.is_none())
}

fn sent(point: &ImportedPoint) -> Option<f64> {
    let of_outcomes = || Some(point.completed? + point.failed.unwrap_or(0.0));
    point.asked.requests.or_else(of_outcomes)
}

/// Little's law: requests in flight = requests a second x seconds of each.
fn little(point: &ImportedPoint) -> Option<String> {
    let asked = users(point)?;
    let seconds = latency_ms(point)? / 1e3;
    let in_flight = requests_per_s(point)? * seconds;
    (in_flight < IN_FLIGHT * asked).then(|| {
        format!(
            "{asked} at once were asked for; by Little's law {} were in flight",
            significant(in_flight)
        )
    })
}

fn latency_ms(point: &ImportedPoint) -> Option<f64> {
    ["e2e_sent_ms", "e2e_ms"].iter().find_map(|metric| point.value(metric, "mean"))
}

/// As the tool says, else by its tokens where each answer is as long as was asked for.
fn requests_per_s(point: &ImportedPoint) -> Option<f64> {
    let by_tokens = || {
        let length = point.value("output_tokens", "mean").or(point.asked.osl)?;
        Some(point.single("output_tps")? / length)
    };
    point.single("rps").or_else(by_tokens)
}

fn order(point: &ImportedPoint) -> Option<String> {
    const RISING: [&str; 11] =
        ["min", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "max"];
    point.metrics.iter().find_map(|(metric, stats)| {
        let there: Vec<(&str, f64)> =
            RISING.iter().filter_map(|stat| Some((*stat, *stats.get(*stat)?))).collect();
        let falls = there.windows(2).find(|w| matches!(w, [(_, low), (_, high)] if high < low))?;
        let [(low, _), (high, _)] = falls else { return None };
        Some(format!("{high} of {metric} lies below its {low}"))
    })
}

fn short_answers(point: &ImportedPoint) -> Option<String> {
    let (asked, mean) = (point.asked.osl?, point.value("output_tokens", "mean")?);
    ((mean / asked - 1.0).abs() > NEARLY).then(|| {
        format!("answers had {} tokens in the mean, {asked} were asked for", significant(mean))
    })
}

/// A rate is what it counts over the time that it took, and tokens are those of the requests.
fn rates(point: &ImportedPoint) -> Option<String> {
    over_time(point).or_else(|| tokens_of_requests(point))
}

/// Asked of tools that say what they counted in all: the time that AIPerf tells is not quite that of its rates.
fn over_time(point: &ImportedPoint) -> Option<String> {
    let (produced, wall) = (point.produced?, point.single("wall_s").filter(|s| *s > 0.0)?);
    let counts = [("rps", point.completed?, "requests"), ("output_tps", produced, "tokens")];
    counts.into_iter().find_map(|(rate, count, what)| {
        let (rate, by_time) = (point.single(rate)?, count / wall);
        differ(rate, by_time, wall).then(|| {
            format!(
                "{} {what}/s, and {count} {what} in {} s are {}",
                significant(rate),
                significant(wall),
                significant(by_time)
            )
        })
    })
}

fn tokens_of_requests(point: &ImportedPoint) -> Option<String> {
    let (tokens, requests) = (point.single("output_tps")?, point.single("rps")?);
    let length = point.value("output_tokens", "mean")?;
    let by_requests = requests * length;
    differ(tokens, by_requests, requests).then(|| {
        format!(
            "{} tokens/s, and {} requests/s of {} tokens are {}",
            significant(tokens),
            significant(requests),
            significant(length),
            significant(by_requests)
        )
    })
}

/// Whether `rate` is not what was computed of `factor`. A tool that writes two decimals rounds small ones away.
fn differ(rate: f64, computed: f64, factor: f64) -> bool {
    let grain = ROUNDED / rate + ROUNDED / factor;
    (rate / computed - 1.0).abs() > NEARLY + grain
}

fn skewed(point: &ImportedPoint) -> Option<String> {
    let (mean, median) =
        (point.value("ttft_sent_ms", "mean")?, point.value("ttft_sent_ms", "p50")?);
    (mean > SKEWED * median).then(|| {
        format!(
            "mean TTFT is {} ms, its median {} ms: the mean is the wait of some in a queue",
            significant(mean),
            significant(median)
        )
    })
}

/// A tool that gets an answer in one piece may call its arrival the first token.
fn not_streamed(point: &ImportedPoint) -> Option<String> {
    let (first, all) = (point.value("ttft_sent_ms", "mean")?, latency_ms(point)?);
    let counted = || Some(point.produced? / point.completed.filter(|n| *n > 0.0)?);
    let tokens = point.value("output_tokens", "mean").or_else(counted).or(point.asked.osl);
    let is_one = tokens.is_some_and(|n| n <= 1.0);
    let is_all = all > 0.0 && (first / all - 1.0).abs() < AS_WELL;
    (is_all && !is_one).then(|| {
        format!(
            "TTFT and the whole answer are both {} ms: answers came in one piece, so it is no time to a first token",
            significant(first)
        )
    })
}

fn few(point: &ImportedPoint) -> Option<String> {
    let completed = point.completed.filter(|n| *n < FOR_P99)?;
    let has_tail = point.metrics.values().any(|stats| stats.contains_key("p99"));
    has_tail.then(|| format!("p99 of {completed} requests is hardly more than the largest"))
}
