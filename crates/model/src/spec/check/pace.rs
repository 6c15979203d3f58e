//! Checks of how a load's requests follow each other: arrivals, rates over time, ramps, think times,
//! cancellation. Which mode a key belongs to is checked beside the other keys of a load.

use crate::plan::Mode;
use crate::plan::points::DEFAULT_TIMEOUT;
use crate::spec::{ArrivalSpec, LoadSpec, Problem, RateProfileKind, RateProfileSpec, WorkloadSpec};
use crate::units::{Nanos, significant};
use crate::workload::FileFormat;

/// Shapes of the gamma distribution that are read. Beyond, all requests come at once, or evenly.
const BURSTINESS: std::ops::RangeInclusive<f64> = 0.01..=10_000.0;
/// Factors of a replay that are read.
const SPEED: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

pub(super) fn check(
    i: usize,
    load: &LoadSpec,
    workload: Option<&WorkloadSpec>,
    problems: &mut Vec<Problem>,
) {
    let mut found = Found { load: i, problems };
    if let Some(workload) = workload.filter(|_| load.arrival == Some(ArrivalSpec::Trace)) {
        replay(workload, &mut found);
    }
    if load.mode == Some(Mode::Open) {
        arrivals(load, &mut found);
        if let Some(profile) = &load.profile {
            rate_profile(profile, &mut found);
        }
    }
    slots(load, &mut found);
    cancel(load, &mut found);
    saturation(load, &mut found);
}

/// The problems of one load.
struct Found<'a> {
    load: usize,
    problems: &'a mut Vec<Problem>,
}

impl Found<'_> {
    fn add(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::new(format!("load[{}].{key}", self.load), message, hint));
    }
}

/// Times are taken from where lengths are: a mix, or texts, have none.
fn replay(workload: &WorkloadSpec, found: &mut Found<'_>) {
    if !workload.format.is_some_and(FileFormat::is_trace) {
        let message =
            format!("workload '{}' is no trace, and has no times to replay", workload.name);
        let hint = "give it kind = \"file\" and format = \"mooncake\", \"burstgpt\" or \"azure\"";
        found.add("arrival", message, hint);
    }
}

fn arrivals(load: &LoadSpec, found: &mut Found<'_>) {
    let arrival = load.arrival.unwrap_or_default();
    let is_trace = arrival == ArrivalSpec::Trace;
    let belongs: [(&str, bool, bool, &str); 5] = [
        ("burstiness", load.burstiness.is_some(), arrival == ArrivalSpec::Gamma, "gamma"),
        ("speed", load.speed.is_some(), is_trace, "trace"),
        ("window", load.window.is_some(), is_trace, "trace"),
        ("rate", load.rate.is_some(), !is_trace, "poisson, constant or gamma"),
        ("profile", load.profile.is_some(), !is_trace, "poisson, constant or gamma"),
    ];
    for (key, given, fits, to) in belongs {
        if given && !fits {
            let message = format!("'{key}' has no meaning with arrival = \"{}\"", arrival.name());
            found.add(key, message, format!("leave it out; it belongs to arrival = {to}"));
        }
    }
    if arrival == ArrivalSpec::Gamma && load.burstiness.is_none() {
        let hint = "add burstiness = 0.5; 1 is Poisson, less is burstier, more is more regular";
        found.add("arrival", "gamma arrivals need 'burstiness'", hint);
    }
    if load.burstiness.is_some_and(|b| !BURSTINESS.contains(&b)) {
        found.add("burstiness", "'burstiness' must be between 0.01 and 10000", "1 is Poisson");
    }
    if load.speed.is_some_and(|s| !SPEED.contains(&s)) {
        let hint = "2.0 is twice as fast as the trace";
        found.add("speed", "'speed' must be between 0.000001 and 1000000", hint);
    }
    if let Some((from, to)) = load.window.and_then(|w| Some((w.from.unwrap_or_default(), w.to?)))
        && to.0 <= from.0
    {
        let message = format!("the window ends at {} and begins at {}", to.0, from.0);
        found.add("window.to", message, "'to' must be later than 'from'");
    }
    if load.rate.is_some() && load.profile.is_some() {
        found.add("profile", "'rate' is given as well", "keep one of the two");
    }
}

