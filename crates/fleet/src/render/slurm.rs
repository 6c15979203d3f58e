//! Slurm: a job script that starts each process of the plan as a step of its own.
//!
//! Hosts that instances are placed on are nodes of the cluster by their names in the file. Where nothing is
//! placed, each instance has a node of its own, which Slurm chooses. Variables that are passed on by name
//! are those of the shell that submits the job.
//!
//! The first step that ends, ends the job, with its status: a deployment without one of its parts is none. Which
//! step it was, how it ended and its last log line are put into the job's comment: that can be read without a
//! shared disk, and also after the job.
//!
//! The comment is also what scalebeam says to the script: `go`, where its processes are held back until the
//! doctor has looked at the nodes, and `end`, where it takes them down one stage after the other. The name of a
//! step is its stage.
//!
//! **Invariant.** A script that has begun a step ends in `end_job` alone: no step of it lives then, and what they
//! wrote on the nodes is gone. SIGTERM to the script is heard: by hand, or from Slurm when its time is almost over.

pub(super) mod script;

use super::shell::command;
use super::subject::{Subject, Ways, seconds};
use super::{RenderError, Rendered, k8s};
use crate::host::quote;
use crate::launch::stage_of;
use scalebeam_model::plan::{
    DeploymentPlan, EngineKind, EnvValue, ProcessPlan, RankLauncher, StartGate,
};
use scalebeam_model::units::Nanos;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use script::{
    DEFAULT_ROOT, ENDING, GATES, HOLD, LOOPBACK, NO_SWEEP, RAY_GATES, SCRATCH, SCRATCH_PATH,
    SCRATCH_WORD, STEP, SWEEP, UNTIL_ENDED,
};

pub(super) fn render(subject: &Subject<'_>) -> Result<Rendered, RenderError> {
    match subject.deployment.image {
        Some(_) => job(&subject.of(&in_containers(subject.deployment))),
        None => job(subject),
    }
}

/// A container has a place for temporary files of its own, which goes with it.
fn in_containers(d: &DeploymentPlan) -> DeploymentPlan {
    let mut d = d.clone();
    for process in &mut d.processes {
        process.env.retain(|name, value| name != "TMPDIR" || value.given() != Some(SCRATCH_WORD));
    }
    d
}

fn job(subject: &Subject<'_>) -> Result<Rendered, RenderError> {
    check(subject)?;
    let nodes = Nodes::new(subject);
    let name = &subject.full_name;
    let mut body = String::from("#!/bin/bash\n");
    for option in options(subject, &nodes, name) {
        let _ = writeln!(body, "#SBATCH --{option}");
    }
    body.push_str("set -eo pipefail\n");
    body.push_str(STEP);
    let d = subject.deployment;
    let has_scratch = d.processes.iter().any(|process| writes(d, process));
    body.push_str(&times(subject));
    body.push_str(ENDING);
    body.push_str(if has_scratch { SWEEP } else { NO_SWEEP });
    if has_scratch {
        let root = scratch_root(subject)?;
        let _ = writeln!(body, "SCRATCH_ROOT={}", quote(root));
        body.push_str(SCRATCH);
    }
    if d.processes.iter().any(|process| process.after.is_some()) {
        body.push_str(GATES);
    }
    if joins_ray(d) {
        body.push_str(RAY_GATES);
    }
    for line in subject.list("setup") {
        body.push_str(line);
        body.push('\n');
    }
    body.push_str(HOLD);
    for process in &d.processes {
        body.push_str(&gate(subject, process, &nodes)?);
        body.push_str(&step(subject, process, &nodes));
    }
    body.push_str(UNTIL_ENDED);
    let ways = Ways {
        up: "sbatch --parsable FILE".to_owned(),
        // Its script hears it, ends its steps and clears up. Without `--batch` Slurm ends all of them at once, and one that
        // waits has no script yet.
        down: format!(
            "squeue -h -t PD,CF -n {name} -o %A | xargs -r scancel; \
             scancel --batch --signal=TERM --name {name}"
        ),
        endpoints: endpoints(subject, &nodes),
    };
    Ok(subject.rendered(format!("{}.sbatch", subject.name), &body, ways))
}

