//! What really came up is kept with the run, before anything is asked of it.

use super::Campaign;
use crate::exit::Failure;
use crate::interrupt::{Asked, reached};
use scalebeam_fleet::{Running, fingerprint};
use scalebeam_model::plan::DeploymentPlan;
use scalebeam_record::{read_fingerprint, write_fingerprint};

/// Adds what `running` is to the run's fingerprint; whoever interrupts does not wait for it. Which bring-up of its
/// deployment it is, from 1.
///
/// # Errors
/// When it cannot be kept.
pub(super) async fn keep(
    campaign: &Campaign<'_>,
    deployment: &DeploymentPlan,
    running: &Running,
) -> Result<u32, Failure> {
    let loaded = campaign.loaded;
    let session = campaign.writer.session();
    let dir = campaign.writer.dir();
    let mut all = read_fingerprint(dir)?;
    let bring_up = all.bring_ups(&deployment.name) + 1;
    let taking = fingerprint(&loaded.plan, deployment, running, &loaded.base, session);
    let print = tokio::select! {
        print = taking => print,
        () = reached(&campaign.asked, Asked::Once) => return Ok(bring_up),
    };
    all.deployments.push(print);
    write_fingerprint(dir, &all)?;
    Ok(bring_up)
}