fn rate_profile(profile: &RateProfileSpec, found: &mut Found<'_>) {
    use RateProfileKind::{Ramp, Sine, Steps};
    let keys: [(&str, bool, RateProfileKind, &str); 7] = [
        ("from", profile.from.is_some(), Ramp, "\"1/s\""),
        ("to", profile.to.is_some(), Ramp, "\"50/s\""),
        ("over", profile.over.is_some(), Ramp, "\"60s\""),
        (
            "steps",
            !profile.steps.is_empty(),
            Steps,
            "[{ rate = \"5/s\", for = \"30s\" }, { rate = \"20/s\", for = \"30s\" }]",
        ),
        ("mean", profile.mean.is_some(), Sine, "\"20/s\""),
        ("amplitude", profile.amplitude.is_some(), Sine, "\"10/s\""),
        ("period", profile.period.is_some(), Sine, "\"5m\""),
    ];
    let name = profile.kind.name();
    let mut is_whole = true;
    for (key, given, of, example) in keys {
        if given && of != profile.kind {
            let message = format!("'{key}' has no meaning in a profile of kind {name}");
            let hint = format!("leave it out; it belongs to kind {}", of.name());
            found.add(&format!("profile.{key}"), message, hint);
        }
        if !given && of == profile.kind {
            is_whole = false;
            let message = format!("a profile of kind {name} needs '{key}'");
            found.add("profile", message, format!("add {key} = {example}"));
        }
    }
    if is_whole {
        match profile.kind {
            Ramp => ramp(profile, found),
            Steps => steps(profile, found),
            Sine => sine(profile, found),
        }
    }
}

fn above_zero(key: &str, span: Option<Nanos>, found: &mut Found<'_>) {
    if span == Some(Nanos::ZERO) {
        let name = key.rsplit('.').next().unwrap_or(key);
        found.add(key, format!("'{name}' must be above zero"), "");
    }
}

fn ramp(profile: &RateProfileSpec, found: &mut Found<'_>) {
    above_zero("profile.over", profile.over.map(|d| d.0), found);
    let highest = profile.from.into_iter().chain(profile.to).map(|r| r.0).fold(0.0, f64::max);
    if highest <= 0.0 {
        found.add("profile.to", "the ramp goes from zero to zero", "one end must be above zero");
    }
}

fn steps(profile: &RateProfileSpec, found: &mut Found<'_>) {
    let last = profile.steps.len().saturating_sub(1);
    for (s, step) in profile.steps.iter().enumerate() {
        above_zero(&format!("profile.steps[{s}].for"), step.lasts.map(|d| d.0), found);
        if step.lasts.is_none() && s < last {
            let message = "the step has no end, and others follow";
            found.add(&format!("profile.steps[{s}]"), message, "add for = \"30s\"");
        }
    }
    let nothing = |s: &crate::spec::RateStepSpec| s.rate.0 <= 0.0;
    if profile.steps.iter().all(nothing) {
        found.add("profile.steps", "no step has a rate above zero", "give one of them a rate");
    } else if profile.steps.last().is_some_and(nothing) {
        let message = "nothing arrives in the last step, so the load ends before it";
        found.add(&format!("profile.steps[{last}]"), message, "leave it out");
    }
}

fn sine(profile: &RateProfileSpec, found: &mut Found<'_>) {
    above_zero("profile.period", profile.period.map(|d| d.0), found);
    if let (Some(mean), Some(amplitude)) = (profile.mean, profile.amplitude)
        && amplitude.0 > mean.0
    {
        let (mean, amplitude) = (significant(mean.0), significant(amplitude.0));
        let message = format!("the amplitude of {amplitude}/s is above the mean of {mean}/s");
        found.add("profile.amplitude", message, "a rate below zero does not exist; lower it");
    }
}

fn slots(load: &LoadSpec, found: &mut Found<'_>) {
    above_zero("ramp_up", load.ramp_up.map(|d| d.0), found);
    above_zero("think", load.think.map(super::super::ThinkSpec::mean), found);
    if let (Some(ramp_up), Some(duration)) = (load.ramp_up, load.duration)
        && ramp_up.0 >= duration.0
    {
        let message =
            format!("the ramp takes {} and the load ends after {}", ramp_up.0, duration.0);
        found.add("ramp_up", message, "shorten the ramp, or lengthen 'duration'");
    }
    if load.max_prefill == Some(0) {
        found.add("max_prefill", "'max_prefill' must be above zero", "leave it out for no limit");
    }
}

