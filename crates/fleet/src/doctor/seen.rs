//! All that the checks may look at: the plan, and what is known of its machines.

use super::facts::Facts;
use super::machine::Machine;
use super::sections::{Known, Unknown};
use super::transfer::Sent;
use scalebeam_model::plan::{DeploymentPlan, Plan};
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

    /// Whether any of a machine's deployments is on other machines too.
    pub(crate) fn is_shared(&self, host: &Host<'_>) -> bool {
        host.machine.any(|duty| self.of(duty.deployment).count() > 1)
    }
}
