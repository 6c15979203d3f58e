//! Pages of other programs that say what a machine does, asked while a trial is measured.

use crate::experiment::Loaded;
use scalebeam_fleet::Page;
use scalebeam_model::clock::Clock;
use scalebeam_model::plan::HostPlan;
use scalebeam_model::telemetry::controller::redfish_watts;
use scalebeam_model::telemetry::exporter::{self, Exporter};
use scalebeam_model::telemetry::prometheus::{self, HostNames};
use scalebeam_model::telemetry::usage::THIS_MACHINE;
use scalebeam_model::telemetry::{
    Absent, CONTROLLER_INTERVAL, Device, PageKind, PagePlan, Part, Quantity, Series, Telemetry,
    Told,
};
use scalebeam_model::units::Nanos;
use scalebeam_telemetry::poll::{PATIENCE, Poll};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Exporters gather anew for each page, and a page oftener than this is a load of its own.
const PAGE_INTERVAL: Nanos = Nanos::from_secs(1);

/// One poll a page that the file names; what cannot be asked at all is absent. `here` is what readings of this machine
/// are called, `watched` are hosts that an agent reads, and hosts that are not wanted have no part in the deployment.
pub(super) fn polls(
    loaded: &Loaded,
    here: &str,
    watched: &[&str],
    is_wanted: &dyn Fn(&str) -> bool,
) -> (Vec<Poll>, Vec<Absent>) {
    let (mut polls, mut absent) = (Vec::new(), Vec::new());
    let pages = loaded.plan.telemetry.pages.iter();
    for plan in pages.filter(|p| p.kind != PageKind::Prometheus) {
        let mut plan = plan.clone();
        if plan.host == THIS_MACHINE {
            here.clone_into(&mut plan.host);
        }
        if !is_wanted(&plan.host) {
            continue;
        }
        let is_ours = plan.host == here || watched.contains(&plan.host.as_str());
        if is_ours && is_of_machine(&plan) && loaded.plan.telemetry.host {
            let why = "the machine is read by scalebeam itself; set host = false to use the page";
            let (host, what, why) = (plan.host.clone(), what(&plan), why.to_owned());
            absent.push(Absent { host, what, why });
            continue;
        }
        let plan = &plan;
        match poll(plan, loaded) {
            Ok(poll) => polls.push(poll),
            Err(why) => absent.push(Absent { host: plan.host.clone(), what: what(plan), why }),
        }
    }
    (polls, absent)
}

/// Whether `host` is a GPU's host whose GPUs a page tells, in place of its driver.
pub(super) fn tells_gpus_of(loaded: &Loaded, host: &str, is_here: bool) -> bool {
    let is = |p: &PagePlan| p.kind == PageKind::Dcgm && is_of(p, host, is_here);
    loaded.plan.telemetry.pages.iter().any(is)
}

/// Whether a page tells of `host`, which may be this machine.
fn is_of(page: &PagePlan, host: &str, is_here: bool) -> bool {
    page.host == host || (is_here && page.host == THIS_MACHINE)
}

/// Counts of the same thing by two readers, one among the other, would look like counters that were set back.
fn is_of_machine(plan: &PagePlan) -> bool {
    plan.kind == PageKind::NodeExporter
}

/// Whether node_exporter tells of `host` in our place, its RDMA ports too.
pub(super) fn tells_machine_of(loaded: &Loaded, host: &str, is_here: bool) -> bool {
    let plan = &loaded.plan.telemetry;
    !plan.host && plan.pages.iter().any(|p| is_of_machine(p) && is_of(p, host, is_here))
}

fn what(plan: &PagePlan) -> String {
    match plan.kind {
        PageKind::Redfish => "power by Redfish".to_owned(),
        PageKind::Dcgm => "GPUs by dcgm-exporter".to_owned(),
        PageKind::NodeExporter => "the machine by node_exporter".to_owned(),
        PageKind::Prometheus => "hosts by Prometheus".to_owned(),
    }
}

fn poll(plan: &PagePlan, loaded: &Loaded) -> Result<Poll, String> {
    let page = Page::new(plan, &loaded.base).map_err(|e| e.to_string())?;
    let (runtime, plan) = (Handle::current(), plan.clone());
    let (host, what, interval) = (plan.host.clone(), what(&plan), interval(&plan, loaded));
    let mut last = Told::new();
    // Its own thread asks, so that waiting for the answer holds nothing up.
    let ask = move || -> Result<Told, String> {
        let told = read(&plan, &answer(&runtime, page.read())?)?;
        // It has not gathered anew since: old values are none of now.
        if plan.kind == PageKind::Dcgm && told == last {
            return Ok(Told::new());
        }
        last.clone_from(&told);
        Ok(told)
    };
    Ok(Poll { host, what, interval, ask: Box::new(ask) })
}

