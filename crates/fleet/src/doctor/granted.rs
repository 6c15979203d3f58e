//! A deployment on the machines that a platform gave it, as if its file had named them.
//!
//! **Invariant:** pure. What the file says of a host stays; what it leaves to the platform is filled in.

use crate::host::Shell;
use scalebeam_model::plan::{DeploymentPlan, EnvValue, HostGpus, HostPlan, Plan};
use std::collections::BTreeMap;

/// A machine that was given, and how it is talked to.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The platform's name of it, which hosts of the file have too.
    pub(crate) name: String,
    /// The platform's address of it.
    pub(crate) addr: String,
    pub(crate) shell: Shell,
}

/// `plan` with the hosts of `places`, in their order. An address of the file is that of its data plane.
pub(super) fn plan_on(plan: &Plan, places: &[Place]) -> Plan {
    let host = |place: &Place| {
        let named = plan.hosts.iter().find(|host| host.name == place.name);
        let mut host = named.cloned().unwrap_or_else(|| HostPlan::unknown(&place.name));
        if !host.has_address() {
            host.addr.clone_from(&place.addr);
        }
        host
    };
    Plan { hosts: places.iter().map(host).collect(), ..plan.clone() }
}

/// `deployment` with its processes on `places`: those that it names, else one an instance in their order. Variables
/// of `env` count where the plan gives none.
pub(super) fn deployment_on(
    deployment: &DeploymentPlan,
    places: &[Place],
    env: &BTreeMap<String, String>,
) -> DeploymentPlan {
    let mut out = deployment.clone();
    for instance in out.instances.iter_mut().filter(|i| i.place.is_empty()) {
        let chosen = places.get(usize::try_from(instance.index).unwrap_or(usize::MAX));
        // Where the platform gives GPUs, the first of a process is 0.
        let gpus = if deployment.gpus == 0 { 0 } else { instance.gpus() };
        let place = |p: &Place| HostGpus { host: p.name.clone(), ids: (0..gpus).collect() };
        instance.place.extend(chosen.map(place));
    }
    for process in &mut out.processes {
        let is_named = places.iter().any(|place| place.name == process.host);
        let instance = out.instances.iter().find(|i| Some(i.index) == process.instance);
        if let Some(place) = instance.and_then(|i| i.place.first()).filter(|_| !is_named) {
            process.host.clone_from(&place.host);
            process.gpus.clone_from(&place.ids);
        }
        for (name, value) in env {
            if process.env.get(name).and_then(EnvValue::given).is_none() {
                process.env.insert(name.clone(), EnvValue::Set(value.clone()));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::planned_on_slurm;
    use crate::host::Step;

    fn places() -> [Place; 2] {
        [("n1", "10.0.0.1"), ("n7", "10.0.0.7")].map(|(name, addr)| Place {
            name: name.to_owned(),
            addr: addr.to_owned(),
            shell: Shell::Step(Step { job: "17".into(), node: name.into(), conf: None }),
        })
    }

    #[test]
    fn instances_that_slurm_places_are_on_nodes_in_their_order() {
        let plan = planned_on_slurm("tp = 2\nreplicas = 2");
        let on = deployment_on(&plan.deployments[0], &places(), &BTreeMap::new());
        let of = |p: &scalebeam_model::plan::ProcessPlan| (p.host.clone(), p.gpus.clone());
        let found: Vec<_> = on.processes.iter().map(of).collect();
        assert_eq!(found, [("n1".to_owned(), vec![0, 1]), ("n7".to_owned(), vec![0, 1])]);
        let hosts = plan_on(&plan, &places()).hosts;
        let found: Vec<_> = hosts.iter().map(|h| (h.name.as_str(), h.addr.as_str())).collect();
        assert_eq!(found, [("n1", "10.0.0.1"), ("n7", "10.0.0.7")]);
    }

    #[test]
    fn what_the_file_says_of_a_host_and_of_a_variable_stays() {
        let text = "place = [\"n1:3\"]\nenv = { HF_HOME = \"/file\" }";
        let plan = planned_on_slurm(text);
        let env = [("HF_HOME", "/script"), ("PATH", "/v/bin")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let on = deployment_on(&plan.deployments[0], &places()[..1], &env);
        let process = &on.processes[0];
        assert_eq!((process.host.as_str(), process.gpus.as_slice()), ("n1", &[3][..]));
        let given = |name: &str| process.env.get(name).and_then(EnvValue::given);
        assert_eq!((given("HF_HOME"), given("PATH")), (Some("/file"), Some("/v/bin")));
        assert_eq!(plan_on(&plan, &places()[..1]).hosts[0].gpus, 8);
        let addressed = planned_on_slurm("place = [\"n2:0\"]");
        let place = Place { name: "n2".into(), ..places()[0].clone() };
        assert_eq!(plan_on(&addressed, &[place]).hosts[0].addr, "10.1.0.2");
    }
}
