//! The parts of the job script that are the same in every job.

/// How a step is run, and what is said when it ends. `LOGS` is where scalebeam wants the logs, by hand it is
/// where the job was submitted, and where the node has no such folder it is one of the job's own. A task is
/// else bound to one core. Who reads the node knows a step by the variable with its id. The first that ends is told of,
/// and those that end with the job are not; nothing is begun while it ends.
pub(super) const STEP: &str = r#"LOGS=${SCALEBEAM_LOGS:-$PWD}
if [[ ! -d $LOGS ]]; then
  LOGS=/tmp/$SLURM_JOB_NAME-$SLURM_JOB_ID
  mkdir -m 700 "$LOGS"
  trap 'rm -rf "$LOGS"' EXIT
fi
exec >>"$LOGS/job-$SLURM_JOB_ID.out" 2>&1
mapfile -t NODES < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
echo "nodes: ${NODES[*]}"
told() { [[ $(scontrol show job "$SLURM_JOB_ID") =~ [[:space:]]Comment=([a-z]*) ]] && echo "${BASH_REMATCH[1]}"; }
tell() { scontrol update JobId="$SLURM_JOB_ID" Comment="$1" || true; }
step() {
  local id=$1 log=$LOGS/$2-$SLURM_JOB_ID.log stage=$3 status=0 said
  shift 3
  [[ -z $ending && $(told) != end ]] || return 0
  srun --overlap --job-name="$stage" --nodes=1 --ntasks=1 --cpu-bind=none --export="ALL,SCALEBEAM_PROCESS=$id" \
    --output="$log" "$@" || status=$?
  said="process $id ended with status $status: $(tail -n 20 "$log" | grep -v '^slurmstepd' | tail -n 1 | tr -cd '[:print:]')" || true
  echo "$said"
  [[ $(told) =~ ^(end|ends|process)$ ]] || tell "${said:0:300}"
  return "$status"
}
"#;

/// What the script says and waits for where its processes are held back: the variables that decide what they find,
/// after `setup`, and then `go`. Nobody pays for nodes that were forgotten.
pub(super) const HOLD: &str = r#"if [[ -n ${SCALEBEAM_HOLD:-} ]]; then
  for name in PATH HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE; do
    [[ -z ${!name+set} ]] || echo "held: $name=${!name}"
  done
  echo "held: all"
  until word=$(told || true) && [[ $word == go ]]; do
    if [[ -n $ending || $word == end ]]; then exit 0; fi
    if ((SECONDS > 1800)); then
      echo "held: nobody said go within 30 minutes"
      exit 1
    fi
    sleep 1
  done
fi
"#;