/// Waits for a page, but not for ever. Blocks.
fn answer(
    runtime: &Handle,
    page: impl Future<Output = Result<String, String>>,
) -> Result<String, String> {
    let body = runtime.block_on(async { tokio::time::timeout(PATIENCE, page).await });
    body.map_err(|_| format!("there was no answer within {} s", PATIENCE.as_secs()))?
}

fn interval(plan: &PagePlan, loaded: &Loaded) -> Nanos {
    let asked = loaded.plan.telemetry.interval;
    match plan.kind {
        PageKind::Redfish => asked.max(CONTROLLER_INTERVAL),
        PageKind::Dcgm | PageKind::NodeExporter | PageKind::Prometheus => asked.max(PAGE_INTERVAL),
    }
}

/// What a page tells.
fn read(plan: &PagePlan, body: &str) -> Result<Told, String> {
    match plan.kind {
        PageKind::Redfish => {
            let (_, pointer) = plan.url.split_once('#').unwrap_or_default();
            Ok(vec![(chassis(&plan.host), vec![(Quantity::Power, redfish_watts(body, pointer)?)])])
        }
        PageKind::Dcgm => exporter::read(Exporter::Dcgm, &plan.host, body),
        PageKind::NodeExporter => exporter::read(Exporter::Node, &plan.host, body),
        // Its answers are of a time that is over: see `history`.
        PageKind::Prometheus => Ok(Vec::new()),
    }
}

fn chassis(host: &str) -> Device {
    Device {
        host: host.to_owned(),
        part: Part::Chassis,
        name: PageKind::Redfish.name().to_owned(),
        index: None,
        role: None,
    }
}

/// What Prometheus servers kept of the hosts `names` over the readings of `telemetry` is added to it. Blocks.
pub(super) fn history(history: &History, telemetry: &mut Telemetry) {
    for (plan, page) in &history.servers {
        let found = history.ask(page, telemetry);
        match found {
            Ok(series) => add(series, telemetry),
            Err(why) => {
                telemetry.absent.push(Absent { host: plan.host.clone(), what: what(plan), why });
            }
        }
    }
}

/// Prometheus servers, and what is asked of them.
#[derive(Debug)]
pub(super) struct History {
    servers: Vec<(PagePlan, Result<Page, String>)>,
    hosts: Vec<HostNames>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
}

impl History {
    pub(super) fn new(
        loaded: &Loaded,
        clock: &Arc<dyn Clock>,
        is_wanted: &dyn Fn(&str) -> bool,
    ) -> Self {
        let servers = loaded.plan.telemetry.pages.iter().filter(|p| p.kind == PageKind::Prometheus);
        let open = |plan: &PagePlan| {
            let page = Page::new(plan, &loaded.base).map_err(|e| e.to_string());
            (plan.clone(), page)
        };
        let names =
            |host: &HostPlan| HostNames { host: host.name.clone(), also: vec![host.addr.clone()] };
        Self {
            servers: servers.map(open).collect(),
            hosts: loaded.plan.hosts.iter().filter(|h| is_wanted(&h.name)).map(names).collect(),
            clock: Arc::clone(clock),
            runtime: Handle::current(),
        }
    }

    fn ask(
        &self,
        page: &Result<Page, String>,
        telemetry: &Telemetry,
    ) -> Result<Vec<Series>, String> {
        let page = page.as_ref().map_err(Clone::clone)?;
        let times = || telemetry.series.iter().flat_map(|s| &s.readings).map(|r| r.at());
        let (from, to) = times().min().zip(times().max()).ok_or("nothing else was read")?;
        // The epoch's time at zero of the run's clock.
        let unix = self.clock.unix_now() - self.clock.now();
        let query = range(unix + from, unix + to, telemetry.interval);
        prometheus::read(&answer(&self.runtime, page.read_below(&query))?, &self.hosts, unix)
    }
}

/// Path and query behind a server's address: values from a little before `from` until a little after `to`, with the
/// times that the server took them at. An answer by steps would repeat old ones as if they were new.
fn range(from: Nanos, to: Nanos, interval: Nanos) -> String {
    let step = interval.max(PAGE_INTERVAL);
    let (from, to) = (from.0.saturating_sub(step.0), to.0.saturating_add(step.0));
    let millis = to.saturating_sub(from) / 1_000_000 + 1;
    let query = percent_encoded(&format!("{}[{millis}ms]", prometheus::query()));
    format!("/api/v1/query?query={query}&time={:.3}", to as f64 / 1e9)
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

/// A host that is read by itself already is not read twice.
fn add(series: Vec<Series>, telemetry: &mut Telemetry) {
    let read: BTreeSet<(String, Part)> =
        telemetry.series.iter().map(|s| (s.device.host.clone(), s.device.part)).collect();
    let is_new = |s: &Series| !read.contains(&(s.device.host.clone(), s.device.part));
    telemetry.series.extend(series.into_iter().filter(is_new));
}
