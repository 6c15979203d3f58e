//! What a Prometheus server kept of hosts: the answer to a query of a range, of the series that exporters show.

use super::clocks::FarClock;
use super::exporter::{self, Exporter, series_names};
use super::{Device, HostClock, Quantity, Reading, Series, Telemetry};
use crate::units::Nanos;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Labels that may say which host a series is of; `instance` comes last, since behind a proxy it is the proxy's.
const HOST_LABELS: [&str; 5] = ["Hostname", "nodename", "node", "host", "instance"];

/// A host of the plan, and what a server may call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNames {
    /// What readings call it.
    pub host: String,
    /// Its address, and other names.
    pub also: Vec<String>,
}

impl HostNames {
    /// `node1:9400` and `node1.cluster.local` are `node1`.
    fn is(&self, label: &str) -> bool {
        let name = label.rsplit_once(':').map_or(label, |(name, _)| name).trim_matches(['[', ']']);
        let is = |known: &String| {
            name == known
                || name.strip_prefix(known.as_str()).is_some_and(|rest| {
                    rest.starts_with('.') && known.parse::<std::net::IpAddr>().is_err()
                })
        };
        is(&self.host) || self.also.iter().any(is)
    }
}

/// The query of all series that are read.
pub fn query() -> String {
    let names = [series_names(Exporter::Dcgm), series_names(Exporter::Node)].concat();
    format!("{{__name__=~\"{}\"}}", names.join("|"))
}

/// Path and query behind a server's address that ask for its own time.
pub const TIME_QUERY: &str = "/api/v1/query?query=time()";
/// Servers tell times in whole ones of this.
pub const TIME_GRAIN: Nanos = Nanos::from_millis(1);

/// A server's time since the epoch, in its answer to [`TIME_QUERY`].
///
/// # Errors
/// When it says none.
pub fn server_time(body: &str) -> Result<Nanos, String> {
    let data: Scalar = data(body)?;
    let time = super::civil::parse(&format!("{:.3}", data.result.0));
    time.ok_or_else(|| "it does not say its time".to_owned())
}

#[derive(Debug, Deserialize)]
struct Answer<T> {
    status: String,
    error: Option<String>,
    data: Option<T>,
}

/// What a query was answered with, or the server's own words of why it was not.
fn data<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, String> {
    let answer: Answer<T> =
        serde_json::from_str(body).map_err(|e| format!("it is no answer to a query: {e}"))?;
    match (answer.status.as_str(), answer.data) {
        ("success", Some(data)) => Ok(data),
        _ => Err(answer.error.unwrap_or_else(|| "the query failed".to_owned())),
    }
}

/// Seconds since the epoch, and a value as text.
#[derive(Debug, Deserialize)]
struct Scalar {
    result: (f64, String),
}

#[derive(Debug, Deserialize)]
struct Data {
    result: Vec<Found>,
}

#[derive(Debug, Deserialize)]
struct Found {
    metric: BTreeMap<String, String>,
    /// Seconds since the epoch, and the value as text.
    values: Vec<(f64, String)>,
}

/// Readings of `hosts` in the answer to a query of a range, and how the clock that they were taken by stands to ours.
/// Times are the server's: `time` is its clock less `zero`, the epoch's time at zero of ours.
///
/// # Errors
/// Says why there is none: no answer of such a server, an error of its own, no host that is known.
pub fn read(
    body: &str,
    hosts: &[HostNames],
    zero: Nanos,
    time: &FarClock,
) -> Result<Telemetry, String> {
    let data: Data = data(body)?;
    let mut told: BTreeMap<String, BTreeSet<Nanos>> = BTreeMap::new();
    let mut found: BTreeMap<(Device, Quantity), Vec<Reading>> = BTreeMap::new();
    for ((host, at), page) in pages(&data, hosts) {
        let Some(at) = at.checked_sub(zero.0).map(Nanos) else { continue };
        let Some((from, to)) = time.here(at, at) else { continue };
        told.entry(host.clone()).or_default().insert(at);
        for exporter in [Exporter::Dcgm, Exporter::Node] {
            // Of an exporter that the host does not run there is nothing on its page.
            for (device, values) in exporter::read(exporter, &host, &page).unwrap_or_default() {
                for (quantity, value) in values {
                    let readings = found.entry((device.clone(), quantity)).or_default();
                    readings.push(Reading { from, to, value });
                }
            }
        }
    }
    if found.is_empty() {
        return Err("it has no series of a host of this file".to_owned());
    }
    let series = |((device, quantity), readings)| Series { device, quantity, readings };
    let clock = |(host, times): (&String, &BTreeSet<Nanos>)| -> Option<HostClock> {
        time.summary(host, times.iter().copied())
    };
    Ok(Telemetry {
        series: found.into_iter().map(series).collect(),
        clocks: told.iter().filter_map(clock).collect(),
        ..Telemetry::default()
    })
}

