//! Slurm: a job script that starts each process of the plan as a step of its own.
//!
//! Hosts that instances are placed on are nodes of the cluster by their names in the file. Where nothing is
//! placed, each instance has a node of its own, which Slurm chooses. Variables that are passed on by name
//! are those of the shell that submits the job.
//!
//! The first step that ends, ends the job, with its status: a deployment without one of its parts is none.
//! Slurm ends the steps of a job whose script has ended, so the script itself signals nothing. Which step it
//! was, how it ended and its last log line are put into the job's comment: that can be read without a shared
//! disk, and also after the job.
//!
//! The comment is also what scalebeam says to the script: `go`, where its processes are held back until the
//! doctor has looked at the nodes, and `end`, where it takes them down one stage after the other. The name of a
//! step is its stage.

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

/// How a step is run, and what is said when it ends. `LOGS` is where scalebeam wants the logs, by hand it is
/// where the job was submitted, and where the node has no such folder it is one of the job's own. A task is
/// else bound to one core. Who reads the node knows a step by the variable with its id. While the job is taken down
/// its comment stays what the steps still to come read.
const STEP: &str = r#"LOGS=${SCALEBEAM_LOGS:-$PWD}
if [[ ! -d $LOGS ]]; then
  LOGS=/tmp/$SLURM_JOB_NAME-$SLURM_JOB_ID
  mkdir -m 700 "$LOGS"
  trap 'rm -rf "$LOGS"' EXIT
fi
exec >>"$LOGS/job-$SLURM_JOB_ID.out" 2>&1
mapfile -t NODES < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
echo "nodes: ${NODES[*]}"
told() { [[ $(scontrol show job "$SLURM_JOB_ID") =~ [[:space:]]Comment=([a-z]*) ]] && echo "${BASH_REMATCH[1]}"; }
step() {
  local id=$1 log=$LOGS/$2-$SLURM_JOB_ID.log stage=$3 status=0 said
  shift 3
  srun --overlap --job-name="$stage" --nodes=1 --ntasks=1 --cpu-bind=none --export="ALL,SCALEBEAM_PROCESS=$id" \
    --output="$log" "$@" || status=$?
  said="process $id ended with status $status: $(tail -n 20 "$log" | grep -v '^slurmstepd' | tail -n 1 | tr -cd '[:print:]')" || true
  echo "$said"
  [[ $(told) == end ]] || scontrol update JobId="$SLURM_JOB_ID" Comment="${said:0:300}" || true
  return "$status"
}
"#;

/// What the script says and waits for where its processes are held back: the variables that decide what they find,
/// after `setup`, and then `go`. Nobody pays for nodes that were forgotten.
const HOLD: &str = r#"if [[ -n ${SCALEBEAM_HOLD:-} ]]; then
  for name in PATH HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE; do
    [[ -z ${!name+set} ]] || echo "held: $name=${!name}"
  done
  echo "held: all"
  until word=$(told || true) && [[ $word == go ]]; do
    if [[ $word == end ]]; then exit 0; fi
    if ((SECONDS > 1800)); then
      echo "held: nobody said go within 30 minutes"
      exit 1
    fi
    sleep 1
  done
fi
"#;

/// The first step that ends ends the job; one that is taken down ends with its last.
const UNTIL_ENDED: &str = r#"status=0
wait -n || status=$?
if [[ $(told) == end ]]; then wait; fi
"#;
/// What steps that were killed could not clear up. While others of them live it is still theirs.
const SWEEP: &str = r#"if [[ -z $(jobs -pr) ]]; then
  srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --cpu-bind=none rm -rf "$SCALEBEAM_SCRATCH" || true
fi
"#;

/// What a step waits for that must not come too early. `until_holds` goes on once a command succeeds; where one of the
/// steps before has ended, it ends the job, whose comment says which.
const GATES: &str = r#"until_holds() {
  local steps=$1
  shift
  until "$@"; do
    (($(jobs -pr | wc -l) >= steps)) || exit 1
    sleep 1
  done
}
listens() { (: <"/dev/tcp/$1/$2") 2>/dev/null; }
on() { srun --overlap --nodes=1 --ntasks=1 --cpu-bind=none --nodelist="$1" "${@:2}"; }
listens_inside() { on "$1" bash -c '(: <"/dev/tcp/127.0.0.1/$0") 2>/dev/null' "$2" 2>/dev/null; }
"#;

