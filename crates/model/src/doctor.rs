//! What a preflight found: the content of `doctor.json` and of `doctor --json`.
//!
//! **Invariant:** a check that could not look is [`Outcome::Skipped`] with the reason, never a pass.

use serde::{Deserialize, Serialize};

/// Version of the form of `doctor.json`.
pub const DOCTOR_FORMAT: u32 = 1;

/// What a check that fails means.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
pub enum Severity {
    /// The deployment could not work: nothing is started.
    #[serde(rename = "E")]
    Stops,
    /// It works, and its numbers may suffer.
    #[serde(rename = "W")]
    Warns,
    /// Kept for whoever reads the numbers later; it has no wrong answer.
    #[serde(rename = "I")]
    Records,
}

impl Severity {
    /// The letter in tables.
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Stops => "E",
            Self::Warns => "W",
            Self::Records => "I",
        }
    }
}

/// How a check came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase", tag = "status")]
pub enum Outcome {
    /// It looked, and all is well.
    Pass {
        /// What it saw.
        seen: String,
    },
    /// It looked, and it is not.
    Fail {
        /// What it saw.
        seen: String,
        /// What to do about it.
        hint: String,
    },
    /// It could not look, or there is nothing to look at.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// One check at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Finding {
    /// Its id, as `D12`. Checks that ask one thing in several ways share one.
    pub id: String,
    /// What it asks, in a few words.
    pub check: String,
    /// What a failure means.
    pub severity: Severity,
    /// The host it is about, as the file names it, or `this machine`; absent where it is about the plan
    /// or about hosts together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The deployment it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// How it came out.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Finding {
    /// Whether it failed with that severity.
    pub fn fails(&self, severity: Severity) -> bool {
        self.severity == severity && matches!(self.outcome, Outcome::Fail { .. })
    }
}

/// Everything that a preflight found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DoctorReport {
    /// [`DOCTOR_FORMAT`].
    pub format: u32,
    /// Experiment name.
    pub experiment: String,
    /// The deployments that were looked at.
    pub deployments: Vec<String>,
    /// Why nothing was looked at, where the user said not to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_run: Option<String>,
    /// In the order of the checks, and of the hosts in the file.
    pub findings: Vec<Finding>,
    /// What paths between hosts carried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<MeasuredPath>,
}

/// A path from a host to one that it talks to, as one socket found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MeasuredPath {
    /// Host in the file.
    pub from: String,
    /// Host in the file.
    pub to: String,
    /// Bytes per second over the data-plane addresses.
    pub bytes_per_s: u64,
}

impl DoctorReport {
    /// The JSON schema of a report.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// The report of a preflight that did not take place.
    pub fn not_run(experiment: &str, why: &str) -> Self {
        Self {
            format: DOCTOR_FORMAT,
            experiment: experiment.to_owned(),
            deployments: Vec::new(),
            not_run: Some(why.to_owned()),
            findings: Vec::new(),
            paths: Vec::new(),
        }
    }

    /// What failed with that severity.
    pub fn failed(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |f| f.fails(severity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_flat_in_json() {
        let finding = Finding {
            id: "D12".into(),
            check: "ports are free".into(),
            severity: Severity::Stops,
            host: Some("a".into()),
            deployment: None,
            outcome: Outcome::Skipped { reason: "no answer".into() },
        };
        let json = serde_json::to_value(&finding).unwrap();
        let expected = serde_json::json!({
            "id": "D12", "check": "ports are free", "severity": "E", "host": "a",
            "status": "skipped", "reason": "no answer",
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Finding>(json).unwrap(), finding);
        assert!(!finding.fails(Severity::Stops));
    }
}
