//! The rounds of another client in one case, as tables and files have them.

use super::latency::Latencies;
use super::{OtherReading, Others, Unmeasured};
use crate::selftest::case::Case;
use crate::selftest::errors::median;
use crate::selftest::summary::{Summary, per, positive};
use crate::selftest::table::signed;
use serde::{Deserialize, Serialize};

/// One client in one case: of each number the median of the rounds that are measurements.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OtherRow {
    /// Its name.
    pub(crate) client: String,
    /// Why it did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) skipped: Option<String>,
    /// Of rounds that are no measurement, why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unmeasured: Vec<Unmeasured>,
    /// Requests that it was asked for, all rounds together.
    pub(crate) requests: u64,
    /// Requests that the server answered whole; more than were asked for where it also tried out.
    pub(crate) whole: u64,
    /// From its start to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wall_s: Option<f64>,
    /// CPU time that it had spent by itself, without children, when its first request came. It is not in the
    /// costs below, which are from the first request on, as those of our readers are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start_cpu_s: Option<f64>,
    /// CPU time a token as a multiple of the raw reader's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_per_token_over_raw: Option<f64>,
    /// Whether it faced the arrivals that the raw reader faced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) arrivals_alike: Option<bool>,
    /// What its result said minus what is true, under vLLM's names.
    pub(crate) errors: Latencies,
    /// As of the other readers, as far as it is known from outside.
    pub(crate) measured: Summary,
}

/// The rows of all `others`; `readings` are of each, in their order.
pub(crate) fn rows(
    case: &Case,
    others: &Others,
    readings: &[Vec<OtherReading>],
    raw: Option<&Summary>,
) -> Vec<OtherRow> {
    let all = others.clients.iter().zip(readings);
    all.map(|(client, readings)| OtherRow {
        client: client.name.clone(),
        skipped: client.why_not(case),
        ..OtherRow::of(case, readings, raw)
    })
    .collect()
}

impl OtherRow {
    fn of(case: &Case, readings: &[OtherReading], raw: Option<&Summary>) -> Self {
        let of = Medians(readings.iter().filter(|r| r.unmeasured.is_none()).collect());
        let errors = Latencies {
            mean_ttft_ms: of.value(|r| r.errors.mean_ttft_ms),
            p99_ttft_ms: of.value(|r| r.errors.p99_ttft_ms),
            mean_itl_ms: of.value(|r| r.errors.mean_itl_ms),
            p99_itl_ms: of.value(|r| r.errors.p99_itl_ms),
            mean_tpot_ms: of.value(|r| r.errors.mean_tpot_ms),
        };
        let lost = readings.iter().map(|r| case.requests.saturating_sub(r.whole)).sum();
        let measured = Summary { lost, ..summary(&errors, &of) };
        Self {
            client: String::new(),
            skipped: None,
            unmeasured: readings.iter().filter_map(|r| r.unmeasured.clone()).collect(),
            requests: case.requests * readings.len() as u64,
            whole: readings.iter().map(|r| r.whole).sum(),
            wall_s: of.value(|r| Some(r.end.wall.as_secs_f64())),
            start_cpu_s: of.value(|r| Some(r.start_cpu?.as_secs_f64())),
            cpu_per_token_over_raw: raw.and_then(|raw| measured.cpu_over(raw)),
            arrivals_alike: raw.and_then(|raw| measured.arrivals_alike(raw)),
            errors,
            measured,
        }
    }

    /// What the table has no column for, in words.
    pub(crate) fn note(&self, case: &str) -> String {
        let head = format!("{} at {case}", self.client);
        if let Some(why) = &self.skipped {
            return format!("{head}: not run: {why}");
        }
        let mut text = format!("{head}: {} of {} requests whole", self.whole, self.requests);
        let mut add = |value: Option<f64>, words: &dyn Fn(f64) -> String| {
            text.extend(value.map(|value| format!(", {}", words(value))));
        };
        add(self.wall_s, &|s| format!("{s:.1} s from start to end"));
        add(self.start_cpu_s, &|s| format!("{s:.2} s of CPU before its first request"));
        add(self.errors.mean_itl_ms, &|ms| format!("mean ITL off by {} ms", signed(Some(ms))));
        add(self.errors.mean_tpot_ms, &|ms| format!("mean TPOT off by {} ms", signed(Some(ms))));
        for Unmeasured { reason, said_last } in &self.unmeasured {
            text = format!("{text}\n  no measurement: {reason}");
            text.extend(said_last.iter().map(|line| format!("\n    {line}")));
        }
        text
    }
}

