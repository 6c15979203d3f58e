//! What a preflight found, in words.

use scalebeam_model::doctor::{DoctorReport, Finding, Outcome, Severity};
use std::fmt::Write as _;

/// Columns of what a check asks.
const ASKS: usize = 40;

/// Everything, by host and deployment; in each what failed is first, and what was skipped is last.
pub(crate) fn table(report: &DoctorReport) -> String {
    let mut out = format!("{}: {}\n", report.experiment, counted(report));
    for place in places(report) {
        let _ = write!(out, "\n{place}\n");
        let ours: Vec<&Finding> = report.findings.iter().filter(|f| f.place() == place).collect();
        let fails = ours.iter().filter(|f| matches!(f.outcome, Outcome::Fail { .. }));
        let mut fails: Vec<&&Finding> = fails.collect();
        fails.sort_by_key(|f| f.severity);
        fails.iter().for_each(|f| failed(&mut out, f));
        ours.iter().for_each(|f| passed(&mut out, f));
        skipped(&mut out, &ours);
    }
    out
}

/// `2 failed, 1 warning, 30 passed, 12 skipped`.
pub(crate) fn counted(report: &DoctorReport) -> String {
    let stops = report.failed(Severity::Stops).count();
    let warns = report.failed(Severity::Warns).count();
    let passed = report.findings.iter().filter(|f| matches!(f.outcome, Outcome::Pass { .. }));
    let passed = passed.count();
    let skipped = report.findings.len() - stops - warns - passed;
    let s = if warns == 1 { "" } else { "s" };
    format!("{stops} failed, {warns} warning{s}, {passed} passed, {skipped} skipped")
}

/// Places in their first order: deployments as the plan has them, then hosts.
fn places(report: &DoctorReport) -> Vec<String> {
    let mut places: Vec<String> = Vec::new();
    for finding in &report.findings {
        let place = finding.place();
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

fn failed(out: &mut String, finding: &Finding) {
    let Outcome::Fail { seen, hint } = &finding.outcome else { return };
    let word = if finding.severity == Severity::Stops { "FAIL" } else { "warn" };
    row(out, word, finding, seen);
    let _ = writeln!(out, "              hint: {hint}");
}

fn passed(out: &mut String, finding: &Finding) {
    let Outcome::Pass { seen } = &finding.outcome else { return };
    row(out, if finding.severity == Severity::Records { "note" } else { "ok" }, finding, seen);
}

fn row(out: &mut String, word: &str, finding: &Finding, seen: &str) {
    let Finding { id, check, severity, .. } = finding;
    let severity = severity.letter();
    let _ = writeln!(out, "  {word:<4} {severity} {id}  {check:<ASKS$}  {seen}");
}

/// Ids by the reason that they share; an id that came out in several ways says which of them it was.
fn skipped(out: &mut String, findings: &[&Finding]) {
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for finding in findings {
        let Outcome::Skipped { reason } = &finding.outcome else { continue };
        let at = reasons.iter().position(|(known, _)| known == reason);
        let at = at.unwrap_or_else(|| {
            reasons.push((reason, Vec::new()));
            reasons.len() - 1
        });
        let differs = findings.iter().any(|f| f.id == finding.id && f.outcome != finding.outcome);
        let Finding { id, check, .. } = finding;
        let name = if differs { format!("{id} ({check})") } else { id.clone() };
        if let Some((_, ids)) = reasons.get_mut(at)
            && !ids.contains(&name)
        {
            ids.push(name);
        }
    }
    for (reason, ids) in reasons {
        let _ = writeln!(out, "  skip   {}: {reason}", ids.join(", "));
    }
}