/// The same, of a Ray cluster. Every raylet offers a resource of its own. What Ray writes it is told by a variable.
const RAY_GATES: &str = r#"export RAY_TMPDIR=$SCALEBEAM_SCRATCH
ray_has() {
  local node=$1 said resource resources=()
  shift
  while [[ $1 != -- ]]; do
    resources+=("$1")
    shift
  done
  shift
  said=$(on "$node" "$@" 2>&1) || {
    echo "waiting for Ray: ${said##*$'\n'}"
    return 1
  }
  for resource in "${resources[@]}"; do
    grep -q "/[0-9.]* $resource\$" <<<"$said" || {
      echo "waiting for Ray: no $resource yet"
      return 1
    }
  done
}
"#;

/// What processes write on a node lies in one folder of the job there, which goes with the last of them that has one.
/// NAME TEXT .. -- COMMAND: the texts are files that it reads. The name of the folder can be foretold, so one that somebody
/// else made is refused. A signal to a step reaches this shell too, which clears up after its command.
pub(super) const SCRATCH: &str = r#"scratch_name=${SLURM_JOB_NAME##*-}
export SCALEBEAM_SCRATCH=/tmp/sb-${scratch_name:0:12}-$SLURM_JOB_ID
in_scratch='steps=$SCALEBEAM_SCRATCH/.steps mine=$SCALEBEAM_SCRATCH/.steps/$SLURM_STEP_ID
mkdir -m 700 "$SCALEBEAM_SCRATCH" 2>/dev/null
if [[ ! -O $SCALEBEAM_SCRATCH || -L $SCALEBEAM_SCRATCH ]]; then
  echo "$SCALEBEAM_SCRATCH cannot be made, or is not ours" >&2
  exit 1
fi
(umask 077; mkdir -p "$mine") || exit
while [[ $1 != -- ]]; do printf %s "$2" >"$SCALEBEAM_SCRATCH/$1" || exit; shift 2; done
shift
trap : TERM INT
status=0
"$@" || status=$?
rmdir "$mine"
rmdir "$steps" 2>/dev/null && rm -rf "$SCALEBEAM_SCRATCH"
exit "$status"'
"#;
/// An address that only its own node reaches.
const LOOPBACK: &str = "127.0.0.1";
/// What stands in the plan for that folder.
const SCRATCH_WORD: &str = "{scratch}";
/// What that is in the words of such a process, which are quoted.
pub(super) const SCRATCH_PATH: &str = r#"'"$SCALEBEAM_SCRATCH"'"#;

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
    if has_scratch {
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
    for (started, process) in d.processes.iter().enumerate() {
        body.push_str(&gate(subject, process, started, &nodes)?);
        body.push_str(&step(subject, process, &nodes));
    }
    body.push_str(UNTIL_ENDED);
    if has_scratch {
        body.push_str(SWEEP);
    }
    body.push_str("exit \"$status\"\n");
    let ways = Ways {
        up: "sbatch --parsable FILE".to_owned(),
        down: format!("scancel --name {name}"),
        endpoints: endpoints(subject, &nodes),
    };
    Ok(subject.rendered(format!("{}.sbatch", subject.name), &body, ways))
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
    let limit = subject.span("time").unwrap_or(Nanos::from_secs(2 * 60 * 60));
    let mut options = vec![
        format!("job-name={job}"),
        format!("nodes={}", nodes.count()),
        "exclusive".to_owned(),
        format!("time={}", seconds(limit).div_ceil(60)),
        format!("output={job}-%j.out"),
        // One that starts anew is another deployment.
        "no-requeue".to_owned(),
    ];
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

/// Waits for what `process` is started after, behind `started` steps.
fn gate(
    subject: &Subject<'_>,
    process: &ProcessPlan,
    started: usize,
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
    Ok(format!("until_holds {started} {}\n", words.join(" ")))
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
        "step {} {} {} --nodelist={node}{container} \\\n  {} &\n",
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
