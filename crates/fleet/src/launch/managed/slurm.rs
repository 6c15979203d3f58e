//! Slurm: the rendered job script, by the site's `sbatch`, `scontrol`, `squeue`, `sacct` and `scancel`.
//!
//! **Invariants.** A job is ours by its name and user, also where its id is known: ids are given anew when
//! a cluster starts over. No question and no signal goes to another cluster than the one that took the job.
//! That a job has left the queue is Slurm's word that no process of it lives on any of its nodes.

mod end;
mod job;
mod logs;
mod nodes;

use super::tool::{Call, Ran, ToolError};
use super::{Ask, End, Look, Node};
use crate::host::{CONF_VARIABLE, is_foreign};
use crate::journal::Claim;
use crate::process::{DIR_MARKER, RUN_MARKER};
use job::Job;
use scalebeam_model::plan::{DeploymentPlan, EntryPlan};
use scalebeam_model::units::Nanos;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

pub(super) use end::{find, remove};
pub(super) use logs::{last_line, log_tail};
pub(super) use nodes::{granted, hosts, release, step};

/// The variable with the folder of the logs, which the job script reads.
const LOGS: &str = "SCALEBEAM_LOGS";
/// The variable with which the job script holds its processes back.
const HOLD: &str = "SCALEBEAM_HOLD";
/// For one question. Slurm's programs themselves ask a controller that does not answer again and again.
const ASK_LIMIT: Duration = Duration::from_secs(60);
/// For bringing one log from a node.
const LOGS_LIMIT: Duration = Duration::from_secs(20);
/// How long a job may wait for nodes, where the file does not say.
const QUEUE: Nanos = Nanos::from_secs(24 * 60 * 60);

/// Keys of a claim's scope.
const CLUSTER: &str = "cluster";
const CONF: &str = "conf";

/// A call that goes to the cluster of `scope`, or to the one that the shell means.
fn call(program: &'static str, scope: &BTreeMap<String, String>) -> Call {
    let mut call = Call::new(program);
    for (name, _) in std::env::vars_os() {
        if is_foreign(&name.to_string_lossy()) {
            call = call.without_env(&name);
        }
    }
    match scope.get(CONF) {
        Some(conf) => call.env(CONF_VARIABLE, conf),
        None => call,
    }
}

pub(super) async fn scope(_: &DeploymentPlan) -> Result<BTreeMap<String, String>, ToolError> {
    let conf = std::env::var(CONF_VARIABLE).ok();
    let mut scope: BTreeMap<String, String> =
        conf.into_iter().map(|conf| (CONF.to_owned(), conf)).collect();
    scope.insert(CLUSTER.to_owned(), cluster(&scope).await?);
    Ok(scope)
}

async fn cluster(scope: &BTreeMap<String, String>) -> Result<String, ToolError> {
    let said = call("scontrol", scope).args(["show", "config"]).ask(ASK_LIMIT).await?;
    job::setting(&said, "ClusterName").ok_or_else(|| ToolError::Unclear {
        program: "scontrol",
        said: "its configuration has no ClusterName".to_owned(),
    })
}

/// Job ids mean nothing on another cluster, and a name there is somebody else's.
async fn same_cluster(claim: &Claim) -> Result<(), ToolError> {
    let now = cluster(&claim.scope).await?;
    match claim.scope.get(CLUSTER) {
        Some(then) if *then != now => Err(ToolError::Unfit {
            said: format!("the job is on cluster {then}, and Slurm here is cluster {now}"),
            hint: format!("set {CONF_VARIABLE} to the configuration of cluster {then}"),
        }),
        _ => Ok(()),
    }
}

pub(super) fn patience(plan: &DeploymentPlan) -> Nanos {
    plan.span("queue").unwrap_or(QUEUE)
}

/// Submits the job; where it is held back, its script starts nothing before [`release`].
pub(super) async fn submit(claim: &Claim, is_held: bool) -> Result<String, ToolError> {
    let logs = claim.logs();
    std::fs::create_dir_all(&logs)
        .map_err(|source| ToolError::File { path: logs.display().to_string(), source })?;
    let files = claim.files.iter().map(|file| Path::new(&claim.run_dir).join(file));
    let sbatch = call("sbatch", &claim.scope);
    let sbatch = if is_held { sbatch.env(HOLD, "1") } else { sbatch.without_env(HOLD) };
    let said = sbatch
        .env(LOGS, &logs)
        .env(RUN_MARKER, &claim.run)
        .env(DIR_MARKER, &claim.run_dir)
        .args(["--parsable", "--export=ALL", "--output=/dev/null"])
        .args(["--job-name", &claim.name])
        .args(files)
        .ask(ASK_LIMIT)
        .await?;
    job::submitted(&said).ok_or(ToolError::Unclear { program: "sbatch", said })
}

