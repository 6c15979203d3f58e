//! Removing what platforms were given that start processes themselves.
//!
//! **Invariants.** Works from the claim alone, also where the id was never recorded. A platform that cannot
//! be asked is a problem that names it, and keeps nothing else from being removed. That nothing is left is
//! written down only once the platform has said so.

use super::{Ended, Leftover, ProcessEnd, TeardownReport};
use crate::error::FleetError;
use crate::journal::{Claim, Contents, Event, Journal};
use crate::launch::{Manager, Removal, ToolError};
use std::collections::BTreeSet;

/// What a platform was given, by the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) claim: Claim,
    /// What the platform calls it; absent where scalebeam was killed before it could record it.
    pub(crate) id: Option<String>,
    /// The journal says that nothing of it is left.
    pub(crate) is_gone: bool,
}

/// Every claim that the journal tells of, in order.
pub(super) fn of(contents: &Contents) -> Vec<Claimed> {
    let mut all: Vec<Claimed> = Vec::new();
    // The latest claim of a deployment is the one that later lines speak of.
    fn latest<'a>(all: &'a mut [Claimed], deployment: &str) -> Option<&'a mut Claimed> {
        all.iter_mut().rfind(|c| c.claim.deployment == deployment)
    }
    for entry in &contents.entries {
        match &entry.event {
            Event::PlatformIntent(claim) => {
                all.push(Claimed { claim: (**claim).clone(), id: None, is_gone: false });
            }
            Event::PlatformAccepted { deployment, id } => {
                if let Some(claimed) = latest(&mut all, deployment) {
                    claimed.id = Some(id.clone());
                }
            }
            Event::PlatformGone { deployment } => {
                // A life before this one claimed the same name there, if it did not come to its end.
                let last = latest(&mut all, deployment).map(|c| c.claim.clone());
                let is_last = |c: &Claim| {
                    last.as_ref().is_some_and(|l| (&l.name, &l.scope) == (&c.name, &c.scope))
                };
                all.iter_mut().filter(|c| is_last(&c.claim)).for_each(|c| c.is_gone = true);
            }
            _ => {}
        }
    }
    all
}

/// Removes whatever there is of `claims`, one after the other; the deployments of which nothing is left.
pub(crate) async fn remove(
    claims: &[Claimed],
    journal: Option<&Journal>,
    report: &mut TeardownReport,
) -> BTreeSet<String> {
    let mut gone = BTreeSet::new();
    for Claimed { claim, id, .. } in claims {
        match removed(claim, id.as_deref()).await {
            Ok(removals) => {
                if conclude(claim, removals, journal, report) {
                    gone.insert(claim.deployment.clone());
                }
            }
            Err(why) => report.problems.push(format!(
                "platform {} could not be asked to end deployment '{}' ({}): {why}",
                claim.platform.name(),
                claim.deployment,
                id.as_deref().unwrap_or(&claim.name),
            )),
        }
    }
    gone
}

async fn removed(claim: &Claim, id: Option<&str>) -> Result<Vec<Removal>, String> {
    let manager = Manager::of_claim(claim).map_err(|e| e.to_string())?;
    let removed = manager.remove(claim, id).await;
    removed.map_err(|e| format!("{e}; {}", manager.hint(&e)))
}

/// Whether nothing of `claim` is left.
fn conclude(
    claim: &Claim,
    removals: Vec<Removal>,
    journal: Option<&Journal>,
    report: &mut TeardownReport,
) -> bool {
    let (deployment, platform) = (&claim.deployment, claim.platform.name());
    let is_left = removals.iter().any(|r| r.ended == Ended::Alive);
    for Removal { what, ended, left } in removals {
        let left = left.map(|left| format!("deployment '{deployment}' on {platform}: {left}"));
        report.problems.extend(left);
        if ended == Ended::Alive {
            report.problems.push(format!(
                "{what} of deployment '{deployment}' on {platform} could not be ended: it is still there"
            ));
        }
        let (process, host) = (format!("{what} of {deployment}"), platform.to_owned());
        report.ends.push(ProcessEnd { process, host, ended, strays: 0 });
    }
    if is_left {
        return false;
    }
    let gone = Event::PlatformGone { deployment: deployment.clone() };
    if let Some(Err(error)) = journal.map(|journal| journal.write(gone)) {
        report.problems.push(error.to_string());
    }
    true
}