/// How the job ends. Where scalebeam takes it down it ends one stage after the other, and the script waits for that, for
/// as long as it takes at most; else the script ends what is left. `GRACE`, `LIMIT` and `LEAD` are seconds: for SIGTERM,
/// of the job, and before its end when Slurm tells the script, which it may do a minute earlier. A pause is no process,
/// which a signal to all would end.
pub(super) const ENDING: &str = r#"begun=() ending=
heard() {
  ending='its script was told to'
  ((LEAD == 0 || SECONDS < LIMIT - LEAD - 60)) || ending='its time limit is near'
}
trap heard TERM
exec {never}<> <(:)
pause() { read -rt "$1" -u "$never" || true; }
runs() { kill -0 "$1" 2>/dev/null; }
all_run() {
  local pid
  for pid in "${begun[@]}"; do runs "$pid" || return 1; done
}
is_left() {
  local pid
  for pid in "${begun[@]}"; do if runs "$pid"; then return 0; fi; done
  return 1
}
is_left_after() {
  local until=$((SECONDS + $1))
  while is_left && ((SECONDS < until)); do pause 0.5; done
  is_left
}
signal_steps() {
  local steps
  mapfile -t steps < <(squeue --all --steps --noheader --format='%j %i' --jobs="$SLURM_JOB_ID" | sed -nE 's/^(entry|worker|infra) //p')
  ((${#steps[@]} == 0)) || scancel --quiet --signal="$1" "${steps[@]}" || true
}
end_job() {
  local pid status=0 until=$((SECONDS + 3 * (GRACE + 10) + 60))
  for pid in "${begun[@]}"; do
    if ! runs "$pid"; then
      wait "$pid" || status=$?
      break
    fi
  done
  if [[ -n $ending && ! $(told) =~ ^(end|process)$ ]]; then tell "ends: $ending"; fi
  while [[ -z $ending && $(told) == end ]] && is_left && ((SECONDS < until)); do pause 0.5; done
  if is_left; then
    signal_steps TERM
    if is_left_after "$GRACE"; then
      signal_steps KILL
      is_left_after 10 || true
    fi
  fi
  sweep
  exit "$status"
}
"#;
/// The first step that ends ends the job.
pub(super) const UNTIL_ENDED: &str = r#"while [[ -z $ending ]] && all_run; do pause 1; done
end_job
"#;
/// Nothing was written that would have to go.
pub(super) const NO_SWEEP: &str = "sweep() { :; }\n";
/// What steps that were killed could not clear up. Where that fails it is told, behind what the comment says already. The
/// shell of the script's own node is no step, and can do so also where the job is over.
pub(super) const SWEEP: &str = r#"sweep() {
  local clear='d=${SCALEBEAM_SCRATCH:?}; if [[ -O $d && ! -L $d ]]; then rm -rf "$d"; fi'
  timeout --kill-after=5 60 srun --overlap --job-name=sweep --export=ALL --nodes="$SLURM_JOB_NUM_NODES" \
    --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpu-bind=none bash -c "$clear" && return
  bash -c "$clear" || true
  echo "left: $SCALEBEAM_SCRATCH on $SLURM_JOB_NODELIST"
  tell "$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Comment=//p' || true); left: $SCALEBEAM_SCRATCH on $SLURM_JOB_NODELIST"
}
"#;

/// What a step waits for that must not come too early. `until_holds` goes on once a command succeeds; where one of the
/// steps before has ended, the job ends, and its comment says which. No question keeps that from being seen.
pub(super) const GATES: &str = r#"until_holds() {
  until "$@"; do
    if [[ -n $ending ]] || ! all_run; then end_job; fi
    pause 1
  done
}
connects='(: <"/dev/tcp/$0/$1") 2>/dev/null'
listens() { timeout 10 bash -c "$connects" "$1" "$2" 2>/dev/null; }
on() { timeout --kill-after=5 60 srun --overlap --export=ALL --nodes=1 --ntasks=1 --cpu-bind=none --nodelist="$1" "${@:2}"; }
listens_inside() { on "$1" bash -c "$connects" 127.0.0.1 "$2" 2>/dev/null; }
"#;

/// The same, of a Ray cluster. Every raylet offers a resource of its own. What Ray writes it is told by a variable.
pub(super) const RAY_GATES: &str = r#"export RAY_TMPDIR=$SCALEBEAM_SCRATCH
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
pub(in super::super) const SCRATCH: &str = r#"scratch_name=${SLURM_JOB_NAME##*-}
export SCALEBEAM_SCRATCH=$SCRATCH_ROOT/sb-${scratch_name:0:12}-$SLURM_JOB_ID
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
pub(super) const LOOPBACK: &str = "127.0.0.1";
/// Where the folder of the job is, unless the file says where.
pub(super) const DEFAULT_ROOT: &str = "/tmp";
/// What stands in the plan for that folder.
pub(super) const SCRATCH_WORD: &str = "{scratch}";
/// What that is in the words of such a process, which are quoted.
pub(in super::super) const SCRATCH_PATH: &str = r#"'"$SCALEBEAM_SCRATCH"'"#;

/// The folder on the nodes of job `id`, whose `script` this is and which is called `name`; nothing where it has none.
pub(crate) fn scratch_of_job(script: &str, name: &str, id: &str) -> Option<String> {
    let root = script.lines().find_map(|line| line.strip_prefix("SCRATCH_ROOT="))?;
    let last = name.rsplit('-').next().unwrap_or(name);
    let short: String = last.chars().take(12).collect();
    Some(format!("{}/sb-{short}-{id}", root.trim_matches('\'')))
}
