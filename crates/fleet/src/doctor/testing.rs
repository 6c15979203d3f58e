//! Texts of hosts and plans that tests share. The forms of `nvidia-smi` and `/proc` are those of their
//! documentation: an HGX H100 with NVSwitch, and an A100 node with bridges between pairs.

use scalebeam_model::plan::Plan;
use scalebeam_model::spec::Experiment;

/// Two GPUs, of which one does not tell its free memory.
pub(crate) const H100_GPUS: &str = "\
index, name, uuid, memory.total [MiB], memory.free [MiB], driver_version
0, NVIDIA H100 80GB HBM3, GPU-aaaa, 81559 MiB, 81007 MiB, 550.54.15
1, NVIDIA H100 80GB HBM3, GPU-bbbb, 81559 MiB, [N/A], 550.54.15
";

/// One tells everything, the other nothing.
pub(crate) const H100_MODES: &str = "\
index, mig.mode.current, ecc.mode.current, persistence_mode, power.limit [W], power.default_limit [W]
0, Disabled, Enabled, Enabled, 700.00 W, 700.00 W
1, [N/A], [N/A], [N/A], [Not Supported], [N/A]
";

/// Four GPUs of an HGX H100, with a card and the underlined head of a terminal.
pub(crate) const H100_TOPOLOGY: &str = "\
\t\u{1b}[4mGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\u{1b}[0m
GPU0\t X \tNV18\tNV18\tNV18\tPXB\t0-47\t0\t\tN/A
GPU1\tNV18\t X \tNV18\tNV18\tNODE\t0-47\t0\t\tN/A
GPU2\tNV18\tNV18\t X \tNV18\tNODE\t0-47\t0\t\tN/A
GPU3\tNV18\tNV18\tNV18\t X \tNODE\t0-47\t0\t\tN/A
NIC0\tPXB\tNODE\tNODE\tNODE\t X \t\t\t\t

Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NV#  = Connection traversing a bonded set of # NVLinks

NIC Legend:

  NIC0: mlx5_0
";

/// Four A100 in two bridged pairs.
pub(crate) const A100_TOPOLOGY: &str = "\
\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\tNUMA Affinity
GPU0\t X \tNV12\tSYS\tSYS\t0-31\t0
GPU1\tNV12\t X \tSYS\tSYS\t0-31\t0
GPU2\tSYS\tSYS\t X \tNV12\t32-63\t1
GPU3\tSYS\tSYS\tNV12\t X \t32-63\t1
";

/// `topo -p2p r` where a chipset is in the way of one pair.
pub(crate) const P2P: &str = " \tGPU0\tGPU1\tGPU2\t
 GPU0\tX\tOK\tOK\t
 GPU1\tOK\tX\tCNS\t
 GPU2\tOK\tCNS\tX\t

Legend:

  X    = Self
  OK   = Status Ok
  CNS  = Chipset not supported
";

/// A vLLM in a job of Slurm, with `n1` and `n2` in its file, of which only the latter has an address.
pub(crate) fn planned_on_slurm(deploy: &str) -> Plan {
    let text = format!(
        "schema = 1\nname = \"t\"\n[model]\nid = \"m\"\n[host.n1]\ngpus = 8\n[host.n2]\naddr = \"10.1.0.2\"\n\
         gpus = 8\n[[deploy]]\nname = \"d\"\nplatform = \"slurm\"\nengine = \"vllm\"\nport = 8000\n{deploy}\n\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 8\nosl = 8\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"serial\"\nrequests = 1\n"
    );
    let experiment = Experiment::parse(&text, "t.toml", crate::engine::engines()).unwrap();
    scalebeam_model::plan::resolve(&experiment, crate::engine::engines()).unwrap()
}

/// Listeners of both tables, one connection that is none, and one line that is cut.
pub(crate) const PROC_TCP: &str = "\
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31337 1 0000000000000000 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20001 1 0000000000000000 100 0 0 10 0
   2: 0100007F:A1B2 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 31338 1 0000000000000000 100 0 0 10 0
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20002 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20003 1 0000000000000000 100 0 0 10 0
   2: 0100
";

