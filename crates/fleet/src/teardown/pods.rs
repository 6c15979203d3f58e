//! What was brought into pods: it goes with them, and is ended where they stay.
//!
//! **Invariant.** A pod is asked only once its deployment was to be removed, and only where the cluster did not say that
//! nothing of that is left: what is not there cannot be asked, and need not be.

use super::{Ended, Target, TeardownReport, clean, end, take_down};
use crate::host::Shell;
use crate::journal::{Event, Journal};
use std::collections::BTreeSet;

/// `targets` in pods, and all others.
pub(crate) fn apart(targets: Vec<Target>) -> (Vec<Target>, Vec<Target>) {
    targets.into_iter().partition(|target| matches!(target.shell, Shell::Pod(_)))
}

/// Ends `targets`, of which those of deployments that are `gone` went with their pods.
pub(crate) async fn end_in_pods(
    targets: Vec<Target>,
    gone: &BTreeSet<String>,
    journal: Option<&Journal>,
    report: &mut TeardownReport,
) {
    let (went, stay): (Vec<_>, Vec<_>) =
        targets.into_iter().partition(|target| gone.contains(&target.deployment));
    for target in went.iter().filter(|target| !target.gone) {
        let event = Event::ProcessGone { process: target.process.clone() };
        if let Some(Err(error)) = journal.map(|journal| journal.write(event)) {
            report.problems.push(error.to_string());
        }
        report.ends.push(end(target, Ended::WasGone, 0));
    }
    if stay.is_empty() {
        return;
    }
    let mut done = take_down(&stay, journal).await;
    clean(&stay, &mut done).await;
    report.ends.extend(done.ends);
    report.problems.extend(done.problems);
}
