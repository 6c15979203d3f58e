//! What a preflight found: the content of `doctor.json` and of `doctor --json`.
//!
//! **Invariant:** a check that could not look is [`Outcome::Skipped`] with the reason, never a pass.

use crate::distinct::distinct;
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

    /// What it is about, in words.
    pub fn place(&self) -> String {
        match (&self.host, &self.deployment) {
            (Some(host), _) if host == "this machine" => host.clone(),
            (Some(host), _) => format!("host {host}"),
            (None, Some(deployment)) => format!("deployment {deployment}"),
            (None, None) => "the plan".to_owned(),
        }
    }

    /// One that failed, on one line, with the next step on another; empty for others.
    pub fn line(&self) -> String {
        let Outcome::Fail { seen, hint } = &self.outcome else { return String::new() };
        let Self { id, check, .. } = self;
        format!("  {id} {}: {check}: {seen}\n      hint: {hint}", self.place())
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

    /// The report of the nodes that `deployment` was given: all that is found is about it.
    #[must_use]
    pub fn of_nodes(mut self, deployment: &str) -> Self {
        for finding in &mut self.findings {
            finding.deployment = Some(deployment.to_owned());
        }
        self
    }

    /// Takes in `later`, of deployments whose machines were not known before: what it says of them counts.
    pub fn take_in(&mut self, later: Self) {
        let is_told = |name: &Option<String>| {
            name.as_ref().is_some_and(|name| later.deployments.contains(name))
        };
        self.findings.retain(|finding| !is_told(&finding.deployment));
        self.findings.extend(later.findings);
        for path in later.paths {
            self.paths.retain(|known| (&known.from, &known.to) != (&path.from, &path.to));
            self.paths.push(path);
        }
        let known = std::mem::take(&mut self.deployments);
        self.deployments = distinct(known.into_iter().chain(later.deployments));
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

    fn report(deployments: &[&str], seen: &str) -> DoctorReport {
        let finding = |name: &&str| Finding {
            id: "D31".into(),
            check: "programs are installed".into(),
            severity: Severity::Stops,
            host: Some("n1".into()),
            deployment: Some((*name).to_owned()),
            outcome: Outcome::Fail { seen: seen.into(), hint: "install them".into() },
        };
        let path = MeasuredPath { from: "n1".into(), to: "n2".into(), bytes_per_s: 7 };
        DoctorReport {
            deployments: deployments.iter().map(|name| (*name).to_owned()).collect(),
            not_run: None,
            findings: deployments.iter().map(finding).collect(),
            paths: vec![path],
            ..DoctorReport::not_run("e", "")
        }
    }

    #[test]
    fn what_is_found_later_of_a_deployment_counts() {
        let mut all = report(&["one", "two"], "not looked at");
        all.take_in(report(&["two"], "not found: vllm"));
        all.take_in(report(&["three"], "not found: ray"));
        assert_eq!(all.deployments, ["one", "two", "three"]);
        let lines: Vec<String> = all.findings.iter().map(Finding::line).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("not looked at"), "{lines:?}");
        assert_eq!(
            lines[1],
            "  D31 host n1: programs are installed: not found: vllm\n      hint: install them"
        );
        assert_eq!(all.paths.len(), 1, "a path is there once");
    }

    #[test]
    fn what_is_found_on_nodes_is_about_their_deployment() {
        let mut found = report(&["one"], "x");
        found.findings[0].deployment = None;
        assert_eq!(found.of_nodes("one").findings[0].deployment.as_deref(), Some("one"));
    }
}
