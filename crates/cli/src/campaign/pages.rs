//! Pages of other programs that say what a machine does, asked while a trial is measured.

use crate::experiment::Loaded;
use scalebeam_fleet::Page;
use scalebeam_model::telemetry::controller::redfish_watts;
use scalebeam_model::telemetry::{
    Absent, CONTROLLER_INTERVAL, Device, PageKind, PagePlan, Part, Quantity,
};
use scalebeam_model::units::Nanos;
use scalebeam_telemetry::poll::{PATIENCE, Poll, Told};
use tokio::runtime::Handle;

/// One poll a page that the file names; what cannot be asked at all is absent.
pub(super) fn polls(loaded: &Loaded) -> (Vec<Poll>, Vec<Absent>) {
    let (mut polls, mut absent) = (Vec::new(), Vec::new());
    for plan in &loaded.plan.telemetry.pages {
        match poll(plan, loaded) {
            Ok(poll) => polls.push(poll),
            Err(why) => absent.push(Absent { host: plan.host.clone(), what: what(plan), why }),
        }
    }
    (polls, absent)
}

fn what(plan: &PagePlan) -> String {
    match plan.kind {
        PageKind::Redfish => "power by Redfish".to_owned(),
    }
}

fn poll(plan: &PagePlan, loaded: &Loaded) -> Result<Poll, String> {
    let page = Page::new(plan, &loaded.base).map_err(|e| e.to_string())?;
    let (runtime, plan) = (Handle::current(), plan.clone());
    let (host, what, interval) = (plan.host.clone(), what(&plan), interval(&plan, loaded));
    // Its own thread asks, so that waiting for the answer holds nothing up.
    let ask = move || {
        let body = runtime.block_on(async { tokio::time::timeout(PATIENCE, page.read()).await });
        let late = |_| format!("there was no answer within {} s", PATIENCE.as_secs());
        read(&plan, &body.map_err(late)??)
    };
    Ok(Poll { host, what, interval, ask: Box::new(ask) })
}

fn interval(plan: &PagePlan, loaded: &Loaded) -> Nanos {
    let asked = loaded.plan.telemetry.interval;
    match plan.kind {
        PageKind::Redfish => asked.max(CONTROLLER_INTERVAL),
    }
}

/// What a page tells.
fn read(plan: &PagePlan, body: &str) -> Result<Told, String> {
    match plan.kind {
        PageKind::Redfish => {
            let (_, pointer) = plan.url.split_once('#').unwrap_or_default();
            Ok(vec![(chassis(&plan.host), vec![(Quantity::Power, redfish_watts(body, pointer)?)])])
        }
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
