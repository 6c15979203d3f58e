//! Each entry of the catalogue can be found, and real lines lead to the right one.

use super::*;

/// Lines of real logs, and the entry that they are to lead to.
const EXCERPTS: &[(&str, &str)] = &[
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB", "gpu-oom"),
    (
        "RuntimeError: [TM][ERROR] CUDA runtime error: out of memory /lmdeploy/src/turbomind/core/allocator.cc:49",
        "gpu-oom",
    ),
    (
        "ERROR dynamo_runtime::transports::etcd::lease: Unable to maintain lease. Check etcd server status error=Unable to reconnect to ETCD cluster: deadline exceeded",
        "etcd-lease",
    ),
    ("ggml/src/ggml-rpc/ggml-rpc.cpp:547: Failed to connect to 127.0.0.1:39556", "rpc-peer"),
    ("OSError: AF_UNIX path length cannot exceed 107 bytes: '/tmp/x'", "socket-path"),
    ("ValueError: current platform cpu does not support ray.", "ray-on-cpu"),
    (
        "ValueError: Non-MoE models do not support external data parallel mode. For external load balancing, launch independent vLLM instances without --data-parallel-* arguments.",
        "external-dp",
    ),
    (
        "RuntimeError: Every node should have a unique IP address. Got 1 nodes with node ids",
        "unique-ip",
    ),
    (
        "ValueError: Cannot provide a placement group requiring 8 GPUs (placement_group_specs=[{'GPU': 1.0}]) within 1800 seconds.",
        "placement-group",
    ),
    (
        "(autoscaler) Error: No available node types can fulfill resource request {'GPU': 1.0}.",
        "placement-group",
    ),
    ("Failed to connect to GCS at address 10.0.0.1:6379 within 5 seconds.", "ray-unreachable"),
    (
        "ConnectionError: Could not find any running Ray instance. Please specify the one to connect to",
        "ray-unreachable",
    ),
    ("RuntimeError: Version mismatch: The cluster was started with:", "ray-version"),
    (
        "ValueError: Free memory on device cuda:0 (12.1/79.1 GiB) on startup is less than desired GPU memory utilization (0.9, 71.19 GiB).",
        "gpu-memory-taken",
    ),
    (
        "The memory capacity is unbalanced. Some GPUs may be occupied by other processes. pre_model_load_memory=20.1",
        "gpu-memory-taken",
    ),
    (
        "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
        "sglang-memory",
    ),
    (
        "RuntimeError: unable to open shared memory object </torch_7_1_0> in read-write mode: No space left on device (28)",
        "shm",
    ),
    (
        "misc/shmutils.cc:87 NCCL WARN Error while creating shared memory segment /dev/shm/nccl-8FQxpz (size 9637888)",
        "shm",
    ),
    (
        "UCX  ERROR ibv_reg_mr(address=0x7f, length=1024, access=0xf) failed: Cannot allocate memory",
        "memlock",
    ),
    (
        "transport/net_ib.cc NCCL WARN Call to ibv_create_cq failed with error Cannot allocate memory",
        "memlock",
    ),
    ("libibverbs: Warning: RLIMIT_MEMLOCK is 65536 bytes.", "memlock"),
    ("failed to allocate 2 MB HugePages: Cannot allocate memory", "hugepages"),
    (
        "[rank1]: RuntimeError: CUDA driver version is insufficient for CUDA runtime version",
        "driver",
    ),
    ("Failed to initialize NVML: Driver/library version mismatch", "driver"),
    (
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized",
        "fabric-manager",
    ),
    ("RuntimeError: CUDA error: invalid device ordinal", "gpu-id"),
    (
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        "gpu-arch",
    ),
    ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "gpu-ecc"),
    ("OSError: [Errno 98] Address already in use", "port"),
    ("main: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080", "port"),
    ("bootstrap.cc:48 NCCL WARN Bootstrap : no socket interface found", "nic"),
    (
        "RuntimeError: [enforce fail at gloo/transport/tcp/device.cc:83] ifa != nullptr. Unable to find address for: eno9",
        "nic",
    ),
    (
        "[W ProcessGroupGloo.cpp:721] Warning: Unable to resolve hostname to a (local) address. Using the loopback address as fallback.",
        "loopback",
    ),
    (
        "[rank0]:[E ProcessGroupNCCL.cpp:616] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1)",
        "nccl-hang",
    ),
    (
        "[W socket.cpp:752] [c10d] The client socket has failed to connect to [node0]:29501 (errno: 110 - Connection timed out).",
        "rendezvous",
    ),
    (
        "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)",
        "nccl",
    ),
    (
        "[rank8]:[E ProcessGroupGloo.cpp:144] Gloo connectFullMesh failed with [gloo/transport/tcp/pair.cc:144] no error",
        "gloo",
    ),
    (
        "Exception: Failed to connect to etcd server with config ClientOptions { etcd_url: [\"http://h:2379\"] }",
        "etcd",
    ),
    (
        "ERROR dynamo_runtime::transports::etcd::lease: Unable to maintain lease. Check etcd server status error=expired",
        "etcd-lease",
    ),
    ("failed to connect to NATS: IO error: Connection refused (os error 111)", "nats"),
    ("ERROR 11-26 [base_worker.py:513] NIXL is not available", "nixl"),
    ("ERROR NIXL handshake with engine decode-0 failed", "kv-handshake"),
    ("OSError: Tunnel connection failed: 403 Forbidden", "proxy"),
    ("OSError: [Errno 24] Too many open files", "nofile"),
    ("OSError: You are trying to access a gated repo.", "gated"),
    (
        "Access to model meta-llama/Llama-3.1-8B is restricted and you are not in the authorized list.",
        "gated",
    ),
    (
        "HTTPError: 401 Client Error: Unauthorized for url: https://huggingface.co/m/resolve/main/config.json",
        "gated",
    ),
    (
        "ValueError: User-specified max_model_len (9000) is greater than the derived max_model_len (max_position_embeddings=8192)",
        "context",
    ),
    (
        "ValueError: Model architectures ['NewForCausalLM'] are not supported for now.",
        "architecture",
    ),
    (
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0.",
        "dtype",
    ),
    (
        "Please pass the argument `trust_remote_code=True` to allow custom code to be run.",
        "remote-code",
    ),
    ("ggml-rpc.cpp:547: Failed to connect to 127.0.0.1:50052", "rpc-peer"),
    ("vllm: error: unrecognized arguments: --no-such", "unknown-flag"),
    ("OSError: [Errno 28] No space left on device", "disk"),
    ("RuntimeError: Engine core initialization failed. See root cause above.", "engine-died"),
];

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
    for (line, want) in EXCERPTS {
        assert_eq!(recognise(&[(*line).to_owned()]).map(|k| k.name), Some(*want), "{line}");
    }
    assert_eq!(recognise(&["all is well".to_owned()]), None);
}
