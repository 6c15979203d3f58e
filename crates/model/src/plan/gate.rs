//! What gates are called in a file, and how long each of them may take.

use super::{DeploymentPlan, Gate, Platform, ReadyPlan};
use crate::spec::{Problem, WithinSpec};
use crate::units::Nanos;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A gate that may have a time of its own.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum GateKind {
    /// What a process is started after; on a platform that starts processes itself, that it runs.
    Start,
    /// A path answers 200.
    Health,
    /// A line is in a log.
    Log,
    /// The model is listed.
    Models,
    /// Instances are counted.
    Instances,
    /// A real answer comes.
    Completion,
    /// Key-value blocks move.
    Blocks,
}

impl GateKind {
    /// Its key in `ready.within`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Health => "health",
            Self::Log => "log",
            Self::Models => "models",
            Self::Instances => "instances",
            Self::Completion => "completion",
            Self::Blocks => "blocks",
        }
    }
}

impl fmt::Display for GateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Gate {
    /// What it is called; nothing where it takes no time.
    pub const fn kind(&self) -> Option<GateKind> {
        Some(match self {
            Self::Alive { .. } => return None,
            Self::Http { .. } => GateKind::Health,
            Self::Log { .. } => GateKind::Log,
            Self::ModelListed { .. } | Self::Servers { .. } => GateKind::Models,
            Self::Application { .. } | Self::Instances { .. } | Self::Workers { .. } => {
                GateKind::Instances
            }
            Self::Completion { .. } | Self::Ranks { .. } => GateKind::Completion,
            Self::BlocksMoved { .. } => GateKind::Blocks,
        })
    }
}

impl ReadyPlan {
    /// How long a gate of `kind` may take, where it has a time of its own.
    pub fn limit(&self, kind: GateKind) -> Option<Nanos> {
        self.within.get(&kind).copied()
    }
}

/// The times that a file gives.
pub(super) fn limits(spec: &WithinSpec) -> BTreeMap<GateKind, Nanos> {
    let given = [
        (GateKind::Start, spec.start),
        (GateKind::Health, spec.health),
        (GateKind::Log, spec.log),
        (GateKind::Models, spec.models),
        (GateKind::Instances, spec.instances),
        (GateKind::Completion, spec.completion),
        (GateKind::Blocks, spec.blocks),
    ];
    given.into_iter().filter_map(|(kind, span)| Some((kind, span?.0))).collect()
}

/// Problems with the times that gates of deployment `index` have: each is of a gate that is waited for, and within
/// the time of all.
pub(super) fn check(index: usize, deployment: &DeploymentPlan) -> Vec<Problem> {
    let ready = &deployment.ready;
    let waited = waited_for(deployment);
    let problem = |(kind, limit): (&GateKind, &Nanos)| {
        let (message, hint) = if !waited.contains(kind) {
            not_waited_for(deployment, *kind, &waited)
        } else if *limit == Nanos::ZERO {
            ("a gate is not passed in no time".to_owned(), "say a span, as \"2m\"".to_owned())
        } else if *limit > ready.timeout {
            let message = format!(
                "{limit} is longer than {}, after which the whole wait is given up",
                ready.timeout
            );
            (message, "raise ready.timeout, or lower this".to_owned())
        } else {
            return None;
        };
        Some(Problem::new(format!("deploy[{index}].ready.within.{kind}"), message, hint))
    };
    ready.within.iter().filter_map(problem).collect()
}

/// The gates that take time, in the order in which they are passed.
fn waited_for(deployment: &DeploymentPlan) -> Vec<GateKind> {
    let starts_late = match deployment.platform {
        Platform::External | Platform::Slurm => false,
        platform if platform.places_processes() => {
            deployment.processes.iter().any(|process| process.after.is_some())
        }
        _ => true,
    };
    let gates = deployment.ready.gates.iter().filter_map(Gate::kind);
    starts_late.then_some(GateKind::Start).into_iter().chain(gates).collect()
}

fn not_waited_for(
    deployment: &DeploymentPlan,
    kind: GateKind,
    waited: &[GateKind],
) -> (String, String) {
    if kind == GateKind::Start && deployment.platform == Platform::Slurm {
        let message = "how long a job may wait is said to Slurm's queue".to_owned();
        return (message, "use params = { queue = \"..\" }".to_owned());
    }
    let names: Vec<&str> = waited.iter().map(|kind| kind.name()).collect();
    let message = format!("'{}' has no gate '{kind}' to wait for", deployment.name);
    (message, format!("it has: {}", names.join(", ")))
}