/// Four H100, as `nvidia-smi` lists them when nothing runs.
fn four_gpus() -> String {
    let mut text = H100_GPUS.lines().next().unwrap().to_owned();
    for index in 0..4 {
        text.push_str(&format!(
            "\n{index}, NVIDIA H100 80GB HBM3, GPU-{index}, 81559 MiB, 81007 MiB, 550.54.15"
        ));
    }
    text
}

fn per_gpu(head: &str, rest: &str) -> String {
    (0..4).fold(head.to_owned(), |text, index| format!("{text}\n{index}, {rest}"))
}

fn peer_matrix() -> String {
    let mut text = " \tGPU0\tGPU1\tGPU2\tGPU3\t".to_owned();
    for from in 0..4 {
        let cell = |to: i32| if to == from { "X\t" } else { "OK\t" };
        text.push_str(&format!("\n GPU{from}\t{}", (0..4).map(cell).collect::<String>()));
    }
    text
}

/// What the probe prints on a host with which nothing is wrong.
pub(crate) fn healthy() -> String {
    let sections = [
        ("hostname", "head".to_owned()),
        ("resolves", "10.0.0.1        STREAM head\n10.0.0.1        DGRAM".to_owned()),
        (
            "addresses",
            "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever\n\
             2: eno1    inet 10.0.0.1/24 brd 10.0.0.255 scope global eno1\\       valid_lft forever"
                .to_owned(),
        ),
        ("links", "eno1\t9000\t100000\tup\nlo\t65536\t\tunknown".to_owned()),
        ("infiniband", "mlx5_0\t1\t4: ACTIVE\t400 Gb/sec (4X NDR)\tRoCE v2".to_owned()),
        ("environment", "HF_TOKEN".to_owned()),
        ("no_proxy", String::new()),
        ("limits", "open_files 1048576\nlocked_memory unlimited".to_owned()),
        ("listeners", PROC_TCP.trim_end().to_owned()),
        ("port_range", "32768\t60999".to_owned()),
        ("memory", "MemTotal: 1 kB\nHugePages_Total:       0\nHugePages_Free:        0".to_owned()),
        ("cgroup_memory", "max".to_owned()),
        ("cpus", "96".to_owned()),
        ("shm", df("67108864", "67108864", "/dev/shm")),
        ("disk", df("1887436800", "943718400", "/data")),
        ("disk_kind", "ext2/ext3".to_owned()),
        ("program vllm", "/opt/venv/bin/vllm".to_owned()),
        ("program ray", "/opt/venv/bin/ray".to_owned()),
        ("versions vllm", "python 3.12.3\nray 2.50.0\nvllm 0.11.0\ntorch 2.8.0".to_owned()),
        ("gpus", four_gpus()),
        (
            "gpu_modes",
            per_gpu(
                H100_MODES.lines().next().unwrap(),
                "Disabled, Enabled, Enabled, 700.00 W, 700.00 W",
            ),
        ),
        (
            "gpu_clocks",
            per_gpu(
                "index, clocks.max.sm [MHz], clocks.applications.graphics [MHz]",
                "1980 MHz, 1980 MHz",
            ),
        ),
        ("gpu_processes", "pid, gpu_uuid, process_name, used_gpu_memory [MiB]".to_owned()),
        (
            "gpu_throttle",
            per_gpu(
                "index, clocks_throttle_reasons.hw_slowdown, clocks_throttle_reasons.sw_thermal_slowdown",
                "Not Active, Not Active",
            ),
        ),
        ("gpu_fabric", per_gpu("index, fabric.state, fabric.status", "Completed, Success")),
        ("gpu_topology", H100_TOPOLOGY.to_owned()),
        ("gpu_p2p", peer_matrix()),
        ("acs", "00:01.0\tSrcValid- TransBlk- ReqRedir- CmpltRedir-\n00:02.0\tSrcValid- TransBlk- ReqRedir- CmpltRedir-".to_owned()),
        ("hub", "/data/hub".to_owned()),
        ("model", "/data/hub/models--org--Model-32B/snapshots/abc".to_owned()),
        (
            "model_config",
            r#"{"num_attention_heads": 40, "num_key_value_heads": 8, "max_position_embeddings": 131072}"#
                .to_owned(),
        ),
        ("model_hashes", "aa11 config.json\nbb22 model.safetensors.index.json".to_owned()),
        ("model_weights", "32768000000 a.safetensors\n32768000000 b.safetensors".to_owned()),
        (
            "disk_read",
            "256+0 records in\n256+0 records out\n268435456 bytes (268 MB, 256 MiB) copied, 0.128 s, 2.1 GB/s"
                .to_owned(),
        ),
        ("end", String::new()),
    ];
    let all = clusters().into_iter().chain(sections);
    all.map(|(name, body)| format!("@@ {name}\n{body}\n")).collect()
}

