//! Pages of other programs that say what a machine does, asked while a trial is measured.

mod history;

pub(super) use history::{Begun, History};

use crate::experiment::Loaded;
use scalebeam_fleet::Page;
use scalebeam_model::telemetry::controller::redfish_watts;
use scalebeam_model::telemetry::exporter::{self, Exporter};
use scalebeam_model::telemetry::usage::THIS_MACHINE;
use scalebeam_model::telemetry::{
    Absent, CONTROLLER_INTERVAL, Device, PageKind, PagePlan, Part, Quantity, Told,
};
use scalebeam_model::units::Nanos;
use scalebeam_telemetry::poll::{PATIENCE, Poll};
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
    let repeats = plan.kind == PageKind::Dcgm;
    // Its own thread asks, so that waiting for the answer holds nothing up.
    let ask = move || read(&plan, &answer(&runtime, page.read())?);
    Ok(Poll { host, what, interval, repeats, ask: Box::new(ask) })
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
        // Its answers are of a time that is over: see [`History`].
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
