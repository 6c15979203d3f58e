# Facts of a host, for `scalebeam doctor`. It reads and asks; it writes, starts and changes nothing.
# Output: a line `@@ NAME` begins a section; a line `@- WHY` in it says that it could not be had, with
# what the program said before it. What follows this file calls the functions below and ends with
# `main </dev/null`, so that the whole script is read before any program could read of it.

LC_ALL=C
export LC_ALL

# What came before a mark may not have ended its line.
section() { printf '\n@@ %s\n' "$1"; }
absent() { printf '\n@- %s\n' "$*"; }
has() { command -v "$1" >/dev/null 2>&1; }

# ask NAME SECONDS PROGRAM ARGS..: a section with what the program says; its status.
ask() {
  section "$1"
  seconds=$2
  shift 2
  if ! has "$1"; then absent "$1 is not installed"; return 127; fi
  if has timeout; then timeout "$seconds" "$@" 2>&1; else "$@" 2>&1; fi
  status=$?
  case $status in
    0) ;;
    124) absent "$1 gave no answer within $seconds s" ;;
    *) absent "$1 ended with status $status" ;;
  esac
  return "$status"
}

# show NAME FILE..: a section with what is in the files that there are.
show() {
  section "$1"
  shift
  shown=
  for file in "$@"; do
    if [ -r "$file" ]; then cat "$file" 2>/dev/null && shown=1; fi
  done
  [ -n "$shown" ] || absent "$1 cannot be read"
}

# line FILE: its first line, empty where it has none or cannot be read.
line() {
  got=
  [ -r "$1" ] && IFS= read -r got <"$1" 2>/dev/null
  printf '%s' "$got"
}

links() {
  section links
  for dir in /sys/class/net/*; do
    [ -e "$dir/mtu" ] || continue
    printf '%s\t%s\t%s\t%s\n' "${dir##*/}" "$(line "$dir/mtu")" "$(line "$dir/speed")" "$(line "$dir/operstate")"
  done
}

infiniband() {
  section infiniband
  for port in /sys/class/infiniband/*/ports/*; do
    [ -e "$port/state" ] || continue
    device=${port%/ports/*}
    printf '%s\t%s\t%s\t%s\t%s\n' "${device##*/}" "${port##*/}" "$(line "$port/state")" \
      "$(line "$port/rate")" "$(line "$port/gid_attrs/types/3")"
  done
}

# Names of variables only; the list of hosts without a proxy is no secret.
environment() {
  section environment
  for name in HF_TOKEN HUGGING_FACE_HUB_TOKEN http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy \
    ALL_PROXY NCCL_IB_DISABLE MODAL_TOKEN_ID; do
    eval "value=\${$name-}"
    if [ -n "$value" ]; then printf '%s\n' "$name"; fi
  done
  section no_proxy
  printf '%s\n' "${no_proxy-${NO_PROXY-}}"
}

limits() {
  section limits
  printf 'open_files %s\n' "$(ulimit -n 2>/dev/null)"
  printf 'locked_memory %s\n' "$(ulimit -l 2>/dev/null)"
}

base() {
  section hostname
  uname -n
  ask resolves 3 getent ahosts "$(uname -n)"
  ask addresses 3 ip -o addr show
  links
  infiniband
  environment
  limits
  section listeners
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep ' 0A ' || [ -r /proc/net/tcp ] || absent "/proc/net/tcp cannot be read"
  show port_range /proc/sys/net/ipv4/ip_local_port_range
  show memory /proc/meminfo
  show cgroup_memory /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes
  ask cpus 3 getconf _NPROCESSORS_ONLN
  ask shm 3 df -Pk /dev/shm
}

# held PORT: who listens there, as far as this user may see.
held() {
  for inode in $(listeners "$1"); do
    who=$(holder "$inode")
    [ -n "$who" ] || continue
    section "holder $1"
    printf '%s\n' "$who"
    return
  done
}

# program NAME: where it is.
program() {
  section "program $1"
  command -v "$1" 2>/dev/null || absent "not on PATH"
}

# versions PROGRAM: of the packages beside the Python that runs it.
versions() {
  path=$(command -v "$1" 2>/dev/null) || return
  first=$(line "$path" | tr -d '\000' 2>/dev/null)
  case $first in
    '#!'*python*) python=${first#\#!}; python=${python##*env } ;;
    *) return ;;
  esac
  ask "versions $1" 10 ${python% -*} -c '
import importlib.metadata as m, platform
print("python", platform.python_version())
for name in ("vllm", "sglang", "lmdeploy", "ray", "torch", "nixl", "ai-dynamo", "nvidia-nccl-cu12", "nvidia-nccl-cu13", "ucx-py-cu12"):
    try: print(name, m.version(name))
    except m.PackageNotFoundError: pass