/// What there is of `claims`, except of those of which the journal says that nothing is left.
///
/// # Errors
/// A platform that cannot be asked: nobody knows then.
pub(super) async fn left(claims: &[Claimed]) -> Result<Vec<Leftover>, FleetError> {
    let mut left = Vec::new();
    for Claimed { claim, .. } in claims.iter().filter(|c| !c.is_gone) {
        let cannot = |error: &ToolError, advice: String| FleetError::Platform {
            deployment: claim.deployment.clone(),
            platform: claim.platform,
            what: format!("what an earlier run has left cannot be asked for: {error}"),
            tail: Vec::new(),
            advice,
        };
        let manager = Manager::of_claim(claim).map_err(|e| cannot(&e, String::new()))?;
        let found = manager.find(claim).await;
        let found = found.map_err(|e| cannot(&e, manager.hint(&e)))?;
        left.extend(found.into_iter().map(|what| Leftover {
            deployment: claim.deployment.clone(),
            process: format!("{what} of {}", claim.deployment),
            host: claim.platform.name().to_owned(),
            command: claim.name.clone(),
            pids: Vec::new(),
        }));
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Entry;
    use scalebeam_model::plan::Platform;
    use scalebeam_model::units::Nanos;
    use std::collections::BTreeMap;

    fn claim(deployment: &str) -> Claim {
        Claim {
            run: "r".into(),
            run_dir: "/d".into(),
            deployment: deployment.into(),
            platform: Platform::External,
            name: format!("{deployment}-1"),
            scope: BTreeMap::new(),
            files: vec![],
            grace: Nanos::ZERO,
            is_client: false,
        }
    }

    fn contents(events: Vec<Event>) -> Contents {
        let entries = events.into_iter().zip(0..);
        let entries = entries.map(|(event, seq)| Entry { at_unix_ns: 0, seq, event }).collect();
        Contents { entries, torn: vec![] }
    }

    #[test]
    fn a_line_speaks_of_the_latest_claim_of_its_deployment() {
        let intent = |d: &str| Event::PlatformIntent(Box::new(claim(d)));
        let accepted =
            |d: &str, id: &str| Event::PlatformAccepted { deployment: d.into(), id: id.into() };
        let claims = of(&contents(vec![
            intent("a"),
            accepted("a", "1"),
            Event::PlatformGone { deployment: "a".into() },
            intent("a"),
            intent("b"),
            accepted("a", "2"),
        ]));
        let seen: Vec<_> = claims
            .iter()
            .map(|c| (c.claim.deployment.as_str(), c.id.as_deref(), c.is_gone))
            .collect();
        assert_eq!(seen, [("a", Some("1"), true), ("a", Some("2"), false), ("b", None, false)]);
    }

    /// A life that was killed leaves its claim open; the next one has the same name, and comes to its end.
    #[test]
    fn what_a_platform_has_nothing_of_any_more_was_claimed_by_every_life() {
        let intent = |scope: &str| {
            let scope = BTreeMap::from([("cluster".to_owned(), scope.to_owned())]);
            Event::PlatformIntent(Box::new(Claim { scope, ..claim("a") }))
        };
        let gone = Event::PlatformGone { deployment: "a".into() };
        let claims = of(&contents(vec![intent("x"), intent("y"), intent("x"), gone]));
        assert_eq!(claims.iter().map(|c| c.is_gone).collect::<Vec<_>>(), [true, false, true]);
    }

    #[tokio::test]
    async fn a_platform_of_another_version_is_a_problem_that_names_it() {
        let mut report = TeardownReport::default();
        let claims = [Claimed { claim: claim("a"), id: None, is_gone: false }];
        remove(&claims, None, &mut report).await;
        assert!(report.problems[0].contains("platform external"), "{report:?}");
        assert!(left(&claims).await.is_err());
        let gone = [Claimed { is_gone: true, ..claims[0].clone() }];
        assert_eq!(left(&gone).await.unwrap(), []);
    }
}