/// The rule takes growth for a queue, so nothing else may make requests in flight grow, or hold them.
fn saturation(load: &LoadSpec, found: &mut Found<'_>) {
    if load.stop_oversaturated != Some(true) {
        return;
    }
    let (key, hint) = ("stop_oversaturated", "leave it out, or give one 'rate'");
    if load.profile.is_some() || load.arrival == Some(ArrivalSpec::Trace) {
        let message = "a rate that changes makes requests in flight grow without being too much";
        found.add(key, message, hint);
    }
    if load.concurrency.is_some() {
        let message = "'concurrency' caps the requests in flight, whose growth would tell";
        found.add(key, message, "keep one of the two");
    }
}

fn cancel(load: &LoadSpec, found: &mut Found<'_>) {
    let Some(cancel) = load.cancel else { return };
    if !(cancel.share > 0.0 && cancel.share <= 1.0) {
        let hint = "0.1 is one request in ten; leave 'cancel' out for none";
        found.add("cancel.share", "'share' must be above 0 and at most 1", hint);
    }
    above_zero("cancel.after", Some(cancel.after.0), found);
    let timeout = load.timeout.map_or(DEFAULT_TIMEOUT, |t| t.0);
    if cancel.after.0 >= timeout {
        let message = format!(
            "requests are given up after {} and time out after {timeout} already",
            cancel.after.0
        );
        found.add("cancel.after", message, "raise 'timeout', or give up earlier");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where and what is wrong with an open load of these keys.
    fn problems(keys: &str) -> Vec<String> {
        let text = format!("name = \"l\"\nworkload = \"w\"\n{keys}");
        let load: LoadSpec = toml::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let mut problems = Vec::new();
        check(0, &load, None, &mut problems);
        problems.into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect()
    }

    fn open(keys: &str) -> Vec<String> {
        problems(&format!("mode = \"open\"\n{keys}"))
    }

    #[test]
    fn sound_loads_have_no_problem() {
        for keys in [
            "rate = \"5/s\"\narrival = \"gamma\"\nburstiness = 0.5",
            "profile = { kind = \"ramp\", from = \"0/s\", to = \"50/s\", over = \"60s\" }",
            "profile = { kind = \"steps\", steps = [{ rate = \"0/s\", for = \"5s\" }, { rate = \"9/s\" }] }",
            "profile = { kind = \"sine\", mean = \"5/s\", amplitude = \"5/s\", period = \"60s\" }",
            "arrival = \"trace\"\nspeed = 2.0\nwindow = { from = \"1m\", to = \"2m\" }",
            "rate = \"5/s\"\nmax_prefill = 4\ncancel = { share = 1, after = \"2s\" }",
        ] {
            assert_eq!(open(keys), [""; 0], "{keys}");
        }
        let closed = "concurrency = 4\nramp_up = \"10s\"\nduration = \"60s\"\nthink = ";
        for think in ["\"2s\"", "{ mean = \"2s\" }"] {
            assert_eq!(problems(&format!("{closed}{think}")), [""; 0], "{think}");
        }
    }

    #[test]
    fn contradictions_are_found_at_their_key() {
        let ramp = |keys: &str| format!("profile = {{ kind = \"ramp\", {keys} }}");
        let steps = |of: &str| format!("profile = {{ kind = \"steps\", steps = [{of}] }}");
        let table: [(String, &str); 20] = [
            ("rate = \"5/s\"\nburstiness = 2.0".into(), "load[0].burstiness: 'burstiness' has no meaning with arrival = \"poisson\""),
            ("rate = \"5/s\"\narrival = \"gamma\"".into(), "load[0].arrival: gamma arrivals need 'burstiness'"),
            ("rate = \"5/s\"\narrival = \"gamma\"\nburstiness = 0.0".into(), "load[0].burstiness: 'burstiness' must be between 0.01 and 10000"),
            ("rate = \"5/s\"\narrival = \"gamma\"\nburstiness = nan".into(), "load[0].burstiness: 'burstiness' must be between 0.01 and 10000"),
            ("rate = \"5/s\"\nspeed = 2.0".into(), "load[0].speed: 'speed' has no meaning with arrival = \"poisson\""),
            ("rate = \"5/s\"\narrival = \"trace\"".into(), "load[0].rate: 'rate' has no meaning with arrival = \"trace\""),
            ("arrival = \"trace\"\nspeed = -1.0".into(), "load[0].speed: 'speed' must be between 0.000001 and 1000000"),
            ("arrival = \"trace\"\nwindow = { from = \"9s\", to = \"5s\" }".into(), "load[0].window.to: the window ends at 5.00 s and begins at 9.00 s"),
            ("rate = \"5/s\"\n".to_owned() + &ramp("from = \"1/s\", to = \"2/s\", over = \"9s\""), "load[0].profile: 'rate' is given as well"),
            (ramp("from = \"1/s\", to = \"2/s\""), "load[0].profile: a profile of kind ramp needs 'over'"),
            (ramp("from = \"1/s\", to = \"2/s\", over = \"9s\", period = \"9s\""), "load[0].profile.period: 'period' has no meaning in a profile of kind ramp"),
            (ramp("from = \"0/s\", to = \"0/s\", over = \"9s\""), "load[0].profile.to: the ramp goes from zero to zero"),
            (ramp("from = \"0/s\", to = \"1/s\", over = \"0s\""), "load[0].profile.over: 'over' must be above zero"),
            (steps("{ rate = \"1/s\" }, { rate = \"2/s\" }"), "load[0].profile.steps[0]: the step has no end, and others follow"),
            (steps("{ rate = \"0/s\", for = \"9s\" }"), "load[0].profile.steps: no step has a rate above zero"),
            (steps("{ rate = \"1/s\", for = \"9s\" }, { rate = \"0/s\" }"), "load[0].profile.steps[1]: nothing arrives in the last step, so the load ends before it"),
            ("profile = { kind = \"sine\", mean = \"5/s\", amplitude = \"6/s\", period = \"9s\" }".into(), "load[0].profile.amplitude: the amplitude of 6.00/s is above the mean of 5.00/s"),
            ("rate = \"5/s\"\nconcurrency = 9\nstop_oversaturated = true".into(), "load[0].stop_oversaturated: 'concurrency' caps the requests in flight, whose growth would tell"),
            ("stop_oversaturated = true\n".to_owned() + &ramp("from = \"1/s\", to = \"2/s\", over = \"9s\""), "load[0].stop_oversaturated: a rate that changes makes requests in flight grow without being too much"),
            ("rate = \"5/s\"\nmax_prefill = 0".into(), "load[0].max_prefill: 'max_prefill' must be above zero"),
        ];
        for (keys, want) in table {
            assert_eq!(open(&keys), [want], "{keys}");
        }
        for (keys, want) in [
            ("ramp_up = \"0s\"", "load[0].ramp_up: 'ramp_up' must be above zero"),
            ("think = { mean = \"0s\" }", "load[0].think: 'think' must be above zero"),
            (
                "ramp_up = \"9s\"\nduration = \"9s\"",
                "load[0].ramp_up: the ramp takes 9.00 s and the load ends after 9.00 s",
            ),
            (
                "cancel = { share = 0.0, after = \"9s\" }",
                "load[0].cancel.share: 'share' must be above 0 and at most 1",
            ),
            (
                "cancel = { share = nan, after = \"9s\" }",
                "load[0].cancel.share: 'share' must be above 0 and at most 1",
            ),
            (
                "cancel = { share = 0.5, after = \"9s\" }\ntimeout = \"9s\"",
                "load[0].cancel.after: requests are given up after 9.00 s and time out after 9.00 s already",
            ),
        ] {
            assert_eq!(problems(keys), [want], "{keys}");
        }
    }

    #[test]
    fn think_is_a_span_or_a_mean() {
        let read = |text: &str| {
            let text = format!("name = \"l\"\nworkload = \"w\"\nthink = {text}");
            toml::from_str::<LoadSpec>(&text).map(|l| l.think).map_err(|e| e.message().to_owned())
        };
        use crate::spec::{Dur, ThinkSpec};
        let two = Dur(Nanos::from_secs(2));
        assert_eq!(read("\"2s\""), Ok(Some(ThinkSpec::Fixed(two))));
        assert_eq!(read("{ mean = \"2s\" }"), Ok(Some(ThinkSpec::Exponential(two))));
        assert!(read("{ mena = \"2s\" }").unwrap_err().contains("mena"));
        assert!(read("2").unwrap_err().contains("{ mean = \"2s\" }"));
    }
}