/// What the end of the job goes by, in seconds.
fn times(subject: &Subject<'_>) -> String {
    format!(
        "GRACE={} LIMIT={} LEAD={}\n",
        grace(subject),
        60 * limit_minutes(subject),
        lead(subject).unwrap_or(0)
    )
}

fn grace(subject: &Subject<'_>) -> u64 {
    seconds(subject.deployment.stop.grace)
}

fn limit_minutes(subject: &Subject<'_>) -> u64 {
    seconds(subject.span("time").unwrap_or(Nanos::from_secs(2 * 60 * 60))).div_ceil(60)
}

/// How long before its limit the script is told, so that it ends its steps and clears up: after the grace come
/// the steps that were killed, and the sweep. Of a job that is so short nothing would be left.
fn lead(subject: &Subject<'_>) -> Option<u64> {
    const KILLED_AND_SWEPT: u64 = 90;
    let lead = grace(subject) + KILLED_AND_SWEPT;
    (60 * limit_minutes(subject) >= 10 * lead).then_some(lead)
}

/// The folder of a node in which that of the job is.
fn scratch_root<'a>(subject: &Subject<'a>) -> Result<&'a str, RenderError> {
    let root = subject.text("scratch").unwrap_or(DEFAULT_ROOT);
    match root.starts_with('/') {
        true => Ok(root.trim_end_matches('/')),
        false => Err(subject.cannot(
            format!("scratch = \"{root}\" is no absolute path"),
            "name a folder that every node has for itself, such as /tmp",
        )),
    }
}

/// Whether raylets are among the steps of `d`.
fn joins_ray(d: &DeploymentPlan) -> bool {
    d.launcher == Some(RankLauncher::Ray) || d.engine == EngineKind::RayServeLlm
}

fn check(subject: &Subject<'_>) -> Result<(), RenderError> {
    let d = subject.deployment;
    if joins_ray(d) && d.image.is_some() {
        let instead = match d.engine {
            EngineKind::RayServeLlm => "",
            _ => "set launcher = \"mp\", or ",
        };
        let hint =
            format!("{instead}leave image out: whether the cluster is whole is asked outside");
        return Err(subject.cannot("a Ray cluster in containers is not rendered", hint));
    }
    if d.image.is_some() && d.processes.iter().any(|process| writes(d, process)) {
        let hint = "leave image out: containers of one node share no folder";
        return Err(subject.cannot("what its processes write is not rendered in containers", hint));
    }
    if let Some(refused) = too_small(subject) {
        return Err(refused);
    }
    match spanned(d).into_iter().find(|host| !has_address(subject, host)) {
        Some(host) => Err(subject.cannot(
            format!("it spans nodes, and host {host} has no address"),
            format!("add addr to [host.{host}]"),
        )),
        None => Ok(()),
    }
}

/// Slurm gives every node of a job as many GPUs: a host that has fewer makes a job that never begins.
fn too_small(subject: &Subject<'_>) -> Option<RenderError> {
    let d = subject.deployment;
    if d.instances.iter().all(|i| i.place.is_empty()) {
        return None;
    }
    let each = gpus_per_node(subject);
    let is_of_it = |host: &str| d.processes.iter().any(|p| p.host == host);
    let mut hosts = subject.plan.hosts.iter().filter(|host| is_of_it(&host.name));
    let host = hosts.find(|host| u64::from(host.gpus) < each)?;
    let has_instance = d.instances.iter().flat_map(|i| &i.place).any(|p| p.host == host.name);
    let hint = match has_instance {
        true => "place instances on as many GPUs of each node, from 0 on",
        false => "put infra on a node with GPUs, such as that of an instance",
    };
    let reason = format!(
        "a job of Slurm has {each} GPUs on each of its nodes, and host {} has {}",
        host.name, host.gpus
    );
    Some(subject.cannot(reason, hint))
}

