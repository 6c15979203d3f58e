//! What really ran, as a reader of results needs it: made of a run's fingerprint. Pure.
//!
//! **Invariant:** what the fingerprint does not have stays absent with its reason; the plan is never taken for it.

use crate::fingerprint::{DeploymentPrint, Fact, Fingerprint, GpuPrint, HostPrint};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A machine that a deployment ran on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RanHost {
    /// Its names in the file, or `this machine`.
    pub host: String,
    /// Kernel and its release.
    pub kernel: Fact<String>,
    /// GPUs that it has, counted by kind: `4 x NVIDIA H100 80GB HBM3`.
    pub gpus: Fact<String>,
    /// Version of their driver; several where they differ.
    pub gpu_driver: Fact<String>,
    /// Highest CUDA version that the driver knows.
    pub cuda: Fact<String>,
    /// Versions of Python and packages, by the program of the plan that runs in them.
    pub packages: BTreeMap<String, Fact<BTreeMap<String, String>>>,
}

/// A process of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RanProcess {
    /// Its id in the plan.
    pub process: String,
    /// Its host in the file.
    pub host: String,
    /// Program and flags as the kernel had them; values that may be secrets are `***`.
    pub command: Fact<Vec<String>>,
}

/// What a deployment really was while it was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Ran {
    /// Deployment name.
    pub deployment: String,
    /// Sessions of the run in which it was so, from 0. A run that went on with something else has several of these.
    pub sessions: Vec<u32>,
    /// Which of its bring-ups were so, from 1.
    #[serde(default)]
    pub bring_ups: Vec<u32>,
    /// Version of the engine by the word of its entries; several where these differ.
    pub engine: Fact<String>,
    /// Its machines.
    pub hosts: Vec<RanHost>,
    /// Its processes, in start order.
    pub processes: Vec<RanProcess>,
}

/// What ran by `print`: in the order in which deployments came up first, each once for all bring-ups at which it was
/// the same.
pub fn ran(print: &Fingerprint) -> Vec<Ran> {
    let mut all: Vec<Ran> = Vec::new();
    let mut bring_ups: BTreeMap<&str, u32> = BTreeMap::new();
    for print in &print.deployments {
        let bring_up = bring_ups.entry(&print.deployment).or_default();
        *bring_up += 1;
        let one = one(print, *bring_up);
        let is_same = |known: &&mut Ran| {
            let (sessions, bring_ups) = (one.sessions.clone(), one.bring_ups.clone());
            Ran { sessions, bring_ups, ..(**known).clone() } == one
        };
        match all.iter_mut().find(is_same) {
            Some(known) => {
                known.sessions.extend(one.sessions);
                known.sessions.dedup();
                known.bring_ups.extend(one.bring_ups);
            }
            None => all.push(one),
        }
    }
    let names: Vec<String> = all.iter().map(|ran| ran.deployment.clone()).collect();
    all.sort_by_key(|ran| names.iter().position(|name| *name == ran.deployment));
    all
}

fn one(print: &DeploymentPrint, bring_up: u32) -> Ran {
    let process = |p: &crate::fingerprint::ProcessPrint| RanProcess {
        process: p.process.clone(),
        host: p.host.clone(),
        command: p.command.clone(),
    };
    Ran {
        deployment: print.deployment.clone(),
        sessions: vec![print.session],
        bring_ups: vec![bring_up],
        engine: engine(print),
        hosts: print.hosts.iter().map(host).collect(),
        processes: print.processes.iter().map(process).collect(),
    }
}

fn engine(print: &DeploymentPrint) -> Fact<String> {
    let told = print.entries.iter().filter_map(|entry| entry.version.known().map(String::as_str));
    let versions: BTreeSet<&str> = told.collect();
    if versions.is_empty() {
        let why = print.entries.iter().find_map(|entry| reason(&entry.version));
        return Fact::absent(why.unwrap_or("it has no entry"));
    }
    Fact::Known(versions.into_iter().collect::<Vec<_>>().join(", "))
}

fn host(print: &HostPrint) -> RanHost {
    RanHost {
        host: print.host.clone(),
        kernel: print.kernel.clone(),
        gpus: of_gpus(&print.gpus, kinds),
        gpu_driver: of_gpus(&print.gpus, drivers),
        cuda: print.cuda.clone(),
        packages: print.packages.clone(),
    }
}

