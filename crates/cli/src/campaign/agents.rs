//! Agents on the other hosts of a deployment, and the ways to ask them.

use super::Campaign;
use scalebeam_fleet::Running;
use scalebeam_fleet::agent::{AgentProgram, Carried, Door, Way};
use scalebeam_model::plan::{DeploymentPlan, Platform};
use scalebeam_telemetry::far::{Carrier, Link, Reach};
use std::path::PathBuf;
use std::sync::Arc;

/// Brings one to each host that is reached by ssh, where anything is to be read there.
pub(super) async fn carry(
    campaign: &Campaign<'_>,
    deployment: &DeploymentPlan,
    running: &mut Running,
) -> Vec<Carried> {
    let asked = &campaign.loaded.plan.telemetry;
    let reads = asked.host || asked.gpu || asked.rdma;
    let is_far = deployment.platform == Platform::Ssh
        && campaign.loaded.plan.hosts.iter().any(|h| h.ssh.is_some());
    if !(reads && is_far) {
        return Vec::new();
    }
    let own = asked.agent.as_ref().map(|path| campaign.loaded.base.join(path));
    let exe = campaign.context.exe.clone();
    let carried = match read(own, exe).await {
        Ok(program) => running.carry_agents(deployment, &Arc::new(program)).await,
        Err(why) => far_hosts(campaign, deployment)
            .map(|host| Carried { host, door: Err(why.clone()) })
            .collect(),
    };
    for Carried { host, door } in &carried {
        if let Err(why) = door {
            campaign
                .display
                .line(&format!("{}: host {host} is not watched: {why}", deployment.name));
        }
    }
    carried
}

/// A program is read whole, which takes a moment.
async fn read(own: Option<PathBuf>, exe: PathBuf) -> Result<AgentProgram, String> {
    let reading = tokio::task::spawn_blocking(move || AgentProgram::read(own.as_deref(), &exe));
    reading.await.unwrap_or_else(|e| Err(e.to_string()))
}

fn far_hosts<'a>(
    campaign: &'a Campaign<'_>,
    deployment: &'a DeploymentPlan,
) -> impl Iterator<Item = String> + 'a {
    let places = |name: &str| deployment.processes.iter().any(|p| p.host == name);
    let hosts = campaign.loaded.plan.hosts.iter();
    hosts.filter(move |h| h.ssh.is_some() && places(&h.name)).map(|h| h.name.clone())
}

/// Fleet's way to an agent, as telemetry wants it.
#[derive(Debug)]
pub(super) struct ByDoor(pub(super) Door);

impl Reach for ByDoor {
    fn connect(&self) -> Result<Link, String> {
        let (input, output, way) = self.0.open()?;
        let carrier = Box::new(OneWay(way));
        Ok(Link { input: Box::new(input), output: Box::new(output), carrier })
    }
}

struct OneWay(Way);

impl Carrier for OneWay {
    fn last_words(&mut self) -> Option<String> {
        self.0.last_words()
    }
}