/// Hosts whose processes talk to those of others, so that each must have an address that the others reach.
fn spanned(d: &DeploymentPlan) -> BTreeSet<&str> {
    let of_instances = d.instances.iter().filter(|i| i.place.len() > 1).flat_map(|i| &i.place);
    let mut hosts: BTreeSet<&str> = of_instances.map(|p| p.host.as_str()).collect();
    let all: BTreeSet<&str> = d.processes.iter().map(|p| p.host.as_str()).collect();
    let has_control = d.processes.iter().any(|p| p.instance.is_none());
    if has_control && all.len() > 1 {
        hosts.extend(all);
    }
    hosts
}

fn has_address(subject: &Subject<'_>, host: &str) -> bool {
    !subject.plan.hosts.iter().any(|h| h.name == host && !h.has_address())
}

/// The nodes of the job.
#[derive(Debug)]
enum Nodes<'a> {
    /// By name.
    Named(Vec<&'a str>),
    /// This many, one an instance.
    Any(usize),
}

impl<'a> Nodes<'a> {
    fn new(subject: &Subject<'a>) -> Self {
        let d = subject.deployment;
        if d.instances.iter().all(|i| i.place.is_empty()) {
            return Self::Any(d.instances.len());
        }
        let hosts: BTreeSet<&str> = d.processes.iter().map(|p| p.host.as_str()).collect();
        Self::Named(hosts.into_iter().collect())
    }

    /// The node of `process`, as a word of the script.
    fn of(&self, process: &ProcessPlan) -> String {
        match self {
            Self::Named(_) => quote(&process.host),
            Self::Any(_) => format!("\"${{NODES[{}]}}\"", process.instance.unwrap_or(0)),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Named(names) => names.len(),
            Self::Any(count) => *count,
        }
    }
}

fn options(subject: &Subject<'_>, nodes: &Nodes<'_>, job: &str) -> Vec<String> {
    let mut options = vec![
        format!("job-name={job}"),
        format!("nodes={}", nodes.count()),
        "exclusive".to_owned(),
        format!("time={}", limit_minutes(subject)),
        format!("output={job}-%j.out"),
        // One that starts anew is another deployment.
        "no-requeue".to_owned(),
    ];
    options.extend(lead(subject).map(|lead| format!("signal=B:TERM@{lead}")));
    if let Nodes::Named(names) = nodes {
        options.push(format!("nodelist={}", names.join(",")));
    }
    let gpus = gpus_per_node(subject);
    if gpus > 0 {
        options.push(format!("gpus-per-node={gpus}"));
    }
    for key in ["partition", "account", "qos"] {
        options.extend(subject.text(key).map(|value| format!("{key}={}", quote(value))));
    }
    options
}

/// The GPUs that a node must give: up to the last that the plan names, or those of one instance. Those of
/// an engine that is emulated need not be there.
fn gpus_per_node(subject: &Subject<'_>) -> u64 {
    let d = subject.deployment;
    if matches!(d.engine, EngineKind::Emulated | EngineKind::DynamoMocker) {
        return 0;
    }
    let ids = d.instances.iter().flat_map(|i| &i.place).flat_map(|p| &p.ids);
    let named = ids.max().map(|last| u64::from(*last) + 1);
    let each = d.instances.iter().map(|i| k8s::gpus(subject, i)).max();
    named.or(each).unwrap_or(0)
}

/// Waits for what `process` is started after.
fn gate(
    subject: &Subject<'_>,
    process: &ProcessPlan,
    nodes: &Nodes<'_>,
) -> Result<String, RenderError> {
    let Some(gate) = &process.after else { return Ok(String::new()) };
    let words = match gate {
        StartGate::Listening { host, port } => listening(subject, (host, *port), nodes)?,
        StartGate::RayCluster { ray, head, address, nodes } => {
            let first = ["ray_has".to_owned(), quote(head)];
            let resources = nodes.iter().map(|node| quote(&node.resource));
            // Found as the steps find it, which have the plan's environment.
            let given = process.env.iter().filter_map(|(name, value)| Some((name, value.given()?)));
            // The folder of the job need not be there yet, and a question writes nothing.
            let given = given.filter(|(_, value)| !value.contains(SCRATCH_WORD));
            let env = given.map(|(name, value)| quote(&format!("{name}={value}")));
            let env = ["--".to_owned(), "env".to_owned()].into_iter().chain(env);
            let asked = [ray.as_str(), "status", "--address", address.as_str()].map(quote);
            first.into_iter().chain(resources).chain(env).chain(asked).collect()
        }
    };
    Ok(format!("until_holds {}\n", words.join(" ")))
}

