//! Which machines a plan needs, and for what: decided from the plan alone.

use super::sections::{Known, Unknown};
use crate::host::Shell;
use scalebeam_model::plan::{DeploymentPlan, EngineKind, HostPlan, Plan, ProcessPlan, Role};
use std::collections::{BTreeMap, BTreeSet};

/// The name of the machine that scalebeam runs on.
pub(crate) const HERE: &str = "this machine";

/// A process that a machine is to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Duty<'a> {
    pub(crate) deployment: &'a DeploymentPlan,
    pub(crate) process: &'a ProcessPlan,
}

/// A machine: one or more hosts of the file that are reached in the same way.
#[derive(Debug, Clone)]
pub(crate) struct Machine<'a> {
    /// Names in the file, or [`HERE`].
    pub(crate) label: String,
    pub(crate) shell: Shell,
    pub(crate) hosts: Vec<&'a HostPlan>,
    pub(crate) duties: Vec<Duty<'a>>,
}

/// What an engine asks of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Appetite {
    /// Loads weights onto GPUs with a Python stack: vLLM, SGLang, LMDeploy, Ray, Dynamo.
    Heavy,
    /// Loads weights; with or without GPUs: llama.cpp.
    Light,
    /// Loads nothing, or nobody knows what: emulated engines, endpoints and programs of others.
    Nothing,
}

const fn appetite(engine: EngineKind) -> Appetite {
    match engine {
        EngineKind::Vllm
        | EngineKind::Sglang
        | EngineKind::DynamoVllm
        | EngineKind::DynamoSglang
        | EngineKind::Lmdeploy
        | EngineKind::RayServeLlm => Appetite::Heavy,
        EngineKind::LlamaCpp => Appetite::Light,
        EngineKind::Openai
        | EngineKind::Command
        | EngineKind::Emulated
        | EngineKind::DynamoMocker => Appetite::Nothing,
    }
}

/// Whether a deployment loads the weights of a model.
pub(crate) const fn loads_weights(deployment: &DeploymentPlan) -> bool {
    !matches!(appetite(deployment.engine), Appetite::Nothing)
}

/// This machine first, then the others in the order of the file.
///
/// Processes of a platform that chooses its hosts itself are nobody's duty here.
pub(crate) fn machines<'a>(plan: &'a Plan, deployments: &[&'a DeploymentPlan]) -> Vec<Machine<'a>> {
    let shell = |deployment: &DeploymentPlan, host: &str| {
        let host = plan.hosts.iter().find(|h| h.name == host);
        let is_ours = deployment.platform.places_processes();
        is_ours.then(|| Shell::of(deployment.platform, host))
    };
    machines_by(plan, deployments, shell)
}

/// The same where `shell` says how a host of a deployment is talked to. What is on a host that it does not know is
/// nobody's duty.
pub(crate) fn machines_by<'a>(
    plan: &'a Plan,
    deployments: &[&'a DeploymentPlan],
    shell: impl Fn(&DeploymentPlan, &str) -> Option<Shell>,
) -> Vec<Machine<'a>> {
    let mut machines = vec![Machine::new(HERE, Shell::Here)];
    for deployment in deployments {
        for process in &deployment.processes {
            let host = plan.hosts.iter().find(|h| h.name == process.host);
            let Some(shell) = shell(deployment, &process.host) else { continue };
            let at = match machines.iter().position(|m| m.shell == shell) {
                Some(at) => at,
                None => {
                    machines.push(Machine::new("", shell));
                    machines.len() - 1
                }
            };
            if let Some(machine) = machines.get_mut(at) {
                machine.add_host(host);
                machine.duties.push(Duty { deployment, process });
            }
        }
    }
    machines
}

impl<'a> Machine<'a> {
    fn new(label: &str, shell: Shell) -> Self {
        Self { label: label.to_owned(), shell, hosts: Vec::new(), duties: Vec::new() }
    }

