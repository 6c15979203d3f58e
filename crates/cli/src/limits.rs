//! What this machine lets one process have: open files, and local ports.
//!
//! A load that needs more than that would fail request by request, and its numbers would be those of
//! the rest. So it is refused before anything is started.

use crate::exit::Failure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use scalebeam_model::api::HttpVersion;
use scalebeam_model::plan::{DeploymentPlan, Plan, PointPlan};
use std::net::UdpSocket;

/// Files beside the sockets: standard streams, epoll, timers, listener, pipes, with some to spare.
const OTHER_FILES: u64 = 64;

/// Where Linux says which local ports connections are given.
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Lets this process open as many files as it may, and checks that `sockets` are among them.
pub(crate) fn raise_file_limit(sockets: u64) -> Result<(), Failure> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // macOS refuses its own "unlimited"; what there is then has to do.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let now = getrlimit(Resource::Nofile).current;
    enough_files(now, sockets)
}

fn enough_files(limit: Option<u64>, sockets: u64) -> Result<(), Failure> {
    let want = sockets.saturating_add(OTHER_FILES);
    match limit {
        Some(limit) if limit < want => Err(Failure::usage(format!(
            "{sockets} streams need {want} open files in one process, and the hard limit is {limit}"
        ))
        .hint("raise the hard limit (ulimit -Hn, LimitNOFILE= of a service), or ask for fewer streams")),
        _ => Ok(()),
    }
}

/// Checks that every point's connections can be had at the same time, from the addresses that are named.
pub(crate) fn enough_connections(plan: &Plan) -> Result<(), Failure> {
    for source in &plan.sources {
        UdpSocket::bind((*source, 0)).map_err(|e| {
            Failure::usage(format!("source {source} is no address of this machine: {e}"))
                .hint("name addresses that 'ip address' lists, in [client] source or --source")
        })?;
    }
    let asked = plan.every_point().filter_map(|point| {
        let deployment = plan.deployment(&point.deployment)?;
        Some((point, deployment, connections(point, deployment)?))
    });
    let Some((point, deployment, most)) = asked.max_by_key(|(_, _, n)| *n) else { return Ok(()) };
    raise_file_limit(most)?;
    let range = std::fs::read_to_string(PORT_RANGE).ok();
    let Some(ports) = range.as_deref().and_then(ports_in) else { return Ok(()) };
    let sources = plan.sources.len().max(1) as u64;
    let targets = deployment.entries.len().max(1) as u64;
    let have = ports.saturating_mul(sources).saturating_mul(targets);
    if most <= have {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{} needs {most} connections at a time, and there are {ports} local ports for each of {sources} \
         source addresses and {targets} entries: {have}",
        point.id
    ))
    .hint(
        "name more addresses of this machine ([client] source = [..], or --source), send over HTTP/2 \
         (http = \"2\"), or spread the load over more entries",
    ))
}

/// The most connections that a point has at a time; absent where only the server decides.
fn connections(point: &PointPlan, deployment: &DeploymentPlan) -> Option<u64> {
    point.measure.most_in_flight().filter(|_| deployment.http == HttpVersion::Http1)
}

/// How many ports the text of [`PORT_RANGE`] means.
fn ports_in(text: &str) -> Option<u64> {
    let mut bounds = text.split_whitespace().map(str::parse::<u64>);
    let (first, last) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
    (last >= first).then(|| last - first + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_with_some_to_spare() {
        assert!(enough_files(Some(1_064), 1_000).is_ok());
        let failure = enough_files(Some(1_024), 1_000).unwrap_err();
        assert!(failure.text().contains("need 1064 open files"), "{}", failure.text());
        assert!(enough_files(None, u64::MAX).is_ok());
    }

    #[test]
    fn a_port_range_holds_both_its_ends() {
        assert_eq!(ports_in("32768\t60999\n"), Some(28_232));
        assert_eq!(ports_in("5 5"), Some(1));
        for text in ["", "7", "9 8", "a b"] {
            assert_eq!(ports_in(text), None, "{text}");
        }
    }
}
