//! All that the checks may look at: the plan, and what is known of its machines.

use super::facts::Facts;
use super::machine::Machine;
use super::sections::{Known, Unknown};
use super::transfer::Sent;
use scalebeam_model::plan::{DeploymentPlan, Plan, Platform};
use scalebeam_model::units::Nanos;

/// A host that the probe did not reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreached {
    pub(crate) said: String,
    pub(crate) hint: String,
}

/// How far the clock of a host is from this machine's: the true offset is within `bound` of `offset`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ClockOffset {
    pub(crate) offset_ms: f64,
    pub(crate) bound_ms: f64,
}

/// Why nothing is known of the nodes of a job that does not exist.
pub(crate) fn nodes_to_come() -> Unknown {
    Unknown::because(
        "Slurm gives nodes to a job: run and up ask this on each of them, by steps of the job, before they start \
         anything there",
    )
}

/// A machine, as it was found.
#[derive(Debug)]
pub(crate) struct Host<'a> {
    pub(crate) machine: Machine<'a>,
    pub(crate) facts: Result<Facts, Unreached>,
    pub(crate) clock: Known<ClockOffset>,
    /// From here to its data-plane address and back, by a TCP handshake or its refusal.
    pub(crate) rtt: Known<Nanos>,
    /// A transfer from it to a host that it talks to; absent where it talks to none.
    pub(crate) sent: Option<Sent>,
    /// Programs and models that scalebeam has installed there itself.
    pub(crate) managed: Vec<String>,
}

impl Host<'_> {
    /// Its facts; a host that was not reached has none.
    pub(crate) fn facts(&self) -> Known<&Facts> {
        self.facts.as_ref().map_err(|_| Unknown::because("the host was not reached (D10)"))
    }
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) deployments: Vec<&'a DeploymentPlan>,
    /// This machine first, whether or not it has duties.
    pub(crate) hosts: Vec<Host<'a>>,
}

impl<'a> Seen<'a> {
    /// The machine that sends the load.
    pub(crate) fn client(&self) -> Known<&Facts> {
        self.hosts.first().ok_or_else(|| Unknown::because("nobody looked"))?.facts()
    }

    /// Machines with a process of the plan.
    pub(crate) fn working(&self) -> impl Iterator<Item = &Host<'a>> {
        self.hosts.iter().filter(|h| !h.machine.duties.is_empty())
    }

    /// Machines of a deployment.
    pub(crate) fn of<'s>(&'s self, d: &'s DeploymentPlan) -> impl Iterator<Item = &'s Host<'a>> {
        self.hosts.iter().filter(move |h| h.machine.serves(d))
    }

    /// Machines of a deployment to hold against each other, or why there are none.
    pub(crate) fn several(&self, d: &DeploymentPlan) -> Known<()> {
        match self.of(d).count() {
            0 if d.platform == Platform::Slurm => Err(nodes_to_come()),
            0 | 1 => Err(Unknown::because("fewer than two hosts: nothing to compare")),
            _ => Ok(()),
        }
    }

    /// Passes where a platform has yet to be asked for the machines of a deployment.
    pub(crate) fn not_given(&self, d: &DeploymentPlan) -> Known<()> {
        match self.of(d).next() {
            Some(_) => Err(Unknown::because("the platform has given it its machines")),
            None => Ok(()),
        }
    }

    /// Deployments whose machines are not known yet, and will be asked then.
    pub(crate) fn to_come(&self) -> impl Iterator<Item = &'a DeploymentPlan> {
        let is_unplaced = |d: &&DeploymentPlan| self.of(d).next().is_none();
        self.deployments
            .iter()
            .copied()
            .filter(move |d| d.platform == Platform::Slurm && is_unplaced(d))
    }

    /// Whether any of a machine's deployments is on other machines too.
    pub(crate) fn is_shared(&self, host: &Host<'_>) -> bool {
        host.machine.any(|duty| self.of(duty.deployment).count() > 1)
    }
}
