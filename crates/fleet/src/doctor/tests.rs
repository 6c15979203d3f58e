//! Every check where it passes, where it fails and where it is skipped, on two hosts of four GPUs with
//! which nothing is wrong but what a case changes.

use super::checks::{CHECKS, Check, Look};
use super::facts::Facts;
use super::machine::machines;
use super::report;
use super::sections::{Known, Unknown};
use super::seen::{ClockOffset, Host, Seen, Unreached};
use super::testing::{A100_TOPOLOGY, H100_TOPOLOGY, emulated, healthy, two_nodes};
use super::transfer::{Moved, Sent, Speed};
use scalebeam_model::doctor::{DoctorReport, Outcome, Severity};
use scalebeam_model::plan::{EnvValue, Mode, ParamValue, Plan, Platform, RankLauncher};
use scalebeam_model::units::Nanos;

/// What a case changes.
enum Change {
    /// In what the head says.
    Head(&'static str, &'static str),
    /// In what the worker says.
    Worker(&'static str, &'static str),
    /// In what this machine says.
    Client(&'static str, &'static str),
    /// A section that both hosts do not have, because a program is not installed.
    Drop(&'static str),
    /// In the plan.
    Plan(fn(&mut Plan)),
    /// The head is not reached.
    Unreached,
    /// The head's clock, and its bound.
    Clock(f64, f64),
    /// How the transfer from the head ended.
    Sent(fn() -> Known<Moved>),
    /// The head's GPUs are two pairs on two NUMA nodes, joined by PCIe.
    HeadPairs,
    /// One host instead of two.
    OneHost,
    /// An emulated engine on this machine instead of it all.
    Emulated,
}
use Change::{
    Client, Clock, Drop, Emulated, Head, HeadPairs, OneHost, Plan as InPlan, Sent as Sends,
    Unreached as Gone, Worker,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Pass,
    Fail,
    Skip,
}
use Ends::{Fail, Pass, Skip};

/// Id, beginning of what the check asks, what is changed, how it ends, words of what it says.
type Case = (&'static str, &'static str, &'static [Change], Ends, &'static str);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("D01", "this version", &[InPlan(|p| p.deployments[0].cannot_run = None)], Pass, "3 processes on platform ssh"),
    ("D01", "this version", &[InPlan(|p| p.deployments[0].cannot_run = Some("no".into()))], Fail, "no"),
    ("D02", "GPUs", &[], Pass, "1 instance on 8 GPUs"),
    ("D02", "GPUs", &[InPlan(|p| p.deployments[0].instances[0].tp = 2)], Fail, "4 ranks and 8 GPUs"),
    ("D02", "GPUs", &[InPlan(|p| p.deployments[0].instances[0].place[1].host = "head".into())], Fail, "GPU 0 of head is taken twice"),
    ("D02", "GPUs", &[InPlan(|p| p.hosts[1].gpus = 2)], Fail, "worker has no GPU 2"),
    ("D02", "GPUs", &[InPlan(|p| p.deployments[0].instances[0].place.clear())], Skip, "places it"),
    ("D03", "tp", &[], Pass, "40 attention heads, 8 KV heads, tp 4"),
    ("D03", "tp", &[Head("\": 40", "\": 42")], Fail, "42 attention heads are not divided by tp = 4"),
    ("D03", "tp", &[Head("\": 8,", "\": 6,")], Fail, "6 KV heads"),
    ("D03", "tp", &[Drop("model_config")], Skip, "tool is not installed"),
    ("D03", "tp", &[Head("\"num_attention_heads\": 40, ", "")], Skip, "no num_attention_heads"),
    ("D04", "weights", &[], Pass, "61.0 GiB of weights over 8 GPUs"),
    ("D04", "weights", &[InPlan(|p| p.deployments[0].instances[0].tp = 1), InPlan(|p| p.deployments[0].instances[0].pp = 1), Head("32768000000 a", "99768000000 a")], Fail, "room for 73403 MiB"),
    ("D04", "weights", &[Drop("gpus")], Skip, "tool is not installed"),
    ("D05", "prompt", &[], Pass, "at most 640 tokens of 131072"),
    ("D05", "prompt", &[InPlan(|p| p.model.max_len = Some(600))], Fail, "640 tokens, the context 600"),
    ("D05", "prompt", &[InPlan(|p| p.deployments[0].processes[2].args.extend(["--max-num-batched-tokens=256".into(), "--no-enable-chunked-prefill".into()]))], Fail, "a step 256, and chunking is off"),
    ("D05", "prompt", &[Drop("model_config")], Skip, "tool is not installed"),
    ("D06", "load", &[], Pass, "1 point"),
    ("D06", "load", &[InPlan(|p| p.points[0].measure.requests = Some(20))], Fail, "20 requests for 16 users"),
    ("D06", "load", &[InPlan(|p| { p.points[0].mode = Mode::Burst; p.points[0].measure.requests = Some(16) })], Pass, "1 point"),
    ("D06", "load", &[InPlan(|p| p.points[0].level.concurrency = Some(65)), InPlan(|p| p.points[0].measure.requests = Some(900))], Fail, "65 users for 64 sequences"),
    