'
}

# gpu_tables: what GPUs are; nothing where there is none.
gpu_tables() {
  ask gpus 20 nvidia-smi --format=csv --query-gpu=index,name,uuid,memory.total,memory.free,driver_version || return
  # One column that a driver does not know spoils its whole table, so what not all know is apart.
  ask gpu_modes 20 nvidia-smi --format=csv --query-gpu=index,mig.mode.current,ecc.mode.current,persistence_mode,power.limit,power.default_limit
  ask gpu_clocks 20 nvidia-smi --format=csv --query-gpu=index,clocks.max.sm,clocks.applications.graphics
  return 0
}

gpus() {
  gpu_tables || return
  ask gpu_processes 20 nvidia-smi --format=csv --query-compute-apps=pid,gpu_uuid,process_name,used_memory
  ask gpu_throttle 20 nvidia-smi --format=csv --query-gpu=index,clocks_throttle_reasons.hw_slowdown,clocks_throttle_reasons.hw_thermal_slowdown,clocks_throttle_reasons.hw_power_brake_slowdown,clocks_throttle_reasons.sw_thermal_slowdown
  ask gpu_fabric 20 nvidia-smi --format=csv --query-gpu=index,fabric.state,fabric.status
  ask gpu_topology 20 nvidia-smi topo -m
  ask gpu_p2p 20 nvidia-smi topo -p2p r
  acs
}

# acs: what PCI bridges are told of traffic between their devices. To others than root lspci does not show it.
acs() {
  section acs
  if ! has lspci || ! has awk || ! has timeout; then absent "lspci, awk or timeout is not installed"; return; fi
  timeout 10 lspci -vvv 2>/dev/null | awk '
    /^[0-9a-f]/ { device = $1; bridge = /PCI bridge/ }
    bridge && /access denied/ { denied = 1 }
    bridge && /ACSCtl:/ { sub(/^[ \t]*ACSCtl:[ \t]*/, ""); print device "\t" $0; told = 1 }
    END { exit NR == 0 ? 4 : !told && denied ? 3 : 0 }'
  case $? in
    3) absent "lspci shows ACS to root only" ;;
    4) absent "lspci lists no device" ;;
  esac
}

# read_speed FILE: what dd says of its first 256 MiB, past the cache.
read_speed() {
  section disk_read
  if ! has dd || ! has timeout; then absent "dd or timeout is not installed"; return; fi
  said=$(timeout 10 dd if="$1" of=/dev/null bs=1048576 count=256 iflag=direct 2>&1)
  case $? in
    0) printf '%s\n' "$said" ;;
    124) printf '268435456 bytes copied, 10 s or more\n' ;;
    *) absent "no reads past the cache: ${said##*: }" ;;
  esac
}