    fn add_host(&mut self, host: Option<&'a HostPlan>) {
        let Some(host) = host.filter(|h| !self.hosts.iter().any(|k| k.name == h.name)) else {
            return;
        };
        self.hosts.push(host);
        if self.shell != Shell::Here {
            let names: Vec<&str> = self.hosts.iter().map(|h| h.name.as_str()).collect();
            self.label = names.join(", ");
        }
    }

    /// Whether a deployment has a process here.
    pub(crate) fn serves(&self, deployment: &DeploymentPlan) -> bool {
        self.duties.iter().any(|d| d.deployment.name == deployment.name)
    }

    /// Whether `ours` says yes to one of its duties.
    pub(crate) fn any(&self, ours: impl Fn(&Duty<'_>) -> bool) -> bool {
        self.duties.iter().any(ours)
    }

    /// Whether what its processes find is in images, which its shell does not see.
    pub(crate) fn is_in_containers(&self) -> bool {
        self.any(|d| d.deployment.image.is_some())
    }

    /// Duties that compute on GPUs, or why there are none.
    pub(crate) fn on_gpus(&self) -> Known<Vec<Duty<'a>>> {
        let computes = |d: &Duty<'_>| loads_weights(d.deployment) && !d.process.gpus.is_empty();
        self.duties_that(computes, "computes on no GPU")
    }

    /// Duties of engines with a Python stack, or why there are none.
    pub(crate) fn heavy(&self) -> Known<Vec<Duty<'a>>> {
        let heavy = |d: &Duty<'_>| appetite(d.deployment.engine) == Appetite::Heavy;
        self.duties_that(heavy, "asks nothing of it")
    }

    /// Duties that load weights, or why there are none.
    pub(crate) fn loading(&self) -> Known<Vec<Duty<'a>>> {
        self.duties_that(|d| loads_weights(d.deployment), "loads no weights")
    }

    fn duties_that(&self, ours: impl Fn(&Duty<'_>) -> bool, why_not: &str) -> Known<Vec<Duty<'a>>> {
        let duties: Vec<Duty<'a>> = self.duties.iter().filter(|d| ours(d)).copied().collect();
        if !duties.is_empty() {
            return Ok(duties);
        }
        let engines: BTreeSet<&str> =
            self.duties.iter().map(|d| d.deployment.engine.name()).collect();
        let engines = engines.into_iter().collect::<Vec<_>>().join(", ");
        Err(Unknown(format!("engine {engines} {why_not}")))
    }

    /// Ids of the GPUs that the plan uses here.
    pub(crate) fn gpu_ids(&self) -> Known<BTreeSet<u32>> {
        Ok(self.on_gpus()?.iter().flat_map(|d| d.process.gpus.iter().copied()).collect())
    }

    /// Groups of GPUs that exchange activations at every layer: of one instance and stage, two and more.
    pub(crate) fn tensor_groups(&self) -> Known<BTreeSet<Vec<u32>>> {
        let mut groups = BTreeSet::new();
        for duty in self.on_gpus()? {
            for instance in &duty.deployment.instances {
                let width = usize::try_from(instance.tp).unwrap_or(usize::MAX).max(1);
                let ours = instance.place.iter().filter(|p| self.has_host(&p.host));
                for group in ours.flat_map(|place| place.ids.chunks(width)) {
                    groups.insert(group.to_vec());
                }
            }
        }
        groups.retain(|g| g.len() > 1);
        if groups.is_empty() {
            return Err(Unknown::because("no instance is cut over GPUs of this host (tp = 1)"));
        }
        Ok(groups)
    }

    fn has_host(&self, name: &str) -> bool {
        self.hosts.iter().any(|h| h.name == name)
    }

    /// Ports of the plan here, each with its address and a process that wants it.
    pub(crate) fn ports(&self) -> BTreeMap<(u16, &'a str), &'a str> {
        let of = |d: &Duty<'a>| {
            d.process.ports.iter().map(|p| ((p.port, p.addr.as_str()), d.process.id.as_str()))
        };
        self.duties.iter().flat_map(of).collect()
    }

    /// A port to dial it at: the lowest of the plan, or that of its ssh.
    pub(crate) fn first_port(&self) -> u16 {
        const SSH: u16 = 22;
        self.ports().keys().next().map_or(SSH, |(port, _)| *port)
    }

    /// Programs of the plan here, each with whether every deployment that wants it is optional.
    pub(crate) fn programs(&self) -> BTreeMap<&'a str, bool> {
        let mut programs = BTreeMap::new();
        for duty in &self.duties {
            let optional = programs.entry(duty.process.program.as_str()).or_insert(true);
            *optional = *optional && duty.deployment.optional;
        }
        programs
    }
}