pub(super) async fn look(
    claim: &Claim,
    plan: &DeploymentPlan,
    id: &str,
    ask: Ask,
) -> Result<Look, ToolError> {
    let Some(job) = job(claim, id).await? else { return forgotten(claim, id).await };
    if job.name != claim.name {
        return Ok(Look::Absent);
    }
    if let Some(end) = job.end(id) {
        return Ok(Look::Ended(end));
    }
    match job.is_running() {
        true => up(claim, plan, &job, ask).await,
        false => Ok(Look::Pending(job.waiting())),
    }
}

/// What the controller knows of job `id`; nothing where it has forgotten it, minutes after its end.
async fn job(claim: &Claim, id: &str) -> Result<Option<Job>, ToolError> {
    let ran = call("scontrol", &claim.scope).args(["show", "job", id]).run(ASK_LIMIT).await?;
    if !ran.ok {
        return if is_unknown(&ran) { Ok(None) } else { Err(ran.refusal("scontrol")) };
    }
    let job = Job::read(&ran.stdout);
    job.map(Some).ok_or(ToolError::Unclear { program: "scontrol", said: ran.stdout })
}

fn is_unknown(ran: &Ran) -> bool {
    ran.stderr.contains("Invalid job id") || ran.stdout.contains("Invalid job id")
}

/// The end of a job that only the accounting may still know.
async fn forgotten(claim: &Claim, id: &str) -> Result<Look, ToolError> {
    let said = call("sacct", &claim.scope)
        .args(["--allocations", "--noheader", "--parsable2", "--format=JobName,State,ExitCode"])
        .args(["--jobs", id])
        .ask(ASK_LIMIT)
        .await;
    let known = said.ok().and_then(|said| job::accounted(&said, &claim.name));
    let end = known.and_then(|job| job.end(id)).unwrap_or_else(|| {
        End::new(format!("job {id} left the queue, and Slurm does not say how it ended"))
    });
    Ok(Look::Ended(end))
}

async fn up(claim: &Claim, plan: &DeploymentPlan, job: &Job, ask: Ask) -> Result<Look, ToolError> {
    let entries = match ask {
        Ask::Where => given(claim, plan, job).await?,
        Ask::Runs => Vec::new(),
    };
    Ok(Look::Up { entries, text: format!("running on {}", job.nodes) })
}

/// The entries of `plan` on the nodes that `job` was given.
async fn given(
    claim: &Claim,
    plan: &DeploymentPlan,
    job: &Job,
) -> Result<Vec<EntryPlan>, ToolError> {
    let nodes = nodes::of(claim, job).await?;
    entries(plan, &nodes)
}

/// The entries of `plan` on `nodes`, which the job script counts in this order.
fn entries(plan: &DeploymentPlan, nodes: &[Node]) -> Result<Vec<EntryPlan>, ToolError> {
    let unfit = |said: String| ToolError::Unfit {
        said,
        hint: "see `scontrol show job` of it: it has other nodes than were asked for".to_owned(),
    };
    let of = |entry: &EntryPlan| {
        let index = entry.instance.unwrap_or(0);
        // The plan has the name of a node where one is placed there, and the entry's port.
        let (planned, port) = entry
            .url
            .trim_start_matches("http://")
            .split_once(':')
            .ok_or_else(|| unfit(format!("{} has no port", entry.url)))?;
        let placed = nodes.iter().find(|node| node.name == planned);
        let chosen = || nodes.get(usize::try_from(index).unwrap_or(usize::MAX));
        let node = placed.or_else(chosen);
        let node = node.ok_or_else(|| unfit(format!("no node was given for instance {index}")))?;
        let host = match node.addr.contains(':') {
            true => format!("[{}]", node.addr),
            false => node.addr.clone(),
        };
        Ok(EntryPlan { url: format!("http://{host}:{port}"), instance: entry.instance })
    };
    plan.entries.iter().map(of).collect()
}