fn of_gpus(
    gpus: &Fact<Vec<GpuPrint>>,
    told: impl Fn(&[GpuPrint]) -> Option<String>,
) -> Fact<String> {
    match gpus {
        Fact::Absent { absent } => Fact::absent(absent),
        Fact::Known(gpus) => {
            told(gpus).map_or_else(|| Fact::absent("its driver does not tell"), Fact::Known)
        }
    }
}

/// `4 x NVIDIA H100 80GB HBM3`
fn kinds(gpus: &[GpuPrint]) -> Option<String> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for gpu in gpus {
        *kinds.entry(gpu.name.as_deref().unwrap_or("GPU")).or_default() += 1;
    }
    let words: Vec<String> = kinds.iter().map(|(name, n)| format!("{n} x {name}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn drivers(gpus: &[GpuPrint]) -> Option<String> {
    let drivers: BTreeSet<&str> = gpus.iter().filter_map(|gpu| gpu.driver.as_deref()).collect();
    (!drivers.is_empty()).then(|| drivers.into_iter().collect::<Vec<_>>().join(", "))
}

fn reason<T>(fact: &Fact<T>) -> Option<&str> {
    match fact {
        Fact::Absent { absent } => Some(absent),
        Fact::Known(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::{EntryPrint, ProcessPrint};

    fn gpu(index: u32, driver: &str) -> GpuPrint {
        GpuPrint {
            index,
            name: Some("H100".into()),
            uuid: None,
            driver: Some(driver.into()),
            memory_total_mib: None,
            power_limit_w: None,
        }
    }

    fn print(deployment: &str, session: u32, version: &str) -> DeploymentPrint {
        let absent = || Fact::absent("nobody looked");
        DeploymentPrint {
            deployment: deployment.into(),
            session,
            hosts: vec![HostPrint {
                host: "a".into(),
                kernel: Fact::Known("Linux 6.1".into()),
                system: absent(),
                cpu: absent(),
                cpus: Fact::absent("nobody looked"),
                memory_bytes: Fact::absent("nobody looked"),
                cuda: absent(),
                gpus: Fact::Known(vec![gpu(0, "550.54"), gpu(1, "550.54")]),
                links: Fact::absent("nobody looked"),
                infiniband: Fact::absent("nobody looked"),
                packages: BTreeMap::new(),
                model_hashes: Fact::absent("nobody looked"),
            }],
            processes: vec![ProcessPrint {
                process: format!("{deployment}/0/serve"),
                host: "a".into(),
                command: Fact::Known(vec!["vllm".into(), "serve".into()]),
                env_names: Fact::absent("nobody looked"),
                log: BTreeMap::new(),
            }],
            entries: vec![EntryPrint {
                url: "http://a:1".into(),
                version: Fact::Known(version.into()),
            }],
        }
    }

    #[test]
    fn a_deployment_is_told_once_for_all_bring_ups_at_which_it_was_the_same() {
        let deployments = vec![
            print("one", 0, "0.11"),
            print("two", 0, "0.11"),
            print("one", 0, "0.11"),
            print("one", 1, "0.11"),
            print("one", 2, "0.12"),
        ];
        let print = Fingerprint { deployments, ..Fingerprint::default() };
        assert_eq!((print.bring_ups("one"), print.bring_ups("three")), (4, 0));
        let all = ran(&print);
        let told: Vec<_> = all
            .iter()
            .map(|r| (r.deployment.as_str(), r.sessions.as_slice(), r.bring_ups.as_slice()))
            .collect();
        let want = [("one", &[0, 1][..], &[1, 2, 3][..]), ("one", &[2], &[4]), ("two", &[0], &[1])];
        assert_eq!(told, want);
        assert_eq!(all[1].engine, Fact::Known("0.12".to_owned()));
    }

    #[test]
    fn gpus_are_counted_and_what_is_absent_keeps_its_reason() {
        let mut one = print("one", 0, "0.11");
        one.hosts[0].gpus = Fact::Known(vec![gpu(0, "550.54"), gpu(1, "560.1")]);
        one.entries[0].version = Fact::absent("it has no page with a version");
        let all = ran(&Fingerprint { deployments: vec![one], ..Fingerprint::default() });
        let host = &all[0].hosts[0];
        assert_eq!(host.gpus, Fact::Known("2 x H100".to_owned()));
        assert_eq!(host.gpu_driver, Fact::Known("550.54, 560.1".to_owned()));
        assert_eq!(host.cuda, Fact::absent("nobody looked"));
        assert_eq!(all[0].engine, Fact::absent("it has no page with a version"));
    }
}