# model_files ID REVISION: its folder, its config, hashes of its small files, sizes of its weights.
model_files() {
  hub=${HF_HUB_CACHE-${HF_HOME-$HOME/.cache/huggingface}/hub}
  section hub
  printf '%s\n' "$hub"
  dir=
  if [ -d "$1" ]; then
    dir=$1
  else
    cached=$hub/models--$(printf '%s' "$1" | sed 's|/|--|g')
    revision=$2
    [ -n "$revision" ] || revision=$(line "$cached/refs/main")
    if [ -n "$revision" ] && [ -d "$cached/snapshots/$revision" ]; then dir=$cached/snapshots/$revision; fi
  fi
  section model
  if [ -n "$dir" ]; then printf '%s\n' "$dir"
  elif [ -f "$1" ]; then
    printf '%s\n' "$1"
    section model_config
    absent "the model is one file, without a config.json"
    section model_hashes
    absent "the model is one large file, which is not read here"
    ask model_weights 5 stat -Lc '%s %n' "$1"
  else absent "neither $1 nor a copy in $hub"; fi
  near=$hub
  while [ ! -d "$near" ] && [ "$near" != / ] && [ "$near" != . ]; do near=$(dirname "$near"); done
  ask disk 5 df -Pk "$near"
  ask disk_kind 5 stat -f -c %T "$near"
  [ -n "$dir" ] || return
  show model_config "$dir/config.json"
  section model_hashes
  for file in "$dir/config.json" "$dir"/*.index.json "$dir/tokenizer.json"; do
    [ -r "$file" ] || continue
    if has sha256sum; then sum=$(sha256sum <"$file"); else absent "sha256sum is not installed"; return; fi
    printf '%s %s\n' "${sum%% *}" "${file##*/}"
  done
  section model_weights
  for file in "$dir"/*.safetensors "$dir"/*.gguf "$dir"/*.bin; do
    [ -e "$file" ] && stat -Lc '%s %n' "$file"
  done
}

# model ID REVISION: the same, and how fast its first file of weights is read.
model() {
  model_files "$@"
  if [ -z "$dir" ] && [ -f "$1" ]; then read_speed "$1"; fi
  [ -n "$dir" ] || return
  for file in "$dir"/*.safetensors "$dir"/*.gguf "$dir"/*.bin; do
    if [ -r "$file" ]; then read_speed "$file"; return; fi
  done
}

# peer NAME ADDRESS PORT: whether a connection gets there. A refusal is an answer too.
peer() {
  section "peer $1"
  if ! has bash || ! has timeout; then absent "bash or timeout is not installed"; return; fi
  said=$(timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$2" "$3" 2>&1)
  case $? in
    0) echo open ;;
    124) echo "no answer within 3 s" ;;
    *) case $said in *refused*) echo refused ;; *) printf '%s\n' "${said##*: }" ;; esac ;;
  esac
}

# kube_limit ARGS..: sets the flag by which kubectl answers in time. In a pod it would keep it from its service account.
kube_limit() {
  limit=--request-timeout=5s
  case " $*" in
    *" --context"*) ;;
    *) kubectl config current-context >/dev/null 2>&1 || limit= ;;
  esac
}

# kube ARGS..: kubectl, for a while at most.
kube() {
  if has timeout; then timeout 10 kubectl ${limit:+"$limit"} "$@"; else kubectl ${limit:+"$limit"} "$@"; fi
}

# kubernetes KEY RESOURCES ARGS..: what may be done with RESOURCES in the cluster and namespace that ARGS lead to, and
# what is there. One that does not answer is not asked further.
kubernetes() {
  key=$1
  resources=$2
  shift 2
  kube_limit "$@"
  ask "kube_context $key" 5 kubectl config current-context
  kube_may "$@" || return
  kube_exec "$@"
  ask "kube_kinds $key" 10 kubectl ${limit:+"$limit"} "$@" get crd -o name
  ask "kube_gpus $key" 10 kubectl ${limit:+"$limit"} "$@" get nodes -o 'jsonpath={range .items[*]}{.status.allocatable.nvidia\.com/gpu}{"\t"}{.spec.unschedulable}{"\n"}{end}'
  ask "kube_quota $key" 10 kubectl ${limit:+"$limit"} "$@" get resourcequotas -o 'jsonpath={range .items[*]}{.metadata.name}{"\t"}{.status.hard.requests\.nvidia\.com/gpu}{"\t"}{.status.used.requests\.nvidia\.com/gpu}{"\n"}{end}'
  return 0
}

# kube_may ARGS..: a line for each thing that is done there, and whether this user may do it.
kube_may() {
  section "kube_may $key"
  if ! has kubectl; then absent "kubectl is not installed"; return 1; fi
  for resource in $resources; do
    for verb in create delete; do
      kube_can "$verb" "$resource" "$@" || return
    done
  done
  kube_can create services "$@" && kube_can list pods "$@"
}

# kube_exec ARGS..: whether this user may run a shell in a pod.
kube_exec() {
  section "kube_exec $key"
  said=$(kube "$@" auth can-i create pods --subresource=exec 2>&1 | tail -n 1)
  case $said in
    yes* | no*) printf '%s\n' "$said" ;;
    *) absent "${said:-kubectl gave no answer within 10 s}" ;;
  esac
}

# kube_can VERB RESOURCE ARGS..: a line that says whether this user may do that.
kube_can() {
  verb=$1
  what="$1 $2"
  can=$2
  shift 2
  said=$(kube "$@" auth can-i "$verb" "$can" 2>&1 | tail -n 1)
  case $said in
    yes* | no*) printf '%s: %s\n' "$what" "$said" ;;
    *) absent "${said:-kubectl gave no answer within 10 s}"; return 1 ;;
  esac
}

# kube_object KEY KIND NAME ARGS..: whether it is there. Of a Secret no value is asked for: kubectl has the API
# server print its table.
kube_object() {
  object="kube_object $1 $2/$3"
  kind=$2
  name=$3
  shift 3
  kube_limit "$@"
  case $kind in
    pvc) ask "$object" 10 kubectl ${limit:+"$limit"} "$@" get pvc "$name" -o 'jsonpath={.status.phase} {.spec.accessModes[*]}' ;;
    *) ask "$object" 10 kubectl ${limit:+"$limit"} "$@" get "$kind" "$name" --no-headers ;;
  esac
}

slurm() {
  ask slurm 10 sinfo -h -o '%P|%a|%G|%D|%t|%l'
  ask slurm_accounts 10 sacctmgr -nP show assoc "user=$(id -un)" format=account,partition,qos
}

# modal_list SECTION WHAT: a table of Modal's client.
modal_list() { ask "$1" 15 modal "$2" list --json; }