    ("D06", "load", &[InPlan(|p| p.points.clear())], Skip, "no point"),
    ("D10", "host", &[], Pass, "ssh gpu-head"),
    ("D10", "host", &[Gone], Fail, "no route"),
    ("D10", "data-plane", &[], Pass, "10.0.0.1 on eno1"),
    ("D10", "data-plane", &[Head("inet 10.0.0.1", "inet 10.0.0.9")], Fail, "10.0.0.1 is no address"),
    ("D10", "data-plane", &[Head("2: eno1", "2: eth7")], Fail, "10.0.0.1 is on eth7, not on eno1"),
    ("D10", "data-plane", &[InPlan(|p| p.hosts[0].addr = "127.0.0.1".into())], Pass, "127.0.0.1 on lo"),
    ("D10", "data-plane", &[Drop("addresses")], Skip, "tool is not installed"),
    ("D10", "data-plane", &[Gone], Skip, "was not reached (D10)"),
    ("D10", "data-plane", &[InPlan(|p| p.hosts[0].addr = "head.lan".into())], Skip, "a name"),
    ("D11", "host name", &[], Pass, "10.0.0.1"),
    ("D11", "host name", &[Head("10.0.0.1        STREAM head\n10.0.0.1        DGRAM", "127.0.1.1 STREAM")], Fail, "127.0.1.1"),
    ("D11", "host name", &[OneHost], Skip, "no deployment has another host"),
    ("D12", "ports", &[], Pass, "6379, 8003, 9003 free"),
    ("D12", "ports", &[Head("00000000:0016 00000000:0000 0A", "00000000:1F43 00000000:0000 0A")], Fail, "port 8003, needed by process dual/0/serve, is taken"),
    ("D12", "ports", &[Head("0100007F:1F90", "0100007F:1F43")], Fail, "port 8003"),
    ("D12", "ports", &[Emulated, Client("0100007F:1F90", "0200007F:49D4")], Pass, "18900, 18901 free"),
    ("D12", "ports", &[Emulated, Client("0100007F:1F90", "0100007F:49D4")], Fail, "port 18900, needed by process pair/0"),
    ("D12", "ports", &[Head("00000000:0016", "00000000:1F43"), Head("@@ gpus", "@@ holder 8003\nnginx (pid 77)\n@@ gpus")], Fail, "is taken by nginx (pid 77)"),
    ("D12", "ports", &[Drop("listeners")], Skip, "tool is not installed"),
    ("D12", "hosts", &[], Pass, "worker answers"),
    ("D12", "hosts", &[Head("@@ peer worker\nrefused", "@@ peer worker\nno answer within 3 s")], Fail, "worker: no answer within 3 s"),
    ("D12", "hosts", &[Drop("peer worker")], Skip, "tool is not installed"),
    ("D12", "any port", &[], Pass, "a port that worker chose is reached"),
    ("D12", "any port", &[Sends(|| Ok(Moved::Not("timed out".into())))], Fail, "a port that worker chose: timed out"),
    ("D12", "any port", &[Sends(|| Err(Unknown::because("neither python3 nor perl runs there")))], Skip, "neither python3 nor perl"),
    ("D13", "speed", &[], Pass, "to worker 94.0 Gbit/s by one socket, round trip 90.0 us"),
    ("D13", "speed", &[Sends(|| Ok(Moved::Not("timed out".into())))], Skip, "nothing got to worker: timed out"),
    ("D13", "link", &[], Pass, "eno1 up, MTU 9000, 100000 Mbit/s, round trip from here 200 us"),
    ("D13", "link", &[Drop("links")], Skip, "tool is not installed"),
    ("D13", "link", &[Head("eno1\t9000", "eth9\t9000")], Skip, "no interface eno1"),
    ("D13", "MTU", &[], Pass, "head 9000, worker 9000"),
    ("D13", "MTU", &[Worker("eno1\t9000", "eno1\t1500")], Fail, "worker 1500"),
    ("D13", "MTU", &[OneHost], Skip, "fewer than two hosts"),
    ("D14", "InfiniBand", &[], Pass, "mlx5_0/1 4: ACTIVE, 400 Gb/sec (4X NDR), GID 3 RoCE v2"),
    ("D14", "InfiniBand", &[InPlan(ib_off)], Fail, "NCCL_IB_DISABLE=1"),
    ("D14", "InfiniBand", &[InPlan(ib_off), Head("4: ACTIVE", "1: DOWN")], Pass, "1: DOWN"),
    ("D14", "InfiniBand", &[Head("mlx5_0\t1\t4: ACTIVE\t400 Gb/sec (4X NDR)\tRoCE v2\n", "")], Skip, "no InfiniBand"),
    ("D15", "no proxy", &[], Pass, "no proxy is set"),
    ("D15", "no proxy", &[Head("HF_TOKEN", "HF_TOKEN\nhttp_proxy")], Fail, "no_proxy does not name 10.0.0.1"),
    ("D15", "no proxy", &[Head("HF_TOKEN", "http_proxy"), Head("@@ no_proxy\n", "@@ no_proxy\nlocalhost, 10.0.0.1")], Pass, "names the data plane"),
    ("D15", "no proxy", &[Gone], Skip, "was not reached"),
    ("D20", "GPUs of the plan", &[], Pass, "4 x NVIDIA H100 80GB HBM3, driver 550.54.15"),
    ("D20", "GPUs of the plan", &[Head("\n3, NVIDIA", "\n7, NVIDIA")], Fail, "the plan uses GPU 3"),
    ("D20", "GPUs of the plan", &[Drop("gpus")], Skip, "tool is not installed"),
    ("D20", "GPUs of the plan", &[Emulated], Skip, "engine emulated computes on no GPU"),
    ("D20", "MIG", &[], Pass, "ECC Enabled"),
    ("D20", "MIG", &[Head("Disabled, Enabled, Enabled", "Enabled, Enabled, Disabled")], Fail, "GPU 0 is cut by MIG; GPU 0 has persistence mode off"),
    ("D20", "MIG", &[Drop("gpu_modes")], Skip, "tells neither mode"),
    ("D20", "GPUs and drivers", &[], Pass, "head, worker: NVIDIA H100"),
    ("D20", "GPUs and drivers", &[Worker("550.54.15", "535.1")], Fail, "worker: NVIDIA H100 80GB HBM3, driver 535.1"),
    ("D20", "GPUs and drivers", &[OneHost], Skip, "fewer than two hosts"),
    ("D21", "GPUs are free", &[], Pass, "memory free, no other process"),
    ("D21", "GPUs are free", &[Head("81007 MiB", "40000 MiB")], Fail, "GPU 0 has 49 % of its memory free"),
    ("D21", "GPUs are free", &[Head("used_gpu_memory [MiB]", "used_gpu_memory [MiB]\n4321, GPU-2, python, 900 MiB")], Fail, "python (pid 4321) computes there"),
    ("D21", "GPUs are free", &[Head("used_gpu_memory [MiB]", "used_gpu_memory [MiB]\n4321, GPU-z, python, 900 MiB")], Pass, "no other process"),
    ("D21", "GPUs are free", &[Head("81007 MiB", "[Unknown Error]")], Skip, "tells no free memory"),
    ("D22", "NVLink", &[], Pass, "NV18"),
    ("D22", "NVLink", &[Head("GPU0\t X \tNV18", "GPU0\t X \tSYS")], Fail, "SYS between GPUs 0-1"),
    ("D22", "NVLink", &[Drop("gpu_topology")], Skip, "tool is not installed"),
    ("D22", "NVLink", &[InPlan(|p| { p.deployments[0].instances[0].tp = 1; p.deployments[0].instances[0].pp = 8 })], Skip, "tp = 1"),
    ("D23", "no power cap", &[], Pass, "nothing throttles"),
    ("D23", "no power cap", &[Head("700.00 W, 700.00 W", "400.00 W, 700.00 W")], Fail, "GPU 0 is capped at 400 W of 700 W"),
    ("D23", "no power cap", &[Head("2, Not Active, Not", "2, Active, Not")], Fail, "GPU 2: hw_slowdown is active"),
    ("D23", "no power cap", &[Head("1980 MHz, 1980 MHz", "1980 MHz, 900 MHz")], Fail, "clock set to 900 MHz"),
    ("D23", "no power cap", &[Drop("gpu_modes"), Drop("gpu_clocks")], Pass, "power limits not told"),
    ("D23", "no power cap", &[Drop("gpu_throttle")], Skip, "tool is not installed"),
    ("D24", "GPUs of a group", &[], Pass, "reads between all"),
    ("D24", "GPUs of a group", &[Head("GPU0\tX\tOK", "GPU0\tX\tCNS")], Fail, "CNS between GPUs 0-1"),
    ("D24", "no ACS", &[], Pass, "NVLink joins each group"),
    ("D24", "no ACS", &[HeadPairs], Pass, "none of 2 bridges redirects"),
    ("D24", "no ACS", &[HeadPairs, Head("ReqRedir-", "ReqRedir+")], Fail, "1 of 2 bridges redirect (00:01.0)"),
    ("D24", "no ACS", &[HeadPairs, Drop("acs")], Skip, "tool is not installed"),
    ("D24", "GPUs of a group", &[Drop("gpu_p2p")], Skip, "tool is not installed"),
    ("D25", "NVSwitch", &[], Pass, "Completed"),
    ("D25", "NVSwitch", &[Head("1, Completed", "1, In Progress")], Fail, "GPU 1: In Progress"),
    ("D25", "NVSwitch", &[Head("Completed, Success", "[N/A], [N/A]"), Head("1, Completed", "1, N/A"), Head("2, Completed", "2, N/A"), Head("3, Completed", "3, N/A")], Skip, "no NVSwitch"),
    ("D30", "ray and python", &[], Pass, "python 3.12.3, ray 2.50.0"),
    ("D30", "ray and python", &[Worker("ray 2.50.0", "ray 2.49.1")], Fail, "ray: 2.49.1 on worker and 2.50.0 on head"),
    ("D30", "ray and python", &[Drop("versions vllm")], Skip, "tool is not installed"),
    ("D30", "versions", &[], Pass, "vllm 0.11.0"),
    ("D30", "versions", &[Worker("torch 2.8.0", "torch 2.7.1")], Fail, "torch: 2.7.1 on worker"),
    ("D30", "versions", &[InPlan(|p| p.deployments[0].launcher = Some(RankLauncher::Mp)), Worker("python 3.12.3", "python 3.12.9")], Fail, "python: 3.12.3 on head and 3.12.9 on worker"),
    ("D30", "ray and python", &[InPlan(|p| p.deployments[0].launcher = Some(RankLauncher::Mp))], Skip, "no Ray joins"),
    ("D30", "versions", &[OneHost], Skip, "fewer than two hosts"),
    ("D31", "programs", &[], Pass, "/opt/venv/bin/ray, /opt/venv/bin/vllm"),
    ("D31", "programs", &[Head("/opt/venv/bin/vllm", "@- not on PATH")], Fail, "not found: vllm"),
    ("D31", "programs", &[Head("/opt/venv/bin/vllm", "@- not on PATH"), Head("/opt/venv/bin/ray", "@- not on PATH"), InPlan(|p| p.deployments[0].optional = true)], Skip, "of optional deployments"),
    ("D31", "programs", &[Head("/opt/venv/bin/ray", "@- not on PATH"), InPlan(|p| p.deployments[0].optional = true)], Pass, "/opt/venv/bin/vllm; of optional deployments, not found: ray"),
    ("D31", "programs", &[Emulated], Skip, "no program but scalebeam"),
    ("D32", "model is there", &[], Pass, "snapshots/abc"),
    ("D32", "model is there", &[Drop("model"), InPlan(|p| p.model.id = "/models/32b".into())], Fail, "tool is not installed"),
    ("D32", "model is there", &[Drop("model")], Skip, "has to load it from the hub"),
    ("D32", "model is equal", &[], Pass, "same config.json, model.safetensors.index.json"),
    ("D32", "model is equal", &[Worker("bb22", "cc33")], Fail, "files differ between head and worker"),
    ("D32", "model is equal", &[Drop("model")], Skip, "tool is not installed"),
    ("D32", "token", &[], Pass, "HF_TOKEN is set"),
    ("D32", "token", &[Client("HF_TOKEN", "")], Pass, "HF_TOKEN is not set"),
    ("D32", "token", &[InPlan(|p| p.model.id = "/models/32b".into())], Skip, "no hub is asked"),
    ("D33", "space", &[], Pass, "the model is there, 900 GiB left"),
    ("D33", "space", &[Drop("model"), Head("943718400", "1048576")], Fail, "1.00 GiB in the model cache"),
    ("D33", "space", &[Drop("disk")], Skip, "tool is not installed"),
    ("D33", "weights are", &[], Pass, "61.0 GiB of weights take 31.2 s at 2000 MiB/s"),
    ("D33", "weights are", &[Head("copied, 0.128 s", "copied, 10 s or more")], Fail, "take 40.7 min at 25.6 MiB/s, and the deployment has 30.0 min to come up"),
    ("D33", "weights are", &[Drop("disk_read")], Skip, "tool is not installed"),
    ("D33", "model is not", &[], Pass, "ext2/ext3"),
    ("D33", "model is not", &[Head("ext2/ext3", "nfs")], Fail, "on nfs"),
    ("D33", "model is not", &[Drop("disk_kind")], Skip, "tool is not installed"),
    ("D40", "shared memory", &[], Pass, "64.0 GiB"),
    ("D40", "shared memory", &[Head("67108864 0 67108864", "65536 0 65536")], Fail, "0.062 GiB"),
    ("D40", "shared memory", &[Drop("shm")], Skip, "tool is not installed"),
    ("D40", "ample", &[], Pass, "8.00 GiB wanted"),
    ("D40", "ample", &[Head("67108864 0 67108864", "67108864 0 4194304")], Fail, "4.00 GiB free"),
    ("D40", "ample", &[Drop("shm")], Skip, "tool is not installed"),
    ("D40", "locked", &[], Pass, "unlimited"),
    ("D40", "locked", &[Head("locked_memory unlimited", "locked_memory 64")], Fail, "64 KiB"),
    ("D40", "locked", &[Head("mlx5_0\t1\t4: ACTIVE\t400 Gb/sec (4X NDR)\tRoCE v2\n", "")], Skip, "nothing has to be locked"),
    ("D40", "open files", &[], Pass, "1048576"),
    ("D40", "open files", &[Head("1048576", "1024")], Fail, "1024 files"),
    ("D40", "open files", &[Drop("limits")], Skip, "tool is not installed"),
    ("D40", "huge pages", &[], Pass, "0 of 0 free"),
    ("D40", "huge pages", &[Drop("memory")], Skip, "tool is not installed"),
    ("D40", "memory limit", &[], Pass, "no limit"),
    ("D40", "memory limit", &[Head("@@ cgroup_memory\nmax", "@@ cgroup_memory\n68719476736")], Pass, "64.0 GiB"),
    ("D40", "memory limit", &[Drop("cgroup_memory")], Skip, "tool is not installed"),
    ("D41", "a CPU", &[], Pass, "96 CPUs for 4 GPUs"),
    ("D41", "a CPU", &[Head("@@ cpus\n96", "@@ cpus\n4")], Fail, "4 CPUs for 4 GPUs, 6 wanted"),
    ("D41", "GPUs of a group", &[], Pass, "GPUs 0, 1, 2, 3 on 0"),
    ("D41", "GPUs of a group", &[HeadPairs], Pass, "GPUs 0, 1, 2, 3 on 0, 1"),
    ("D41", "GPUs of a group", &[HeadPairs, InPlan(|p| { p.deployments[0].instances[0].tp = 2; p.deployments[0].instances[0].place[0].ids = vec![1, 2] })], Fail, "GPUs 1, 2 on 0, 1"),
    ("D41", "GPUs of a group", &[Drop("gpu_topology")], Skip, "tool is not installed"),
    ("D41", "a CPU", &[Drop("cpus")], Skip, "tool is not installed"),
    ("D42", "clock", &[], Pass, "+0.4 ms, known to +-0.2 ms"),
    ("D42", "clock", &[Clock(-73.0, 2.0)], Fail, "-73.0 ms, known to +-2.0 ms"),
    ("D42", "clock", &[Clock(0.0, 80.0)], Skip, "too long to tell"),
    ("D42", "clock", &[Clock(49.0, 2.0)], Skip, "too near to the limit"),
    ("D50", "etcd", &[], Skip, "needs a running deployment"),
    ("D51", "Ray", &[], Skip, "needs a running deployment"),
    ("D52", "entry", &[], Skip, "needs a running deployment"),
    ("D53", "tokens", &[], Skip, "needs a running deployment"),
    ("D54", "answer", &[], Skip, "needs a running deployment"),
    ("D55", "prefix", &[], Skip, "needs a running deployment"),
    ("D56", "KV", &[], Skip, "needs a running deployment"),
    ("D60", "Kubernetes lets", &[InPlan(on_kuberay)], Pass, "context prod: may create rayservices.ray.io, delete"),
    ("D60", "Kubernetes lets", &[InPlan(on_kuberay), InPlan(in_bench)], Pass, "context lab, namespace bench: may"),
    ("D60", "Kubernetes lets", &[InPlan(on_kuberay), Client("delete rayservices.ray.io: yes", "delete rayservices.ray.io: no - no RBAC policy matched")], Fail, "may not delete rayservices.ray.io"),
    ("D60", "Kubernetes lets", &[InPlan(on_kuberay), Client("@@ kube_may dual\n", "@@ kube_may dual\n@- connection refused\n")], Skip, "connection refused"),
    ("D60", "Kubernetes lets", &[InPlan(on_kuberay), Client("@@ kube_context dual\nprod", "@@ kube_context dual\nnot set\n@- kubectl ended with status 1")], Pass, "the cluster around here: may"),
    ("D60", "agents may", &[InPlan(on_kuberay)], Pass, "may create pods/exec"),
    ("D60", "agents may", &[InPlan(on_kuberay), Client("@@ kube_exec dual\nyes", "@@ kube_exec dual\nno - no RBAC policy matched")], Fail, "nothing will be read of pods"),
    ("D60", "agents may", &[InPlan(on_kuberay), Client("@@ kube_exec dual\nyes", "@@ kube_exec dual\n@- connection refused")], Skip, "connection refused"),
    ("D60", "Kubernetes knows", &[InPlan(on_kuberay)], Pass, "rayservices.ray.io"),
    ("D60", "Kubernetes knows", &[InPlan(on_kuberay), Client("k8s.io/rayservices.ray.io", "k8s.io/other.io")], Fail, "no rayservices.ray.io"),
    ("D60", "Kubernetes knows", &[InPlan(|p| p.deployments[0].platform = Platform::K8s)], Skip, "no resource of an operator"),
    ("D60", "Kubernetes has", &[InPlan(on_kuberay)], Pass, "16 GPUs on 2 schedulable nodes, 8 asked for"),
    ("D60", "Kubernetes has", &[InPlan(on_kuberay), Client("@@ kube_gpus dual\n8\t\n\t\n8\t", "@@ kube_gpus dual\n4\t")], Fail, "4 GPUs on 1 schedulable node, 8"),
    ("D60", "Kubernetes has", &[InPlan(on_kuberay), Client("8\t\n\t\n8\t", "2\t\n2\t\n2\t\n2\t")], Fail, "a pod wants 4, and no node has more than 2"),
    ("D60", "Kubernetes has", &[InPlan(on_kuberay), Client("@@ kube_gpus dual", "@@ kube_gpus dual\n@- kubectl ended with status 1")], Skip, "kubectl ended with status 1"),
    ("D60", "the quota", &[InPlan(on_kuberay)], Pass, "quota small leaves 12 GPUs, 8 asked for"),
    ("D60", "the quota", &[InPlan(on_kuberay), Client("small\t16\t4", "small\t16\t9")], Fail, "quota small leaves 7 GPUs"),
    ("D60", "the quota", &[InPlan(on_kuberay), Client("small\t16\t4", "small\t\t")], Pass, "no quota for GPUs"),
    ("D60", "the quota", &[InPlan(on_kuberay), Client("@@ kube_quota dual", "@@ kube_quota dual\n@- forbidden")], Skip, "forbidden"),
    ("D60", "Secrets and", &[InPlan(on_kuberay)], Skip, "no Secret and no volume claim"),
    ("D60", "Secrets and", &[InPlan(on_kuberay), InPlan(named_objects)], Pass, "secret hf, pvc models Bound ReadWriteMany"),
    ("D60", "Secrets and", &[InPlan(on_kuberay), InPlan(named_objects), Client("hf   Opaque   1   5d", "Error from server (NotFound): secrets \"hf\" not found\n@- kubectl ended with status 1")], Fail, "no secret hf"),
    ("D60", "Secrets and", &[InPlan(on_kuberay), InPlan(named_objects), Client("Bound ReadWriteMany", "Lost ReadWriteOnce")], Fail, "pvc models is lost"),
    ("D60", "Secrets and", &[InPlan(on_kuberay), InPlan(named_objects), Client("hf   Opaque   1   5d", "Error from server (Forbidden)\n@- kubectl ended with status 1")], Skip, "Forbidden"),
    ("D61", "Slurm has", &[InPlan(on_slurm)], Pass, "partition gpu: 4 nodes with 4 GPUs or more, 2 nodes asked for"),
    ("D61", "Slurm has", &[InPlan(on_slurm), Client("|4|idle", "|4|down*")], Fail, "partition gpu: no node with 4 GPUs"),
    ("D61", "Slurm has", &[InPlan(on_slurm), InPlan(|p| param(p, "partition", "cpu"))], Fail, "partition cpu: no node with 4 GPUs"),
    ("D61", "Slurm has", &[InPlan(on_slurm), InPlan(|p| param(p, "partition", "gpux"))], Fail, "there is no partition gpux; Slurm has cpu, gpu"),
    ("D61", "Slurm has", &[InPlan(on_slurm), Client("gpu*|up", "gpu*|down")], Fail, "partition gpu is down"),
    ("D61", "Slurm has", &[InPlan(on_slurm), Client("gpu*|up", "gpu|up")], Fail, "none is default"),
    ("D61", "Slurm has", &[InPlan(on_slurm), Client("@@ slurm\n", "@@ slurm\n@- sinfo is not installed\n")], Skip, "sinfo is not installed"),
    ("D61", "the partition", &[InPlan(on_slurm)], Pass, "may take 2.00 h, the partition's limit is 1-00:00:00"),
    ("D61", "the partition", &[InPlan(on_slurm), InPlan(|p| param(p, "time", "25h"))], Fail, "may take 25.0 h"),
    ("D61", "the partition", &[InPlan(on_slurm), InPlan(|p| param(p, "time", "25h")), InPlan(|p| param(p, "partition", "cpu"))], Pass, "infinite"),
    ("D61", "the partition", &[InPlan(on_slurm), InPlan(|p| param(p, "partition", "gpux"))], Skip, "not there"),
    ("D61", "Slurm knows", &[InPlan(on_slurm)], Skip, "no account and no qos"),
    ("D61", "Slurm knows", &[InPlan(on_slurm), InPlan(|p| param(p, "account", "lab")), InPlan(|p| param(p, "qos", "long"))], Pass, "may use lab, long"),
    ("D61", "Slurm knows", &[InPlan(on_slurm), InPlan(|p| param(p, "account", "labb"))], Fail, "account labb is not among those of this user (lab, other)"),
    ("D61", "Slurm knows", &[InPlan(on_slurm), InPlan(|p| param(p, "account", "lab")), Client("@@ slurm_accounts", "@@ slurm_accounts\n@- sacctmgr ended with status 1")], Skip, "sacctmgr ended"),
    ("D62", "Modal", &[InPlan(on_modal)], Pass, "token is valid"),
    ("D62", "Modal", &[InPlan(on_modal), Client("@@ modal\nUpdated client.\n[]", "@@ modal\nToken missing\n@- modal ended with status 1")], Fail, "Token missing"),
    ("D62", "Modal", &[InPlan(on_modal), Client("@@ modal\n", "@@ modal\n@- modal is not installed\n")], Skip, "modal is not installed"),
    ("D62", "Secrets are", &[InPlan(on_modal)], Skip, "no Secret"),
    ("D62", "Secrets are", &[InPlan(on_modal), InPlan(|p| secrets(p, &["hf"]))], Pass, "hf"),
    ("D62", "Secrets are", &[InPlan(on_modal), InPlan(|p| secrets(p, &["hf", "api"]))], Fail, "there is no Secret api"),
    ("D62", "Secrets are", &[InPlan(on_modal), InPlan(|p| secrets(p, &["hf"])), Client("@@ modal\n", "@@ modal\n@- modal is not installed\n")], Skip, "modal is not installed"),
    ("D62", "Volume", &[InPlan(on_modal)], Skip, "no Volume"),
    ("D62", "Volume", &[InPlan(on_modal), InPlan(|p| param(p, "hf_cache", "cache"))], Pass, "Volume cache is there"),
    ("D62", "Volume", &[InPlan(on_modal), InPlan(|p| param(p, "hf_cache", "new"))], Pass, "Volume new is created"),
    ("D62", "no other", &[InPlan(on_modal)], Pass, "no other app of it lives"),
    ("D62", "no other", &[InPlan(on_modal), Client("client.\n[]", "client.\n[{\"description\":\"two-nodes-dual\",\"state\":\"deployed\",\"tasks\":\"2\"}]")], Fail, "app two-nodes-dual is deployed, 2 containers"),
    ("D62", "no other", &[InPlan(on_modal), Client("client.\n[]", "client.\n[{\"description\":\"dual-0123456789ab\",\"state\":\"stopped\"},{\"description\":\"dual-sister\",\"state\":\"deployed\"}]")], Pass, "no other app of it lives"),
    ("D62", "no other", &[InPlan(on_modal), Client("client.\n[]", "client.")], Skip, "modal says no table"),
    ("D70", "files", &[], Pass, "16 requests in flight, 28232 local ports"),
    ("D70", "files", &[Client("1048576", "64")], Fail, "64 files may be open"),
    ("D70", "files", &[Client("32768\t60999", "40000\t40009")], Fail, "10 local ports for 16"),
    ("D70", "files", &[InPlan(|p| p.points.clear())], Skip, "no load says"),
    ("D80", "price", &[], Pass, "8 GPUs at 32.0 an hour"),
    ("D80", "price", &[InPlan(|p| { p.deployments[0].price_per_hour = None; p.deployments[0].stop.always = false })], Pass, "no price in the file; left running after a failure"),
];