/// What the tools of clusters print for a deployment that is called `dual`.
fn clusters() -> [(&'static str, String); 13] {
    [
        ("kube_context dual", "prod".to_owned()),
        (
            "kube_may dual",
            "create rayservices.ray.io: yes\ndelete rayservices.ray.io: yes\ncreate services: yes\nlist pods: yes"
                .to_owned(),
        ),
        ("kube_exec dual", "yes".to_owned()),
        (
            "kube_kinds dual",
            "customresourcedefinition.apiextensions.k8s.io/rayservices.ray.io".to_owned(),
        ),
        ("kube_gpus dual", "8\t\n\t\n8\t\n8\ttrue".to_owned()),
        ("kube_quota dual", "small\t16\t4\nother\t\t".to_owned()),
        ("kube_object dual secret/hf", "hf   Opaque   1   5d".to_owned()),
        ("kube_object dual pvc/models", "Bound ReadWriteMany".to_owned()),
        (
            "slurm",
            "gpu*|up|gpu:h100:8(S:0-1)|4|idle|1-00:00:00\ncpu|up|(null)|9|idle|infinite".to_owned(),
        ),
        ("slurm_accounts", "lab||normal,long\nother|gpu|normal".to_owned()),
        ("modal", "Updated client.\n[]".to_owned()),
        ("modal_secrets", "[{\"name\": \"hf\"}]".to_owned()),
        ("modal_volumes", "[{\"Name\": \"cache\"}]".to_owned()),
    ]
}

fn df(size_kib: &str, free_kib: &str, at: &str) -> String {
    format!(
        "Filesystem 1024-blocks Used Available Capacity Mounted on\ntmpfs {size_kib} 0 {free_kib} 1% {at}"
    )
}

fn plan(text: &str) -> Plan {
    let engines = crate::engine::engines();
    let experiment = Experiment::parse(text, "experiment.toml", engines).unwrap();
    scalebeam_model::plan::resolve(&experiment, engines).unwrap()
}

/// Two hosts of four GPUs that share one copy of a model.
pub(crate) const TWO_NODES: &str = r#"
schema = 1
name = "two-nodes"
[model]
id = "org/Model-32B"
[host.head]
ssh = "gpu-head"
addr = "10.0.0.1"
gpus = 4
iface = "eno1"
[host.worker]
ssh = "gpu-worker"
addr = "10.0.0.2"
gpus = 4
iface = "eno1"
[[deploy]]
name = "dual"
platform = "ssh"
engine = "vllm"
launcher = "ray"
port = 8003
tp = 4
pp = 2
place = ["head:0-3 + worker:0-3"]
args = ["--max-num-seqs", "64"]
price_per_hour = 32
[[workload]]
name = "w"
kind = "synthetic"
isl = 512
osl = 128
[[load]]
name = "l"
workload = "w"
mode = "closed"
concurrency = [16]
requests = 64
"#;

pub(crate) fn two_nodes() -> Plan {
    plan(TWO_NODES)
}

/// An emulated engine on this machine.
pub(crate) fn emulated() -> Plan {
    plan(
        r#"
schema = 1
name = "emulated"
[model]
id = "Qwen/Qwen2.5-7B-Instruct"
[host.a]
gpus = 1
gpu = "H100-SXM-80G"
[host.b]
gpus = 1
gpu = "H100-SXM-80G"
[[deploy]]
name = "pair"
platform = "local"
engine = "emulated"
port = 18900
replicas = 2
place = ["a:0", "b:0"]
[[workload]]
name = "w"
kind = "synthetic"
isl = 32
osl = 8
[[load]]
name = "l"
workload = "w"
concurrency = [4]
requests = 40
"#,
    )
}
