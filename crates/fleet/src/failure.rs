//! What is known about failures: a pattern in a log, and what to do about it.
//!
//! **Invariant:** [`KNOWN`] is a catalogue of uniform entries, searched in order, so a specific entry
//! stands before a general one. A hint names a next step; it never claims to be the only cause.

/// A failure that is recognised by its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Short name.
    pub name: &'static str,
    /// All of these stand in one line of the log, in any case.
    pub needles: &'static [&'static str],
    /// What to do.
    pub hint: &'static str,
}

const fn known(name: &'static str, needles: &'static [&'static str], hint: &'static str) -> Known {
    Known { name, needles, hint }
}

/// The catalogue.
pub const KNOWN: &[Known] = &[
    known(
        "ray-on-cpu",
        &["current platform cpu does not support ray"],
        "vLLM's CPU platform names no resource of Ray: use launcher = \"mp\", or a platform plugin (ci/setup-engines has one)",
    ),
    known(
        "executor-backend",
        &["--distributed-executor-backend", "ray"],
        "the instance needs more GPUs than the host has: say `launcher` (mp or ray) and place it over hosts",
    ),
    known(
        "external-dp",
        &["non-moe models do not support external data parallel"],
        "ranks of a dense model share nothing: say replicas in place of dp and dp_balance",
    ),
    known(
        "unique-ip",
        &["every node should have a unique ip"],
        "two hosts report one address: set `addr` of each host to its own data-plane address",
    ),
    known(
        "placement-group",
        &["cannot provide a placement group"],
        "Ray has too few free GPUs, or a node did not join: see `ray status`, and correct place, tp or pp",
    ),
    known(
        "placement-group",
        &["no available node types can fulfill"],
        "Ray has too few free GPUs, or a node did not join: see `ray status`, and correct place, tp or pp",
    ),
    known(
        "ray-unreachable",
        &["failed to connect to gcs"],
        "the Ray head does not answer: see its log, and that its port can be reached from this host at the head's `addr`",
    ),
    known(
        "ray-unreachable",
        &["could not find any running ray instance"],
        "no Ray runs where the engine looks for it: see the log of the Ray head, and RAY_ADDRESS in the environment",
    ),
    known(
        "gpu-memory-taken",
        &["memory capacity is unbalanced"],
        "another process holds memory of some GPUs: see nvidia-smi, and end what earlier runs have left",
    ),
    known(
        "gpu-memory-taken",
        &["free memory on device", "is less than desired gpu memory utilization"],
        "another process holds GPU memory: see nvidia-smi, or lower --gpu-memory-utilization",
    ),
    known(
        "kv-cache-small",
        &["kv cache", "larger than the maximum number of tokens"],
        "the longest context does not fit in the KV cache: lower max_len, or raise --gpu-memory-utilization",
    ),
    known(
        "no-cache-blocks",
        &["no available memory for the cache blocks"],
        "the model leaves no memory for the KV cache: raise tp, lower max_len, or raise --gpu-memory-utilization",
    ),
    known(
        "sglang-memory",
        &["not enough memory", "--mem-fraction-static"],
        "the model leaves no memory for the KV cache: raise tp, lower max_len, or raise --mem-fraction-static",
    ),
    known(
        "gpu-oom",
        &["cuda out of memory"],
        "the model does not fit on its GPUs: raise tp or pp, lower max_len, or free the GPUs",
    ),
    known(
        "gpu-oom",
        &["cuda runtime error: out of memory"],
        "LMDeploy found too little memory on the GPU: raise tp, lower --cache-max-entry-count, or free the GPUs",
    ),
    known(
        "gpu-oom",
        &["outofmemoryerror"],
        "the model does not fit on its GPUs: raise tp or pp, lower max_len, or free the GPUs",
    ),
    known(
        "cpu-kv-space",
        &["vllm_cpu_kvcache_space"],
        "set VLLM_CPU_KVCACHE_SPACE (GiB) in [env] to what the machine has to spare",
    ),
    known(
        "shm",
        &["creating shared memory segment"],
        "shared memory is too small: give the container --shm-size=16g or --ipc=host",
    ),
    known(
        "shm",
        &["no space left on device", "/dev/shm"],
        "shared memory is too small: give the container --shm-size=16g or --ipc=host",
    ),
    known(
        "shm",
        &["bus error"],
        "shared memory is too small: give the container --shm-size=16g or --ipc=host",
    ),
    known(
        "shm",
        &["unable to open shared memory"],
        "shared memory is too small: give the container --shm-size=16g or --ipc=host",
    ),
    known(
        "memlock",
        &["ibv_reg_mr", "cannot allocate memory"],
        "locked memory is limited: set `ulimit -l unlimited` where the process starts",
    ),
    known(
        "memlock",
        &["ibv_create_", "cannot allocate memory"],
        "locked memory is limited: set `ulimit -l unlimited` where the process starts",
    ),
    known(
        "hugepages",
        &["hugepages", "cannot allocate memory"],
        "too few huge pages are free: raise vm.nr_hugepages on the host, and set RDMAV_HUGEPAGES_SAFE = \"1\" in [env]",
    ),
    known(
        "ray-version",
        &["version mismatch", "the cluster was started with"],
        "Ray and Python must be equal, patch version included, on all hosts",
    ),
    known(
        "socket-path",
        &["af_unix path length cannot exceed"],
        "the path of a socket is too long: let TMPDIR of the login on that host be short, as /tmp is",
    ),
    known(
        "driver",
        &["driver version is insufficient"],
        "the GPU driver is older than the CUDA of the engine: install a newer driver, or an engine built for an older CUDA",
    ),
    known(
        "driver",
        &["driver/library version mismatch"],
        "the driver was updated while its old kernel module is loaded: restart the machine",
    ),
    known(
        "fabric-manager",
        &["system not yet initialized"],
        "the fabric manager of the NVSwitches does not run: start nvidia-fabricmanager, of the driver's own version",
    ),
    known(
        "gpu-id",
        &["invalid device ordinal"],
        "the process is given a GPU that the machine does not have: correct place, or CUDA_VISIBLE_DEVICES in env",
    ),
    known(
        "gpu-arch",
        &["no kernel image is available"],
        "the engine was not built for this kind of GPU: install a build that is",
    ),
    known(
        "gpu-ecc",
        &["uncorrectable ecc error"],
        "a GPU's memory is damaged: reset or leave out that GPU; see nvidia-smi -q -d ECC",
    ),
    known(
        "port",
        &["address already in use"],
        "a port was taken between the check and the start, or an engine's own random port collided: try again, or change `port`",
    ),
    known(
        "port",
        &["couldn't bind", "server socket"],
        "a port was taken between the check and the start: try again, or change `port`",
    ),
    known(
        "nic",
        &["no socket interface found"],
        "the interface is not there, or has no address: set `iface` of each host to the one that carries its `addr`",
    ),
    known(
        "nic",
        &["unable to find address for"],
        "the interface is not there, or has no address: set `iface` of each host to the one that carries its `addr`",
    ),
    known(
        "nccl-hang",
        &["watchdog caught collective operation timeout"],
        "ranks joined and then hung: on PCIe boxes turn ACS off or set NCCL_P2P_DISABLE = \"1\" in [env]; over hosts check `iface`, and NCCL_DEBUG = \"INFO\"",
    ),
    known(
        "rendezvous",
        &["client socket has", "connect to"],
        "the first rank could not be reached: check `addr` of its host, its log, and a firewall between the hosts",
    ),
    known(
        "nccl",
        &["nccl error"],
        "set NCCL_DEBUG = \"INFO\" in [env]; check `iface` of the hosts and that they reach each other",
    ),
    known(
        "gloo",
        &["gloo", "connect"],
        "ranks could not reach each other: check `addr` and `iface` of the hosts (a host name may resolve to 127.0.1.1)",
    ),
    known(
        "etcd-lease",
        &["unable to maintain lease"],
        "a worker lost its lease at etcd: etcd ended, or one of both had no CPU for longer than the lease (10 s). Threads of NIXL and vLLM that wait keep a core each busy: give every worker cores of its own",
    ),
    known(
        "etcd",
        &["failed to connect to etcd"],
        "etcd of `infra` does not answer: see its log, and that its port can be reached from this host",
    ),
    known(
        "nats",
        &["nats", "connection refused"],
        "NATS of `infra` does not answer: see its log, and that its port can be reached from this host",
    ),
    known(
        "nixl",
        &["nixl is not available"],
        "the KV connector needs NIXL: install nixl into the engine's Python environment, on every host",
    ),
    known(
        "kv-handshake",
        &["nixl", "handshake"],
        "prefill and decode could not agree: both need the same engine and NIXL versions, and each other's side channel at the hosts' `addr`",
    ),
    known(
        "proxy",
        &["tunnel connection failed"],
        "an HTTP proxy stands in between: set no_proxy to the hosts' addresses, or unset http_proxy and https_proxy",
    ),
    known(
        "proxy",
        &["proxyerror"],
        "an HTTP proxy stands in between: set no_proxy to the hosts' addresses, or unset http_proxy and https_proxy",
    ),
    known(
        "nofile",
        &["too many open files"],
        "the process may open too few files: raise `ulimit -n` where it starts",
    ),
    known(
        "gated",
        &["access to model", "is restricted"],
        "the model is gated: accept its licence and export HF_TOKEN",
    ),
    known(
        "gated",
        &["401 client error", "huggingface"],
        "the hub refuses: the model is gated or private, or HF_TOKEN is wrong",
    ),
    known("gated", &["gated repo"], "the model is gated: accept its licence and export HF_TOKEN"),
    known(
        "hub-offline",
        &["offline mode is enabled"],
        "the model is not in the cache and HF_HUB_OFFLINE is set: give a local path as model id",
    ),
    known(
        "hub",
        &["not a valid model identifier"],
        "the model id is unknown to the hub, or private: check [model] id, or give a local path",
    ),
    known(
        "hub",
        &["can't load the configuration of"],
        "the model's files are not where [model] id says: check the path, or that the hub is reachable",
    ),
    known(
        "hub",
        &["failed to resolve 'huggingface.co'"],
        "the hub cannot be reached from here: give a local path as model id",
    ),
    known(
        "heads",
        &["must be divisible by tensor parallel size"],
        "tp must divide the number of attention heads of the model",
    ),
    known(
        "context",
        &["is greater than the derived max_model_len"],
        "the model has no context as long as [model] max_len: lower it",
    ),
    known(
        "architecture",
        &["model architectures", "are not supported"],
        "this version of the engine does not know the model: install a newer one",
    ),
    known(
        "dtype",
        &["bfloat16 is only supported"],
        "these GPUs have no bfloat16: set dtype = \"half\" in [model]",
    ),
    known(
        "remote-code",
        &["pass the argument", "trust_remote_code"],
        "the model brings code of its own: read it, then add --trust-remote-code to args",
    ),
    known(
        "gguf",
        &["failed to load model"],
        "llama.cpp could not read the model: it must be a whole .gguf file that this version knows",
    ),
    known(
        "etcd-lease",
        &["unable to maintain lease"],
        "etcd did not answer this process of Dynamo in time, which ended for that: see etcd's log, and whether its host \
         has too much to do",
    ),
    known(
        "rpc-peer",
        &["failed to connect to", "rpc"],
        "an rpc worker did not answer: see its log",
    ),
    known(
        "unknown-flag",
        &["unrecognized arguments"],
        "this version of the engine has no such flag: remove it from args, or install another version",
    ),
    known(
        "unknown-flag",
        &["error: invalid argument"],
        "this version of the engine has no such flag: remove it from args, or install another version",
    ),
    known(
        "python-module",
        &["modulenotfounderror"],
        "the engine's Python environment is not complete: set params.bin or params.python to the right one",
    ),
    known(
        "glibc",
        &["glibc_", "not found"],
        "the program was built for a newer system: build it here, or use another package of it",
    ),
    known("disk", &["no space left on device"], "free disk space for the model, cache or logs"),
    known(
        "host-oom",
        &["killed process"],
        "the kernel ended it for want of memory: use fewer replicas or a smaller model",
    ),
    // Warnings, which stand in sound logs too.
    known(
        "loopback",
        &["using the loopback address as fallback"],
        "the host's own name leads to no address of it: set `iface` of the hosts, which becomes GLOO_SOCKET_IFNAME, or mend /etc/hosts",
    ),
    known(
        "memlock",
        &["rlimit_memlock"],
        "locked memory is limited: set `ulimit -l unlimited` where the process starts",
    ),
    // True of many failures: the line that says why stands above it.
    known(
        "engine-died",
        &["engine core initialization failed"],
        "the engine's own process failed: the first error in its log above this line says why",
    ),
    known(
        "engine-died",
        &["enginedeaderror"],
        "the engine died behind its server: the first error in its log says why",
    ),
];

/// The first known failure in `lines`, searched from the last line back.
pub fn recognise(lines: &[String]) -> Option<&'static Known> {
    let lower: Vec<String> = lines.iter().map(|line| line.to_lowercase()).collect();
    KNOWN.iter().find(|k| {
        lower.iter().rev().any(|line| k.needles.iter().all(|needle| line.contains(needle)))
    })
}

#[cfg(test)]
mod tests;