fn ib_off(plan: &mut Plan) {
    let off = || ("NCCL_IB_DISABLE".to_owned(), EnvValue::Set("1".to_owned()));
    plan.deployments[0].processes.iter_mut().for_each(|p| p.env.extend([off()]));
}

fn on_kuberay(plan: &mut Plan) {
    plan.deployments[0].platform = Platform::Kuberay;
}

fn on_slurm(plan: &mut Plan) {
    plan.deployments[0].platform = Platform::Slurm;
}

fn on_modal(plan: &mut Plan) {
    plan.deployments[0].platform = Platform::Modal;
}

fn param(plan: &mut Plan, name: &str, value: &str) {
    plan.deployments[0].params.insert(name.to_owned(), ParamValue::Text(value.to_owned()));
}

fn in_bench(plan: &mut Plan) {
    param(plan, "context", "lab");
    param(plan, "namespace", "bench");
}

fn named_objects(plan: &mut Plan) {
    param(plan, "hf_secret", "hf");
    param(plan, "model_pvc", "models");
}

fn secrets(plan: &mut Plan, names: &[&str]) {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    plan.deployments[0].params.insert("secrets".to_owned(), ParamValue::List(names));
}

/// The second host has no process any more.
fn one_host(plan: &mut Plan) {
    plan.deployments[0].processes.retain(|p| p.host == "head");
}

