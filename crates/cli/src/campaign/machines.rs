//! Watching the machines of a deployment while it is measured.

use super::{Campaign, pages};
use crate::exit::Failure;
use scalebeam_fleet::process::{DIR_MARKER, PROCESS_MARKER};
use scalebeam_model::plan::{DeploymentPlan, ProcessPlan, Role};
use scalebeam_model::telemetry::usage::{machine, this_machine};
use scalebeam_model::telemetry::{Absent, Part, Telemetry, TelemetryPlan};
use scalebeam_telemetry::{Watch, WatchConfig, Watched};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What our own process is called among those of a machine.
const OWN_NAME: &str = "load generator";

/// What is absent of a host that nothing is read of.
const THE_MACHINE: &str = "the machine";

/// The watch over this machine, and what is not watched.
#[derive(Debug)]
pub(super) struct Machines {
    watch: Watch,
    /// What servers kept of them meanwhile.
    history: pages::History,
    /// Hosts of the deployment that nothing is read of.
    unread: Vec<Absent>,
}

impl Machines {
    /// Watches this machine while `deployment` is measured.
    pub(super) fn watch(
        campaign: &Campaign<'_>,
        deployment: &DeploymentPlan,
    ) -> Result<Self, Failure> {
        let plan = &campaign.loaded.plan;
        let here = this_machine(deployment, &plan.hosts);
        let by_page = pages::tells_gpus_of(campaign.loaded, here);
        let config = WatchConfig {
            host: here.to_owned(),
            plan: TelemetryPlan { gpu: plan.telemetry.gpu && !by_page, ..plan.telemetry.clone() },
            watched: Some(Watched {
                marker: format!("{DIR_MARKER}={}", campaign.context.mark().dir),
                id_variable: PROCESS_MARKER.to_owned(),
                roles: roles(deployment),
                own_name: Some(OWN_NAME.to_owned()),
            }),
        };
        let mut unread = unread(campaign, deployment, &config.host);
        let (polls, unasked) = pages::polls(campaign.loaded, &config.host);
        unread.extend(unasked);
        let watch = Watch::start_with(config, Arc::clone(&campaign.clock), polls);
        let watch = watch.map_err(|e| Failure::internal(format!("cannot watch machines: {e}")))?;
        let history = pages::History::new(campaign.loaded, &campaign.clock);
        Ok(Self { watch, history, unread })
    }

    /// Everything is read for the first time when this returns.
    pub(super) fn begin(&self) {
        self.watch.begin();
    }

    /// What was read since the begin.
    pub(super) fn end(&self) -> Option<Telemetry> {
        let mut telemetry = self.watch.end()?;
        pages::history(&self.history, &mut telemetry);
        let unread = self.unread.iter().filter(|absent| !is_read(absent, &telemetry));
        let unread: Vec<Absent> = unread.cloned().collect();
        telemetry.absent.extend(unread);
        Some(telemetry)
    }
}

/// Whether what was to be absent was read by another program after all.
fn is_read(absent: &Absent, telemetry: &Telemetry) -> bool {
    let hosts = telemetry.devices(Part::Host);
    absent.what == THE_MACHINE && hosts.iter().any(|d| d.host == absent.host)
}

/// What each process of the plan does, where it works for an instance.
fn roles(deployment: &DeploymentPlan) -> BTreeMap<String, Role> {
    let role = |p: &ProcessPlan| {
        let is = |index| deployment.instances.iter().find(|i| i.index == index);
        Some((p.id.clone(), is(p.instance?)?.role))
    };
    deployment.processes.iter().filter_map(role).collect()
}

/// Hosts of the deployment that are not this machine.
fn unread(campaign: &Campaign<'_>, deployment: &DeploymentPlan, here: &str) -> Vec<Absent> {
    let hosts = &campaign.loaded.plan.hosts;
    let names = deployment.processes.iter().map(|p| machine(deployment, hosts, &p.host));
    let mut others: Vec<&str> = names.filter(|name| *name != here).collect();
    others.sort_unstable();
    others.dedup();
    let absent = |host: &&str| Absent {
        host: (*host).to_owned(),
        what: THE_MACHINE.to_owned(),
        why: "this version reads only the machine that it runs on".to_owned(),
    };
    others.iter().map(absent).collect()
}