/// Machines that processes of this one talk to, as the probe dials them: label, address, port.
pub(crate) fn peers<'a>(machines: &[Machine<'a>], of: &Machine<'a>) -> Vec<(String, &'a str, u16)> {
    let is_peer = |m: &&Machine<'a>| m.shell != of.shell && m.any(|d| of.any(|o| talk(d, o)));
    let dial = |m: &Machine<'a>| {
        let host = m.hosts.first()?;
        // Nobody listens there yet; a refusal says as much. The port is the plan's, where it has one.
        let port = m.first_port();
        Some((m.label.clone(), host.addr.as_str(), port))
    };
    machines.iter().filter(is_peer).filter_map(dial).collect()
}

/// Whether two processes talk to each other: ranks of one instance, pools that hand over KV blocks, or
/// anybody and the infrastructure of the deployment. Whole copies on hosts of their own do not.
fn talk(a: &Duty<'_>, b: &Duty<'_>) -> bool {
    let has_pools = || a.deployment.instances.iter().any(|i| i.role != Role::Aggregated);
    let is_infrastructure = a.process.instance.is_none() || b.process.instance.is_none();
    a.deployment.name == b.deployment.name
        && (a.process.instance == b.process.instance || is_infrastructure || has_pools())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{emulated, two_nodes};

    #[test]
    fn hosts_of_a_local_deployment_are_this_machine() {
        let plan = emulated();
        let deployments: Vec<_> = plan.deployments.iter().collect();
        let machines = machines(&plan, &deployments);
        assert_eq!(machines.len(), 1);
        assert_eq!(machines[0].label, HERE);
        let why = machines[0].on_gpus().unwrap_err().to_string();
        assert_eq!(why, "engine emulated computes on no GPU");
    }

    #[test]
    fn a_deployment_over_two_nodes_has_two_machines_that_are_peers() {
        let plan = two_nodes();
        let deployments: Vec<_> = plan.deployments.iter().collect();
        let machines = machines(&plan, &deployments);
        let labels: Vec<&str> = machines.iter().map(|m| m.label.as_str()).collect();
        assert_eq!(labels, [HERE, "head", "worker"]);
        assert_eq!(machines[1].gpu_ids(), Ok(BTreeSet::from([0, 1, 2, 3])));
        assert_eq!(machines[1].tensor_groups(), Ok(BTreeSet::from([vec![0, 1, 2, 3]])));
        assert_eq!(peers(&machines, &machines[2]), [("head".to_owned(), "10.0.0.1", 6379)]);
        assert_eq!(peers(&machines, &machines[0]), []);
    }

    #[test]
    fn whole_copies_do_not_talk_to_each_other() {
        let mut plan = two_nodes();
        let worker = |p: &&mut ProcessPlan| p.host == "worker";
        let processes = &mut plan.deployments[0].processes;
        processes.iter_mut().filter(worker).for_each(|p| p.instance = Some(1));
        let deployments: Vec<_> = plan.deployments.iter().collect();
        let machines = machines(&plan, &deployments);
        assert_eq!(peers(&machines, &machines[2]), []);
    }
}