/// `text` with `from` in it replaced by `to`, once; a case that changes nothing is a mistake.
#[track_caller]
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "'{from}' is not in what the host says");
    text.replacen(from, to, 1)
}

/// Without what a section says.
#[track_caller]
fn dropped(text: &str, section: &str) -> String {
    let mark = format!("@@ {section}\n");
    let Some((before, after)) = text.split_once(&mark) else { return text.to_owned() };
    let rest = after.find("@@ ").map_or("", |at| &after[at..]);
    format!("{before}{mark}@- tool is not installed\n{rest}")
}

/// What every machine says, and the plan.
struct Scene {
    plan: Plan,
    client: String,
    head: String,
    worker: String,
    unreached: bool,
    clock: ClockOffset,
    moved: Known<Moved>,
}

impl Scene {
    fn of(changes: &[Change]) -> Self {
        let base = healthy();
        let mut scene = Self {
            plan: two_nodes(),
            client: base.clone(),
            head: replaced(&base, "@@ hub", "@@ peer worker\nrefused\n@@ hub"),
            worker: replaced(
                &base.replace("10.0.0.1", "10.0.0.2"),
                "@@ hub",
                "@@ peer head\nopen\n@@ hub",
            ),
            unreached: false,
            clock: ClockOffset { offset_ms: 0.4, bound_ms: 0.2 },
            moved: Ok(Moved::At(Speed { rtt: Nanos::from_micros(90), bytes_per_s: 11.75e9 })),
        };
        changes.iter().for_each(|change| scene.apply(change));
        scene
    }