/// What the exporters of each host showed at each time, as the pages that they were, in order of time.
fn pages(data: &Data, hosts: &[HostNames]) -> BTreeMap<(String, u64), String> {
    let mut pages: BTreeMap<(String, u64), String> = BTreeMap::new();
    let mut targets = BTreeMap::new();
    for series in &data.result {
        let label = |name: &&str| series.metric.get(*name);
        let known = |label: &String| hosts.iter().find(|h| h.is(label));
        let host = HOST_LABELS.iter().filter_map(label).find_map(known);
        let (Some(host), Some(name)) = (host, series.metric.get("__name__")) else { continue };
        // A host that is scraped twice is read once.
        let target = (series.metric.get("job"), series.metric.get("instance"));
        if *targets.entry((host.host.as_str(), name.as_str())).or_insert(target) != target {
            continue;
        }
        let labels: Vec<String> = series
            .metric
            .iter()
            .filter(|(label, _)| *label != "__name__")
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
            .collect();
        for (at, value) in &series.values {
            let Some(at) = super::civil::parse(&format!("{at:.3}")) else { continue };
            let page = pages.entry((host.host.clone(), at.0)).or_default();
            // A string takes all that is written to it.
            let _ = writeln!(page, "{name}{{{}}} {value}", labels.join(","));
        }
    }
    pages
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Part;
    use crate::telemetry::clocks::Fix;

    fn hosts() -> Vec<HostNames> {
        let host = |host: &str, also: &str| HostNames {
            host: host.to_owned(),
            also: vec![also.to_owned()],
        };
        vec![host("node1", "10.0.0.1"), host("node2", "10.0.0.2")]
    }

    fn answer() -> String {
        serde_json::json!({"status": "success", "data": {"resultType": "matrix", "result": [
            {"metric": {"__name__": "DCGM_FI_DEV_POWER_USAGE", "gpu": "0", "UUID": "GPU-a",
                "Hostname": "node1.cluster.local", "instance": "10.9.9.9:9400"},
             "values": [[1_789_948_800.0, "512.5"], [1_789_948_801.0, "NaN"], [1_789_948_802.0, "500"]]},
            {"metric": {"__name__": "node_cpu_seconds_total", "cpu": "0", "mode": "user",
                "instance": "10.0.0.2:9100"}, "values": [[1_789_948_800.5, "70.25"]]},
            {"metric": {"__name__": "node_cpu_seconds_total", "cpu": "0", "mode": "user",
                "instance": "10.0.0.22:9100"}, "values": [[1_789_948_800.5, "1"]]},
        ]}})
        .to_string()
    }

    #[test]
    fn series_of_known_hosts_are_read_as_their_exporters_pages() {
        // The server's clock is 3 s ahead of ours, which is known to a millisecond.
        let zero = Nanos::from_secs(1_789_948_700);
        let fix = |far| Fix { far, offset_ns: 3_000_000_000, bound: Nanos::from_millis(1) };
        let mut time = FarClock::default();
        [Nanos::from_secs(99), Nanos::from_secs(103)]
            .into_iter()
            .for_each(|far| time.learn(fix(far)));
        let kept = read(&answer(), &hosts(), zero, &time).unwrap();
        let found = &kept.series;
        let of = |part: Part, quantity: Quantity| {
            let is = |s: &&Series| s.device.part == part && s.quantity == quantity;
            found.iter().find(is).unwrap()
        };
        let power = of(Part::Gpu, Quantity::Power);
        assert_eq!((power.device.host.as_str(), power.device.index), ("node1", Some(0)));
        let values: Vec<(f64, f64)> =
            power.readings.iter().map(|r| (r.at().as_secs_f64(), r.value)).collect();
        assert_eq!(values, [(97.0, 512.5), (99.0, 500.0)], "what was no number is missing");
        let width = power.readings[0].to - power.readings[0].from;
        assert!(Nanos::from_millis(2) <= width && width < Nanos::from_millis(3), "{width:?}");
        let clocks: Vec<(&str, f64)> =
            kept.clocks.iter().map(|c| (c.host.as_str(), c.offset_s)).collect();
        assert_eq!(clocks, [("node1", 3.0), ("node2", 3.0)]);
        let cpu = of(Part::Host, Quantity::CpuBusy);
        assert_eq!(cpu.device.host, "node2");
        assert!((cpu.readings[0].value - 70.25).abs() < 1e-12);
        assert_eq!(cpu.readings.len(), 1, "10.0.0.22 is another host");
    }

    #[test]
    fn a_server_says_what_time_it_has() {
        let body = r#"{"status": "success", "data": {"resultType": "scalar", "result": [1789948800.25, "1789948800.25"]}}"#;
        assert_eq!(server_time(body), Ok(Nanos(1_789_948_800_250_000_000)));
        let error = r#"{"status": "error", "error": "no time"}"#;
        assert_eq!(server_time(error), Err("no time".to_owned()));
        assert!(server_time("<html>").unwrap_err().contains("no answer"));
    }

    #[test]
    fn why_there_is_nothing_is_told() {
        let error = r#"{"status": "error", "errorType": "bad_data", "error": "exceeded maximum resolution"}"#;
        let nobody = r#"{"status": "success", "data": {"result": []}}"#;
        for (body, why) in [
            (error, "maximum resolution"),
            (nobody, "no series of a host"),
            ("<html>", "no answer"),
        ] {
            let found = read(body, &hosts(), Nanos::ZERO, &FarClock::default());
            assert!(found.unwrap_err().contains(why), "{body}");
        }
        assert!(
            query().starts_with("{__name__=~\"DCGM_FI_")
                && query().contains("|node_cpu_seconds_total")
        );
    }
}