/// The numbers that are also known of our own readers.
fn summary(errors: &Latencies, of: &Medians<'_>) -> Summary {
    let cpu = |r: &OtherReading| r.end.cpu.since(r.start_cpu.unwrap_or_default());
    Summary {
        ttft_error_mean_ms: errors.mean_ttft_ms,
        ttft_error_ms_p99: errors.p99_ttft_ms,
        itl_error_mean_ms: errors.mean_itl_ms,
        itl_error_ms_p99: errors.p99_itl_ms,
        cpu_us_per_token: of.value(|r| per(cpu(r), r.tokens)),
        cpu_us_per_request: of.value(|r| per(cpu(r), r.whole)),
        cores: of.value(|r| Some(cpu(r).as_secs_f64() / positive(r.span?.as_secs_f64())?)),
        tokens_per_s: of.value(|r| Some(r.tokens as f64 / positive(r.span?.as_secs_f64())?)),
        peak_rss_mb: of.value(|r| Some(r.end.peak_rss? as f64 / 1e6)),
        launch_ms: of.value(|r| Some(r.launch?.as_millis_f64())),
        server_cpu_us_per_token: of.value(|r| per(r.server.cpu, r.tokens)),
        ..Summary::default()
    }
}

/// Rounds that are measurements, to take the median of.
struct Medians<'a>(Vec<&'a OtherReading>);

impl Medians<'_> {
    fn value(&self, value: impl Fn(&OtherReading) -> Option<f64>) -> Option<f64> {
        median(self.0.iter().map(|reading| value(reading)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Client;
    use super::super::program::ProgramEnd;
    use super::*;
    use crate::selftest::case::{open_loop, paced};
    use crate::selftest::part::PartEnd;
    use scalebeam_model::units::Nanos;

    fn reading(cpu_us: u64, unmeasured: Option<&str>) -> OtherReading {
        let server =
            PartEnd { cpu: Nanos::from_micros(500), load_cpu: None, wall: None, peak_rss: None };
        let said_last = vec!["panicked".to_owned()];
        OtherReading {
            unmeasured: unmeasured
                .map(|reason| Unmeasured { reason: reason.to_owned(), said_last }),
            whole: if unmeasured.is_some() { 1 } else { 4 },
            tokens: 100,
            errors: Latencies {
                mean_ttft_ms: Some(0.5),
                mean_itl_ms: Some(0.25),
                ..Latencies::default()
            },
            end: ProgramEnd {
                cpu: Nanos::from_millis(100) + Nanos::from_micros(cpu_us),
                wall: Nanos::from_secs(3),
                ..ProgramEnd::default()
            },
            start_cpu: Some(Nanos::from_millis(100)),
            server,
            launch: None,
            span: Some(Nanos::from_secs(2)),
        }
    }

    fn others() -> Others {
        let client = Client::parse("theirs=run {url} {requests} {streams}").unwrap();
        Others { clients: vec![client], limit: None }
    }

    #[test]
    fn costs_are_those_after_the_first_request_of_rounds_that_ended_well() {
        let raw = Summary {
            cpu_us_per_token: Some(2.0),
            server_cpu_us_per_token: Some(20.0),
            ..Summary::default()
        };
        let readings = [reading(300, None), reading(9_000, Some("exit status: 1"))];
        let row = &rows(&paced(4, 1), &others(), &[readings.to_vec()], Some(&raw))[0];
        assert_eq!(row.measured.cpu_us_per_token, Some(3.0));
        assert_eq!(row.measured.cpu_us_per_request, Some(75.0));
        assert_eq!(row.measured.tokens_per_s, Some(50.0));
        assert_eq!((row.cpu_per_token_over_raw, row.arrivals_alike), (Some(1.5), Some(false)));
        assert_eq!((row.whole, row.requests, row.measured.lost), (5, 8, 3));
        assert_eq!(row.measured.ttft_error_mean_ms, Some(0.5));
        assert_eq!(row.measured.lateness_ms_p50, None, "what is not known is absent");
    }

    #[test]
    fn notes_say_what_the_table_cannot() {
        let good = rows(&paced(4, 1), &others(), &[vec![reading(300, None)]], None);
        let bad = [reading(1, Some("exit status: 1"))];
        let bad = rows(&paced(4, 1), &others(), &[bad.to_vec()], None);
        let skipped = rows(&open_loop(1), &others(), &[Vec::new()], None);
        let notes = [good, bad, skipped].map(|rows| rows[0].note("some case"));
        insta::assert_snapshot!(notes.join("\n"), @"
        theirs at some case: 4 of 4 requests whole, 3.0 s from start to end, 0.10 s of CPU before its first request, mean ITL off by +0.250 ms
        theirs at some case: 1 of 4 requests whole
          no measurement: exit status: 1
            panicked
        theirs at some case: not run: its command has no {rate}
        ");
    }
}