    fn apply(&mut self, change: &Change) {
        match *change {
            Head(from, to) => self.head = replaced(&self.head, from, to),
            Worker(from, to) => self.worker = replaced(&self.worker, from, to),
            Client(from, to) => self.client = replaced(&self.client, from, to),
            Drop(section) => {
                self.head = dropped(&self.head, section);
                self.worker = dropped(&self.worker, section);
            }
            InPlan(change) => change(&mut self.plan),
            Gone => self.unreached = true,
            Sends(ended) => self.moved = ended(),
            Clock(offset_ms, bound_ms) => self.clock = ClockOffset { offset_ms, bound_ms },
            HeadPairs => {
                let topology = |text: &str| format!("@@ gpu_topology\n{text}");
                let (from, to) = (topology(H100_TOPOLOGY), topology(A100_TOPOLOGY));
                self.head = replaced(&self.head, &from, &to);
            }
            OneHost => one_host(&mut self.plan),
            Emulated => self.plan = emulated(),
        }
    }

    fn report(&self) -> DoctorReport {
        let deployments: Vec<_> = self.plan.deployments.iter().collect();
        let hosts = machines(&self.plan, &deployments).into_iter().map(|machine| {
            let (facts, clock): (_, Known<ClockOffset>) = match machine.label.as_str() {
                "head" if self.unreached => (
                    Err(Unreached { said: "no route".into(), hint: "look".into() }),
                    Err(Unknown::because("no route")),
                ),
                "head" => (Ok(Facts::read(&self.head)), Ok(self.clock)),
                "worker" => (Ok(Facts::read(&self.worker)), Ok(self.clock)),
                _ => (Ok(Facts::read(&self.client)), Err(Unknown::because("own clock"))),
            };
            let sent = match machine.label.as_str() {
                "head" => Some(Sent { to: "worker".into(), moved: self.moved.clone() }),
                _ => None,
            };
            let rtt = Ok(Nanos::from_micros(200));
            Host { machine, facts, clock, rtt, sent, managed: Vec::new() }
        });
        report(&Seen { plan: &self.plan, hosts: hosts.collect(), deployments: deployments.clone() })
    }
}

