//! The nodes that a job was given, and what its script says while it holds its processes back.

use super::job::{self, Job};
use super::logs::{folder, script_log};
use super::{ASK_LIMIT, CONF, call};
use crate::agent::FarHost;
use crate::host::{Shell, Step, quote};
use crate::journal::Claim;
use crate::launch::managed::tool::ToolError;
use crate::launch::managed::{Granted, Node};
use scalebeam_model::plan::{DeploymentPlan, HostPlan};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// For the variables of the script: lines of `setup` come before, and load modules or make an environment.
const SETUP_LIMIT: Duration = Duration::from_secs(120);
/// The same, for the step that waits for them.
const STEP_LIMIT: Duration = Duration::from_secs(150);
/// The word in the comment of a job whose processes may be started.
const GO: &str = "go";

/// Where steps beside those of job `id` run on `node`.
pub(in super::super) fn step(claim: &Claim, id: &str, node: &str) -> Step {
    let conf = claim.scope.get(CONF).cloned();
    Step { job: id.to_owned(), node: node.to_owned(), conf }
}

/// Nodes of `plan`, by steps beside those of job `id`. Where Slurm chooses them, the plan has no name for them. A router
/// may have a node of its own, where the file names it.
pub(in super::super) fn hosts(
    claim: &Claim,
    (plan, named): (&DeploymentPlan, &[HostPlan]),
    id: &str,
) -> Vec<FarHost> {
    let placed = plan.instances.iter().flat_map(|i| &i.place).map(|p| p.host.as_str());
    let started = plan.processes.iter().map(|p| p.host.as_str());
    let started = started.filter(|host| named.iter().any(|h| h.name == *host));
    let nodes: BTreeSet<&str> = placed.chain(started).collect();
    let shell = |node: &str| Shell::Step(step(claim, id, node));
    let host = |node: &str| FarHost { name: node.to_owned(), shell: shell(node), pod: None };
    nodes.into_iter().map(host).collect()
}

/// The nodes of job `id`, and the variables of its script, which holds its processes back.
///
/// # Errors
/// When the controller cannot be asked, or the job does not run any more.
pub(in super::super) async fn granted(claim: &Claim, id: &str) -> Result<Granted, ToolError> {
    let job = super::job(claim, id).await?.ok_or_else(|| ToolError::Unfit {
        said: format!("job {id} is not known any more"),
        hint: "see `sacct` for how it ended".to_owned(),
    })?;
    let nodes = of(claim, &job).await?;
    let env = variables(claim, id, &job).await;
    Ok(Granted { nodes, env })
}

/// Has the script of job `id` start its processes.
///
/// # Errors
/// When the controller refuses, or cannot be asked.
pub(in super::super) async fn release(claim: &Claim, id: &str) -> Result<(), ToolError> {
    super::tell(claim, id, GO, ASK_LIMIT).await
}

/// The nodes of `job`, in the order in which its script counts them.
pub(super) async fn of(claim: &Claim, job: &Job) -> Result<Vec<Node>, ToolError> {
    let ask = |words: &[&str]| call("scontrol", &claim.scope).args(words).ask(ASK_LIMIT);
    let names = ask(&["show", "hostnames", &job.nodes]).await?;
    let told = ask(&["--oneliner", "show", "node", &job.nodes]).await?;
    let addresses = job::addresses(&told);
    let names = names.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(names.map(|name| node(name, &addresses)).collect())
}

/// A node without an address is reached by its name.
pub(super) fn node(name: &str, addresses: &BTreeMap<String, String>) -> Node {
    let addr = addresses.get(name).map_or(name, String::as_str);
    Node { name: name.to_owned(), addr: addr.to_owned() }
}

/// The variables that decide what the processes of a job find, as its script has them.
async fn variables(claim: &Claim, id: &str, job: &Job) -> Result<BTreeMap<String, String>, String> {
    let shell = Shell::Step(step(claim, id, &job.batch_host));
    let said = shell.run(&question(claim, id), STEP_LIMIT).await;
    let ran = said.map_err(|e| format!("{}: {}", crate::error::in_words(&e), e.hint()))?;
    match ran.status {
        Some(0) => Ok(held(&ran.stdout)),
        _ => Err(format!("its job script did not come so far within {} s", SETUP_LIMIT.as_secs())),
    }
}

/// A script for the node of the job's script that waits for the last line of what is held, and prints all of it.
fn question(claim: &Claim, id: &str) -> String {
    let log = script_log(id);
    let here = quote(&format!("{}/{log}", claim.logs().display()));
    let there = quote(&format!("{}/{log}", folder(&claim.name, id)));
    format!(
        "n=0\nuntil cat {here} {there} 2>/dev/null | grep -q '^held: all$'; do\n\
         n=$((n+1))\n[ $n -lt {} ] || exit 1\nsleep 1\ndone\n\
         cat {here} {there} 2>/dev/null | grep '^held: '\n",
        SETUP_LIMIT.as_secs()
    )
}

/// Variables in lines `held: NAME=VALUE`.
fn held(said: &str) -> BTreeMap<String, String> {
    let lines = said.lines().filter_map(|line| line.strip_prefix("held: "));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_holds_is_read_and_other_lines_are_not() {
        let said =
            "held: PATH=/opt/x/bin:/usr/bin\nheld: HF_HOME=/big disk=1\nheld: all\nPATH=/no\n";
        let held = held(said);
        assert_eq!(held["PATH"], "/opt/x/bin:/usr/bin");
        assert_eq!(held["HF_HOME"], "/big disk=1");
        assert_eq!(held.len(), 2);
    }
}