/// Puts `word` into the comment of job `id`, which its script reads.
async fn tell(claim: &Claim, id: &str, word: &str, limit: Duration) -> Result<(), ToolError> {
    let update = ["update".to_owned(), format!("JobId={id}"), format!("Comment={word}")];
    call("scontrol", &claim.scope).args(update).ask(limit).await.map(drop)
}

/// What Slurm refuses with, and what to do about it.
const REFUSALS: &[(&str, &str)] = &[
    (
        "node configuration is not available",
        "no node has what the job asks for: compare gpus, tp, pp and place with `sinfo -o '%N %c %G'`, or \
         name another partition in params",
    ),
    ("nvalid partition", "correct `partition` in params: `sinfo` lists them"),
    ("partition", "see `partition` and `time` in params, and `scontrol show partition`"),
    ("Invalid account", "correct `account` in params: `sacctmgr show associations` lists yours"),
    ("Invalid qos", "correct `qos` in params: `sacctmgr show qos` lists them"),
    ("Invalid node name", "hosts of the file are named as Slurm names its nodes: see `sinfo -N`"),
    ("time limit", "lower `time` in params: the partition allows less"),
    ("Unable to contact slurm controller", "see whether slurmctld runs, and SLURM_CONF"),
    ("authentication", "munge does not work here: see `munge -n | unmunge`"),
];

pub(super) fn hint(said: &str) -> String {
    let known = REFUSALS.iter().find(|(needle, _)| said.contains(needle));
    known.map_or_else(
        || "try the command of the first lines of the job script by hand".to_owned(),
        |(_, hint)| (*hint).to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::engines;
    use scalebeam_model::plan::resolve;
    use scalebeam_model::spec::Experiment;

    fn planned(deploy: &str) -> DeploymentPlan {
        let text = format!(
            "schema = 1\nname = \"t\"\n[model]\nid = \"m\"\n[host.n1]\ngpus = 2\n[host.n2]\ngpus = 2\n\
             [[deploy]]\nname = \"d\"\nplatform = \"slurm\"\nengine = \"emulated\"\nport = 8000\n{deploy}\n\
             [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 8\nosl = 8\n\
             [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"serial\"\nrequests = 1\n"
        );
        let experiment = Experiment::parse(&text, "t.toml", engines()).unwrap();
        resolve(&experiment, engines()).unwrap().deployments.remove(0)
    }

    #[test]
    fn an_instance_answers_on_the_node_that_it_was_given() {
        let addresses = [("n1", "10.0.0.1"), ("n2", "fd00::2")];
        let addresses = addresses.map(|(n, a)| (n.to_owned(), a.to_owned())).into();
        let urls = |deploy: &str, nodes: &[&str]| {
            let nodes: Vec<Node> = nodes.iter().map(|name| nodes::node(name, &addresses)).collect();
            let entries = entries(&planned(deploy), &nodes)?;
            Ok::<_, ToolError>(entries.into_iter().map(|e| e.url).collect::<Vec<_>>())
        };
        let placed = "replicas = 2\nplace = [\"n2:0\", \"n1:0\"]";
        let found = urls(placed, &["n1", "n2"]).unwrap();
        assert_eq!(found, ["http://[fd00::2]:8000", "http://10.0.0.1:8001"]);
        // A node that Slurm has no address of is known by its name.
        let found = urls("replicas = 2", &["n1", "n7"]).unwrap();
        assert_eq!(found, ["http://10.0.0.1:8000", "http://n7:8001"]);
        let error = urls("replicas = 2", &["n1"]).unwrap_err();
        assert_eq!(error.to_string(), "no node was given for instance 1");
    }

    #[test]
    fn a_job_may_wait_for_a_day_unless_the_file_says_otherwise() {
        assert_eq!(patience(&planned("")), QUEUE);
        assert_eq!(patience(&planned("params = { queue = \"90s\" }")), Nanos::from_secs(90));
    }

    #[test]
    fn refusals_lead_to_a_hint() {
        for (said, part) in [
            (
                "sbatch: error: Batch job submission failed: Requested node configuration is not available",
                "sinfo",
            ),
            (
                "sbatch: error: invalid partition specified: no; sbatch: error: Batch job submission failed: Invalid partition name specified",
                "`sinfo` lists",
            ),
            (
                "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
                "slurmctld",
            ),
            ("something new", "by hand"),
        ] {
            assert!(hint(said).contains(part), "{said}: {}", hint(said));
        }
    }
}