/// How the check ended, at the first place that it was asked at.
fn ended(report: &DoctorReport, id: &str, asks: &str) -> (Ends, String) {
    let found = report.findings.iter().find(|f| f.id == id && f.check.starts_with(asks));
    match &found.unwrap_or_else(|| panic!("{id} {asks} was not asked")).outcome {
        Outcome::Pass { seen } => (Pass, seen.clone()),
        Outcome::Fail { seen, hint } => {
            assert!(!hint.is_empty(), "{id} {asks} has no hint");
            (Fail, seen.clone())
        }
        Outcome::Skipped { reason } => (Skip, reason.clone()),
    }
}

#[test]
fn every_check_says_what_it_should() {
    let mut wrong = Vec::new();
    for (id, asks, changes, ends, words) in CASES {
        let (got, said) = ended(&Scene::of(changes).report(), id, asks);
        if got != *ends || !said.contains(words) {
            wrong.push(format!("{id} {asks}: {ends:?} '{words}' expected, {got:?} '{said}'"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// How a check can end at all.
fn possible(check: &Check) -> Vec<Ends> {
    match (check.id, check.asks) {
        ("D50" | "D51" | "D52" | "D53" | "D54" | "D55" | "D56", _) => vec![Skip],
        ("D01", _) | ("D10", "host is reached") => vec![Pass, Fail],
        ("D80", _) => vec![Pass],
        _ if check.severity == Severity::Records => vec![Pass, Skip],
        _ => vec![Pass, Fail, Skip],
    }
}

#[test]
fn every_check_has_a_case_for_each_way_to_end() {
    for check in CHECKS {
        for ends in possible(check) {
            let has = |c: &&Case| c.0 == check.id && check.asks.starts_with(c.1) && c.3 == ends;
            assert!(CASES.iter().any(|c| has(&c)), "{} '{}' never {ends:?}", check.id, check.asks);
        }
    }
}

#[test]
fn nothing_fails_where_nothing_is_wrong() {
    let report = Scene::of(&[InPlan(|p| p.deployments[0].cannot_run = None)]).report();
    let failed: Vec<_> =
        report.findings.iter().filter(|f| matches!(f.outcome, Outcome::Fail { .. })).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_host_that_says_nothing_passes_nothing_that_was_asked_of_it() {
    let mut scene = Scene::of(&[]);
    for said in [&mut scene.client, &mut scene.head, &mut scene.worker] {
        said.clear();
    }
    scene.moved = Err(Unknown::because("the host said nothing"));
    let report = scene.report();
    let asked = |f: &&scalebeam_model::doctor::Finding| f.host.is_some();
    let passed: Vec<&str> = report
        .findings
        .iter()
        .filter(asked)
        .filter(|f| matches!(f.outcome, Outcome::Pass { .. }))
        .map(|f| f.check.as_str())
        .collect();
    // The channel itself was there.
    let known = ["host is reached", "clock within 50 ms of this machine's"].map(|c| [c, c]);
    let known = known.concat();
    assert_eq!(passed, known);
}

#[test]
fn checks_are_in_order_and_say_different_things() {
    for pair in CHECKS.windows(2) {
        assert!(pair[0].id <= pair[1].id, "{} before {}", pair[0].id, pair[1].id);
        assert!(pair[0].id != pair[1].id || pair[0].asks != pair[1].asks, "{} twice", pair[0].asks);
        assert!(pair[0].asks.len() <= 40, "'{}' is too long for a table", pair[0].asks);
    }
    let has = |look: fn(&Look) -> bool| CHECKS.iter().any(|c| look(&c.look));
    assert!(has(|l| matches!(l, Look::Host(_))) && has(|l| matches!(l, Look::On(..))));
}

#[test]
fn nodes_that_a_job_has_yet_to_get_are_asked_later_and_nothing_passes_meanwhile() {
    let plan = super::testing::planned_on_slurm("replicas = 2");
    let deployments: Vec<_> = plan.deployments.iter().collect();
    let machine = machines(&plan, &deployments).remove(0);
    let unknown = || Unknown::because("own clock");
    let (clock, rtt) = (Err(unknown()), Err(unknown()));
    let facts = Ok(Facts::read(""));
    let here = Host { machine, facts, clock, rtt, sent: None, managed: Vec::new() };
    let report = report(&Seen { plan: &plan, deployments, hosts: vec![here] });
    for id in ["D10", "D12", "D21", "D30", "D31", "D32", "D40", "D42"] {
        let mut findings = report.findings.iter().filter(|f| f.id == id).peekable();
        assert!(findings.peek().is_some(), "{id} is not told of");
        for finding in findings {
            let Outcome::Skipped { reason } = &finding.outcome else { panic!("{finding:?}") };
            let is_told =
                reason.contains("run and up ask this on each") || reason.contains("no Ray joins");
            assert!(is_told, "{id}: {reason}");
        }
    }
}
