//! What Prometheus servers kept of hosts over a measurement, asked once it is over.
//!
//! A server's values have the times of its own clock, which is compared with ours before the measurement and after it,
//! as those of hosts with an agent are. What it took last before the end does not reach to the end: the next scrape is
//! waited for, as long as readings are to lie apart.

use super::{PAGE_INTERVAL, answer, what};
use crate::experiment::Loaded;
use scalebeam_fleet::Page;
use scalebeam_model::clock::Clock;
use scalebeam_model::plan::HostPlan;
use scalebeam_model::telemetry::clocks::{FarClock, Fix, Ping};
use scalebeam_model::telemetry::prometheus::{self, HostNames};
use scalebeam_model::telemetry::{Absent, HostClock, PageKind, PagePlan, Part, Series, Telemetry};
use scalebeam_model::units::Nanos;
use scalebeam_telemetry::poll::PATIENCE;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// From question to question for the scrape behind the end.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Prometheus servers, and what is asked of them.
#[derive(Debug)]
pub(in crate::campaign) struct History {
    servers: Vec<Server>,
    hosts: Vec<HostNames>,
    interval: Nanos,
    /// The epoch's time at zero of our clock, as this machine has it: servers tell theirs since the epoch.
    zero: Nanos,
    clock: Arc<dyn Clock>,
    runtime: Handle,
}

#[derive(Debug)]
struct Server {
    plan: PagePlan,
    page: Result<Page, String>,
}

/// When a measurement began, and how the servers' clocks stood then.
#[derive(Debug)]
pub(in crate::campaign) struct Begun {
    at: Nanos,
    fixes: Vec<Option<Fix>>,
}

impl History {
    pub(in crate::campaign) fn new(
        loaded: &Loaded,
        clock: &Arc<dyn Clock>,
        is_wanted: &dyn Fn(&str) -> bool,
    ) -> Self {
        let plan = &loaded.plan;
        let servers = plan.telemetry.pages.iter().filter(|p| p.kind == PageKind::Prometheus);
        let open = |plan: &PagePlan| {
            let page = Page::new(plan, &loaded.base).map_err(|e| e.to_string());
            Server { plan: plan.clone(), page }
        };
        let names =
            |host: &HostPlan| HostNames { host: host.name.clone(), also: vec![host.addr.clone()] };
        Self {
            servers: servers.map(open).collect(),
            hosts: plan.hosts.iter().filter(|h| is_wanted(&h.name)).map(names).collect(),
            interval: plan.telemetry.interval.max(PAGE_INTERVAL),
            zero: clock.unix_now() - clock.now(),
            clock: Arc::clone(clock),
            runtime: Handle::current(),
        }
    }

    /// A measurement begins. Blocks.
    pub(in crate::campaign) fn begin(&self) -> Begun {
        // Why a server does not answer is told at the end.
        let fix = |server: &Server| self.fix(server.page.as_ref().ok()?).ok();
        Begun { at: self.clock.now(), fixes: self.servers.iter().map(fix).collect() }
    }

    /// Adds to `telemetry` what the servers kept since `begun` of hosts that nothing else told of. Blocks.
    pub(in crate::campaign) fn end(&self, begun: &Begun, telemetry: &mut Telemetry) {
        let ended = self.clock.now();
        for (server, fix) in self.servers.iter().zip(&begun.fixes) {
            match self.ask(server, *fix, begun.at, ended) {
                Ok(kept) => add(kept, telemetry),
                Err(why) => {
                    let (host, what) = (server.plan.host.clone(), what(&server.plan));
                    telemetry.absent.push(Absent { host, what, why });
                }
            }
        }
    }

    /// Compares a server's clock with ours by one question.
    fn fix(&self, page: &Page) -> Result<Fix, String> {
        let sent = self.clock.now();
        let said = answer(&self.runtime, page.read_below(prometheus::TIME_QUERY))?;
        let arrived = self.clock.now();
        let there = prometheus::server_time(&said)? - self.zero;
        let fix = Fix::of(&[Ping { sent, got: there, answered: there, arrived }]);
        let fix = fix.ok_or("its clock cannot be compared with ours")?;
        Ok(Fix { bound: fix.bound + prometheus::TIME_GRAIN, ..fix })
    }

    fn ask(
        &self,
        server: &Server,
        first: Option<Fix>,
        from: Nanos,
        ended: Nanos,
    ) -> Result<Telemetry, String> {
        let page = server.page.as_ref().map_err(Clone::clone)?;
        let patience = self.interval.min(Nanos::from_secs(PATIENCE.as_secs()));
        loop {
            let last = self.fix(page)?;
            let mut time = FarClock::default();
            first.into_iter().chain([last]).for_each(|fix| time.learn(fix));
            let query = self.range(from, last);
            let body = answer(&self.runtime, page.read_below(&query))?;
            let kept = prometheus::read(&body, &self.hosts, self.zero, &time)?;
            if reaches(&kept.series, ended) || self.clock.now() - ended > patience {
                return Ok(kept);
            }
            std::thread::sleep(ASK_AGAIN);
        }
    }

    /// Path and query behind a server's address: values from a little before `from` until `now` by its clock, with the
    /// times that it took them at. An answer by steps would repeat old ones as if they were new.
    fn range(&self, from: Nanos, now: Fix) -> String {
        let since = self.clock.now() - from + self.interval + self.interval;
        let millis = since.0 / 1_000_000 + 1;
        let query = percent_encoded(&format!("{}[{millis}ms]", prometheus::query()));
        format!("/api/v1/query?query={query}&time={:.3}", (self.zero + now.far).as_secs_f64())
    }
}

/// Whether every host of `series` was read once more behind the end.
fn reaches(series: &[Series], ended: Nanos) -> bool {
    let host = |s: &Series| s.device.host.clone();
    let is_behind = |s: &&Series| s.readings.last().is_some_and(|r| r.at() >= ended);
    let all: BTreeSet<String> = series.iter().map(host).collect();
    all == series.iter().filter(is_behind).map(host).collect()
}

/// A host that is read by itself already is not read twice.
fn add(kept: Telemetry, telemetry: &mut Telemetry) {
    let read: BTreeSet<(String, Part)> =
        telemetry.series.iter().map(|s| (s.device.host.clone(), s.device.part)).collect();
    let is_new = |s: &Series| !read.contains(&(s.device.host.clone(), s.device.part));
    let new: Vec<Series> = kept.series.into_iter().filter(is_new).collect();
    let is_of_new = |clock: &HostClock| new.iter().any(|s| s.device.host == clock.host);
    telemetry.clocks.extend(kept.clocks.into_iter().filter(is_of_new));
    telemetry.series.extend(new);
}

fn percent_encoded(text: &str) -> String {
    let encoded = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'~' => {
            char::from(b).to_string()
        }
        _ => format!("%{b:02X}"),
    };
    text.bytes().map(encoded).collect()
}
