//! Agents on the other hosts of a deployment, and the ways to ask them.

use super::Campaign;
use scalebeam_fleet::Running;
use scalebeam_fleet::agent::{AgentProgram, Carried, Door, FarHost, Way};
use scalebeam_model::plan::{DeploymentPlan, Platform};
use scalebeam_telemetry::far::{Carrier, Link, Reach};
use std::path::PathBuf;
use std::sync::Arc;

/// Brings one to each other host that can have one, where anything is to be read there.
pub(super) async fn carry(
    campaign: &Campaign<'_>,
    deployment: &DeploymentPlan,
    running: &mut Running,
) -> Vec<Carried> {
    let asked = &campaign.loaded.plan.telemetry;
    let reads = asked.host || asked.gpu || asked.rdma;
    if !reads {
        return Vec::new();
    }
    let carried = match running.far_hosts(deployment).await {
        Ok(hosts) if hosts.is_empty() => unplaced(deployment).into_iter().collect(),
        Ok(hosts) => carried(campaign, deployment, running, hosts).await,
        Err(why) => vec![nowhere("its pods", why)],
    };
    for Carried { host, door, .. } in &carried {
        if let Err(why) = door {
            campaign
                .display
                .line(&format!("{}: nothing is read of {host}: {why}", deployment.name));
        }
    }
    carried
}

async fn carried(
    campaign: &Campaign<'_>,
    deployment: &DeploymentPlan,
    running: &mut Running,
    hosts: Vec<FarHost>,
) -> Vec<Carried> {
    let own = campaign.loaded.plan.telemetry.agent.as_ref();
    let own = own.map(|path| campaign.loaded.base.join(path));
    match read(own, campaign.context.exe.clone()).await {
        Ok(program) => running.carry_agents(deployment, hosts, &Arc::new(program)).await,
        Err(why) => hosts.into_iter().map(|host| host.without(why.clone())).collect(),
    }
}

fn nowhere(host: &str, why: String) -> Carried {
    Carried { host: host.to_owned(), pod: None, door: Err(why) }
}

/// Nodes that Slurm chooses, of which the plan knows nothing.
fn unplaced(deployment: &DeploymentPlan) -> Option<Carried> {
    let is_placed = deployment.instances.iter().any(|i| !i.place.is_empty());
    let why = "Slurm chose them: name nodes by `place`, and they are watched";
    (deployment.platform == Platform::Slurm && !is_placed)
        .then(|| nowhere("nodes of the job", why.to_owned()))
}

/// A program is read whole, which takes a moment.
async fn read(own: Option<PathBuf>, exe: PathBuf) -> Result<AgentProgram, String> {
    let reading = tokio::task::spawn_blocking(move || AgentProgram::read(own.as_deref(), &exe));
    reading.await.unwrap_or_else(|e| Err(e.to_string()))
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
