//! What really ran: the content of `fingerprint.json`.
//!
//! **Invariants.** A fact that could not be had is absent with its reason, never an empty text or a zero.
//! Of environments there are names only.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the form of `fingerprint.json`.
pub const FINGERPRINT_FORMAT: u32 = 1;

/// A fact, or why it is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Fact<T> {
    /// Not known.
    Absent {
        /// Why.
        absent: String,
    },
    /// Known.
    Known(T),
}

impl<T> Fact<T> {
    /// Not known, for this reason.
    pub fn absent(why: impl Into<String>) -> Self {
        Self::Absent { absent: why.into() }
    }

    /// What is known.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Absent { .. } => None,
        }
    }
}

/// A value that an engine's log tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum LogValue {
    /// A number; its unit is the end of the fact's name.
    Number(f64),
    /// A word or a list of them.
    Text(String),
}

/// A GPU; what its driver does not tell is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct GpuPrint {
    /// As `nvidia-smi` counts.
    pub index: u32,
    /// Kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its own name, whatever its index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Version of the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_total_mib: Option<f64>,
    /// Power cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_limit_w: Option<f64>,
}

/// A network interface; what the kernel does not tell is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LinkPrint {
    /// Kernel module that drives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// `up`, `down`, `unknown`.
    pub state: String,
    /// Largest packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu_bytes: Option<u32>,
    /// Speed of the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_mbps: Option<u32>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HostPrint {
    /// Its names in the file, or `this machine`.
    pub host: String,
    /// Kernel and its release.
    pub kernel: Fact<String>,
    /// Distribution.
    pub system: Fact<String>,
    /// Kind of CPU.
    pub cpu: Fact<String>,
    /// CPUs that are online.
    pub cpus: Fact<u32>,
    /// Main memory.
    pub memory_bytes: Fact<u64>,
    /// Highest CUDA version that the driver knows.
    pub cuda: Fact<String>,
    /// GPUs.
    pub gpus: Fact<Vec<GpuPrint>>,
    /// Interfaces with hardware behind them, and that of the data plane.
    pub links: Fact<BTreeMap<String, LinkPrint>>,
    /// Ports of InfiniBand and RoCE cards: state and rate by name.
    pub infiniband: Fact<BTreeMap<String, String>>,
    /// Versions of Python and packages, by the program of the plan that runs in them.
    pub packages: BTreeMap<String, Fact<BTreeMap<String, String>>>,
    /// SHA-256 of the model's small files.
    pub model_hashes: Fact<BTreeMap<String, String>>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ProcessPrint {
    /// Its id in the plan.
    pub process: String,
    /// Its host in the file.
    pub host: String,
    /// Program and arguments as the kernel has them; values of flags that may be secrets are `***`.
    pub command: Fact<Vec<String>>,
    /// Names of the variables in its environment.
    pub env_names: Fact<Vec<String>>,
    /// What its log tells, by names whose end is the unit.
    pub log: BTreeMap<String, Fact<LogValue>>,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EntryPrint {
    /// Base URL.
    pub url: String,
    /// Version of the engine, by its own word.
    pub version: Fact<String>,
}

/// A deployment, as it was brought up once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeploymentPrint {
    /// Its name.
    pub deployment: String,
    /// Session of the run that brought it up, from 0.
    pub session: u32,
    /// Machines of its processes.
    pub hosts: Vec<HostPrint>,
    /// Its processes, in start order.
    pub processes: Vec<ProcessPrint>,
    /// Where requests go.
    pub entries: Vec<EntryPrint>,
}

/// Everything that was brought up in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Fingerprint {
    /// [`FINGERPRINT_FORMAT`].
    pub format: u32,
    /// In the order in which they came up. A deployment is here once for each time that it was brought up: again where
    /// a run went on, or went round over its deployments.
    pub deployments: Vec<DeploymentPrint>,
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self { format: FINGERPRINT_FORMAT, deployments: Vec::new() }
    }
}

impl Fingerprint {
    /// The JSON schema of the form.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// How often `deployment` was brought up.
    pub fn bring_ups(&self, deployment: &str) -> u32 {
        let own = self.deployments.iter().filter(|print| print.deployment == deployment);
        u32::try_from(own.count()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_a_value_or_a_reason() {
        let known: Fact<u64> = serde_json::from_str("7").unwrap();
        assert_eq!(known.known(), Some(&7));
        let absent = Fact::<u64>::absent("nobody looked");
        let text = serde_json::to_string(&absent).unwrap();
        assert_eq!(text, r#"{"absent":"nobody looked"}"#);
        assert_eq!(serde_json::from_str::<Fact<u64>>(&text).unwrap(), absent);
        let map: Fact<BTreeMap<String, String>> =
            serde_json::from_str(r#"{"python":"3.12"}"#).unwrap();
        assert_eq!(map.known().unwrap()["python"], "3.12");
    }
}