/// The question whether a process of `host` listens on `port`: from the script's node, or on its own where nobody else
/// reaches it.
fn listening(
    subject: &Subject<'_>,
    (host, port): (&str, u16),
    nodes: &Nodes<'_>,
) -> Result<Vec<String>, RenderError> {
    let is_it = |p: &&ProcessPlan| p.host == host && p.ports.iter().any(|at| at.port == port);
    let listener = subject.deployment.processes.iter().find(is_it);
    let is_inside =
        |p: &&ProcessPlan| p.ports.iter().any(|at| at.port == port && at.addr == LOOPBACK);
    if let Some(process) = listener.filter(is_inside) {
        return Ok(vec!["listens_inside".to_owned(), nodes.of(process), port.to_string()]);
    }
    let known = subject.plan.hosts.iter().find(|h| h.name == host);
    let known = known.ok_or_else(|| {
        let hint = "this is a defect of scalebeam; please report it with the experiment file";
        subject.cannot(format!("host {host} is not in the plan"), hint)
    })?;
    Ok(vec!["listens".to_owned(), quote(&known.addr), port.to_string()])
}

fn step(subject: &Subject<'_>, process: &ProcessPlan, nodes: &Nodes<'_>) -> String {
    let node = nodes.of(process);
    let log = Path::new(&process.log).file_stem().unwrap_or_default().to_string_lossy();
    let container = match &subject.deployment.image {
        Some(image) => format!(" --container-image={} --no-container-mount-home", quote(image)),
        None => String::new(),
    };
    format!(
        "step {} {} {} --nodelist={node}{container} \\\n  {} &\nbegun+=($!)\n",
        quote(&process.id),
        quote(&log),
        stage_of(subject.deployment, process).name(),
        started(subject, process)
    )
}

/// The command of a step, within what it needs on its node.
fn started(subject: &Subject<'_>, process: &ProcessPlan) -> String {
    let command = command(process);
    if !writes(subject.deployment, process) {
        return command;
    }
    let files =
        process.files.iter().map(|(name, text)| format!("{} {} ", quote(name), quote(text)));
    let files: String = files.collect();
    format!(
        "bash -c \"$in_scratch\" {} {files}-- {}",
        quote(&process.id),
        command.replace(SCRATCH_WORD, SCRATCH_PATH)
    )
}

/// Whether `process` is given the folder of the job on its node: it is told of it, or writes there by itself.
fn writes(d: &DeploymentPlan, process: &ProcessPlan) -> bool {
    let is_raylet = joins_ray(d) && process.args.first().is_some_and(|arg| arg == "start");
    let set = process.env.values().filter_map(EnvValue::given);
    let mut words = set.chain(process.args.iter().map(String::as_str));
    is_raylet || !process.files.is_empty() || words.any(|word| word.contains(SCRATCH_WORD))
}

/// Every server; where Slurm chooses the nodes, the job's output says which they are.
fn endpoints(subject: &Subject<'_>, nodes: &Nodes<'_>) -> Vec<String> {
    let servers = subject.deployment.processes.iter().filter_map(|process| {
        let http = process.ports.iter().find(|p| p.name == "http")?;
        Some(match nodes {
            Nodes::Named(_) => format!("http://{}:{}", process.host, http.port),
            Nodes::Any(_) => format!("http://NODE{}:{}", process.instance.unwrap_or(0), http.port),
        })
    });
    servers.collect()
}
