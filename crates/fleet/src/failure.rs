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
        "unique-ip",
        &["every node should have a unique ip"],
        "two hosts report one address: set `addr` of each host to its own data-plane address",
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
        "ray-version",
        &["version mismatch: the cluster was started with"],
        "Ray and Python must be equal, patch version included, on all hosts",
    ),
    known(
        "socket-path",
        &["af_unix path length cannot exceed"],
        "the path of a socket is too long: let TMPDIR of the login on that host be short, as /tmp is",
    ),
    known(
        "port",
        &["address already in use"],
        "a port was taken between the check and the start, or an engine's own random port collided: try again, or change `port`",
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
        "gguf",
        &["failed to load model"],
        "llama.cpp could not read the model: it must be a whole .gguf file that this version knows",
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
];

/// The first known failure in `lines`, searched from the last line back.
pub fn recognise(lines: &[String]) -> Option<&'static Known> {
    let lower: Vec<String> = lines.iter().map(|line| line.to_lowercase()).collect();
    KNOWN.iter().find(|k| {
        lower.iter().rev().any(|line| k.needles.iter().all(|needle| line.contains(needle)))
    })
}

/// What an engine is doing, by its log line, in words for a progress display.
pub fn phase(line: &str) -> Option<&'static str> {
    const PHASES: &[(&str, &str)] = &[
        ("loading weights", "loading weights"),
        ("loading safetensors", "loading weights"),
        ("load_tensors", "loading weights"),
        ("downloading", "downloading"),
        ("torch.compile", "compiling"),
        ("compiling", "compiling"),
        ("capturing cuda graph", "capturing CUDA graphs"),
        ("kv cache size", "sizing the KV cache"),
        ("nccl info", "joining ranks"),
        ("warming up", "warming up"),
        ("application startup complete", "starting to listen"),
    ];
    let line = line.to_lowercase();
    PHASES.iter().find(|(needle, _)| line.contains(needle)).map(|(_, words)| *words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_can_be_found_and_says_what_to_do() {
        for entry in KNOWN {
            assert!(entry.hint.len() > 20, "{entry:?}");
            assert!(!entry.needles.is_empty(), "{entry:?}");
            for needle in entry.needles {
                assert_eq!(*needle, needle.to_lowercase(), "{entry:?}");
            }
            let line = entry.needles.join(" ... ");
            assert!(recognise(&[line]).is_some(), "{entry:?}");
        }
    }

    #[test]
    fn real_lines_are_recognised() {
        for (line, want) in [
            ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB", "gpu-oom"),
            (
                "RuntimeError: [TM][ERROR] CUDA runtime error: out of memory /lmdeploy/src/turbomind/core/allocator.cc:49",
                "gpu-oom",
            ),
            ("ValueError: current platform cpu does not support ray.", "ray-on-cpu"),
            ("RuntimeError: Version mismatch: The cluster was started with:", "ray-version"),
            ("OSError: AF_UNIX path length cannot exceed 107 bytes: '/tmp/x'", "socket-path"),
            ("OSError: [Errno 98] Address already in use", "port"),
            ("ggml-rpc.cpp:547: Failed to connect to 127.0.0.1:50052", "rpc-peer"),
            ("vllm: error: unrecognized arguments: --no-such", "unknown-flag"),
        ] {
            assert_eq!(recognise(&[line.to_owned()]).map(|k| k.name), Some(want), "{line}");
        }
        assert_eq!(recognise(&["all is well".to_owned()]), None);
    }
}
