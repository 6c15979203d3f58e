//! Every command line that a plan can hold, as snapshots, and the rules that every engine keeps.

use super::*;
use scalebeam_model::engine::{Given, Infra, find};
use scalebeam_model::plan::{DpBalance, HostGpus, InstancePlan, ModelPlan, RankLauncher, Role};
use std::fmt::Write;

/// A request, spelt as briefly as a file is.
struct Case {
    platform: Platform,
    hosts: BTreeMap<String, HostPlan>,
    model: ModelPlan,
    instance: InstancePlan,
    instances: u32,
    /// Other instances of the deployment.
    others: Vec<InstancePlan>,
    launcher: Option<RankLauncher>,
    args: Vec<String>,
    params: Params,
    infra: Option<Infra>,
    extra: Vec<u16>,
}

fn host(name: &str, addr: &str, ssh: bool) -> HostPlan {
    HostPlan {
        name: name.into(),
        addr: addr.into(),
        ssh: ssh.then(|| format!("gpu-{name}")),
        gpus: 8,
        gpu: Some("H100".into()),
        iface: ssh.then(|| "eno1".into()),
        labels: BTreeMap::new(),
    }
}

fn ids(text: &str) -> Vec<u32> {
    text.split(',').filter(|t| !t.is_empty()).map(|t| t.parse().unwrap()).collect()
}

impl Case {
    /// One instance on this machine.
    fn new(place: &[(&str, &str)]) -> Self {
        let hosts = [
            host("box", "127.0.0.1", false),
            host("n2", "127.0.0.2", false),
            host("n3", "127.0.0.3", false),
            host("head", "10.200.0.1", true),
            host("worker", "10.200.0.2", true),
        ];
        let place: Vec<HostGpus> =
            place.iter().map(|(h, g)| HostGpus { host: (*h).into(), ids: ids(g) }).collect();
        let used = |h: &HostPlan| place.iter().any(|p| p.host == h.name);
        Self {
            platform: Platform::Local,
            hosts: hosts.into_iter().filter(used).map(|h| (h.name.clone(), h)).collect(),
            model: ModelPlan {
                id: "org/Model-7B".into(),
                served: "model".into(),
                revision: None,
                tokenizer: None,
                dtype: None,
                max_len: None,
            },
            instance: InstancePlan {
                index: 0,
                role: Role::Aggregated,
                tp: 1,
                pp: 1,
                dp: 1,
                dp_balance: None,
                ep: None,
                place,
                port: 8000,
            },
            instances: 1,
            others: Vec::new(),
            launcher: None,
            args: Vec::new(),
            params: Params::new(),
            infra: None,
            extra: (9001..9017).collect(),
        }
    }

    fn ssh(mut self) -> Self {
        self.platform = Platform::Ssh;
        self
    }

    fn shape(mut self, tp: u32, pp: u32, dp: u32) -> Self {
        (self.instance.tp, self.instance.pp, self.instance.dp) = (tp, pp, dp);
        self
    }

    fn dp_balance(mut self, balance: DpBalance) -> Self {
        self.instance.dp_balance = Some(balance);
        self
    }

    fn role(mut self, role: Role) -> Self {
        self.instance.role = role;
        self
    }

    fn launcher(mut self, launcher: RankLauncher) -> Self {
        self.launcher = Some(launcher);
        self
    }

    fn args(mut self, args: &str) -> Self {
        self.args = args.split_whitespace().map(str::to_owned).collect();
        self
    }

    fn params(mut self, params: &str) -> Self {
        self.params = toml::from_str(params).unwrap();
        self
    }

    fn ask<T>(&self, ask: impl FnOnce(&LaunchRequest<'_>) -> T) -> T {
        let mut pools = vec![self.instance.clone()];
        pools.extend(self.others.iter().cloned());
        ask(&LaunchRequest {
            deployment: "d",
            platform: self.platform,
            model: &self.model,
            instance: &self.instance,
            instances: self.instances,
            pools: &pools,
            hosts: &self.hosts,
            launcher: self.launcher,
            args: &self.args,
            given: &vec![Given { args: &self.args, env: BTreeMap::new() }; pools.len()],
            params: &self.params,
            infra: self.infra.as_ref(),
            extra_ports: &self.extra,
        })
    }

    fn lines(&self, kind: EngineKind) -> String {
        let engine = find(engines(), kind).unwrap();
        let drafts = self.ask(|request| {
            let mut drafts = engine.infra_processes(request)?;
            drafts.extend(engine.processes(request)?);
            Ok::<_, String>(drafts)
        });
        drafts.map_or_else(|why| format!("refused: {why}\n"), |drafts| render(&drafts))
    }
}

fn render(drafts: &[ProcessDraft]) -> String {
    let mut out = String::new();
    for d in drafts {
        let _ = writeln!(out, "{} on {} (rank {}, gpus {:?})", d.what, d.host, d.rank, d.gpus);
        if let Some(gate) = &d.after {
            let _ = writeln!(out, "  after: {}", serde_json::to_string(gate).unwrap());
        }
        for (name, value) in &d.env {
            let EnvValue::Set(value) = value else { continue };
            let _ = writeln!(out, "  {name}={value}");
        }
        for p in &d.ports {
            let _ = writeln!(out, "  listens: {} {}:{}", p.name, p.addr, p.port);
        }
        for (name, text) in &d.files {
            let _ = writeln!(out, "  file {name}: {text}");
        }
        let _ = writeln!(out, "  {} {}", d.program, d.args.join(" "));
    }
    out
}

/// All of `cases` under their titles.
fn book(kind: EngineKind, cases: &[(&str, Case)]) -> String {
    cases.iter().map(|(title, case)| format!("# {title}\n{}\n", case.lines(kind))).collect()
}

#[test]
fn vllm() {
    let mut model = Case::new(&[("box", "0,1")]).shape(2, 1, 1);
    model.model.revision = Some("abc".into());
    model.model.dtype = Some("bfloat16".into());
    model.model.max_len = Some(3500);
    let mut wins = Case::new(&[("box", "0")]).args("--max-model-len 10000 --dtype=half");
    wins.model.dtype = Some("bfloat16".into());
    wins.model.max_len = Some(3500);
    let mut experts = Case::new(&[("box", "0,1,2,3,4,5,6,7")]).shape(2, 2, 2);
    experts.instance.ep = Some(4);
    let mut modal = Case::new(&[]).shape(4, 1, 1);
    modal.platform = Platform::Modal;
    let cpu = "bin = \"/opt/vllm/bin/vllm\"";
    let text = book(
        EngineKind::Vllm,
        &[
            ("one GPU of this machine", Case::new(&[("box", "0")])),
            ("what [model] says", model),
            ("the user's flags win", wins),
            ("pipeline, experts and data parallel on one host", experts),
            ("no GPU, a program of a venv", Case::new(&[("box", "")]).params(cpu)),
            ("one host over ssh", Case::new(&[("head", "0,1,2,3")]).ssh().shape(4, 1, 1)),
            (
                "two loopback hosts, mp",
                Case::new(&[("n2", "0"), ("n3", "0")]).shape(2, 1, 1).launcher(RankLauncher::Mp),
            ),
            (
                "two hosts, mp",
                Case::new(&[("head", "0,1,2,3"), ("worker", "0,1,2,3")])
                    .ssh()
                    .shape(4, 2, 1)
                    .launcher(RankLauncher::Mp),
            ),
            (
                "two hosts, ray (seed 1)",
                Case::new(&[("head", "0,1,2,3"), ("worker", "0,1,2,3")])
                    .ssh()
                    .shape(4, 2, 1)
                    .launcher(RankLauncher::Ray),
            ),
            (
                "data parallel over two hosts",
                Case::new(&[("head", "0,1,2,3"), ("worker", "0,1,2,3")])
                    .ssh()
                    .shape(2, 1, 4)
                    .launcher(RankLauncher::Mp),
            ),
            ("a server a host for its data-parallel ranks", ranks(DpBalance::Hybrid)),
            ("a server a data-parallel rank", ranks(DpBalance::External)),
            (
                "a server a data-parallel rank of this machine",
                Case::new(&[("box", "0,1")]).shape(1, 1, 2).dp_balance(DpBalance::External),
            ),
            ("a platform that chooses hosts (seed 4)", modal),
            (
                "a prefill pool over ssh",
                split(Case::new(&[("head", "0,1"), ("worker", "")]).ssh().shape(2, 1, 1)),
            ),
            (
                "two copies behind vllm-router",
                copies(Case::new(&[("box", "0")])).params("router = \"vllm-router\""),
            ),
            (
                "two copies behind sglang-router",
                copies(Case::new(&[("box", "0")]))
                    .params("router = \"sglang-router\"\nrouter_args = [\"--policy=cache_aware\", \"--retry-max-retries\", \"2\"]"),
            ),
            (
                "servers of data-parallel ranks behind sglang-router",
                routed(ranks(DpBalance::External)).params("router = \"sglang-router\""),
            ),
            (
                "one host that is a Ray cluster",
                Case::new(&[("n2", "0,1")]).shape(2, 1, 1).launcher(RankLauncher::Ray),
            ),
            (
                "a prefill pool on this machine behind vllm-router",
                split(Case::new(&[("box", "0")])).params(
                    "router = \"vllm-router\"\nrouter_bin = \"/opt/r/bin/vllm-router\"\n\
                     router_args = [\"--policy\", \"power_of_two\"]",
                ),
            ),
        ],
    );
    insta::assert_snapshot!(text);
}

/// Four data-parallel ranks of two GPUs on two hosts.
fn ranks(balance: DpBalance) -> Case {
    Case::new(&[("head", "0,1,2,3"), ("worker", "0,1,2,3")])
        .ssh()
        .shape(2, 1, 4)
        .launcher(RankLauncher::Mp)
        .dp_balance(balance)
}

/// An instance behind an entry on the port before its own.
fn routed(mut case: Case) -> Case {
    case.instance.port = 8001;
    case
}

/// The first of two like instances of a host.
fn copies(case: Case) -> Case {
    let mut case = routed(case);
    let mut second = case.instance.clone();
    (second.index, second.port) = (1, 8002);
    case.others.push(second);
    case
}

/// The prefill instance of a deployment whose decode instance is on the last host.
fn split(mut case: Case) -> Case {
    let mut decode = case.instance.clone();
    decode.place.drain(..decode.place.len() - 1);
    case.instance.place.truncate(1);
    case.instance.role = Role::Prefill;
    case.instance.port = 8001;
    (decode.index, decode.role, decode.port) = (1, Role::Decode, 8002);
    case.others.push(decode);
    case
}

#[test]
fn vllm_refusals() {
    let two = || Case::new(&[("n2", "0"), ("n3", "0")]).shape(2, 1, 1);
    let ray = Case::new(&[("box", "0,1")]).shape(2, 1, 1).launcher(RankLauncher::Ray);
    let (ours, sglang) = ("router = \"scalebeam\"", "router = \"sglang-router\"");
    let mut pods = Case::new(&[]).params(sglang);
    pods.platform = Platform::K8s;
    let text = book(
        EngineKind::Vllm,
        &[
            ("no launcher", two()),
            ("ray on an address that it replaces", ray),
            ("our own router before copies", copies(Case::new(&[("box", "0")])).params(ours)),
            ("sglang-router before pools", split(Case::new(&[("box", "0")])).params(sglang)),
            ("a router in a pod", pods),
            ("a pool without the other", Case::new(&[("box", "0")]).role(Role::Decode)),
            (
                "a router that nobody knows",
                split(Case::new(&[("box", "0")])).params("router = \"nginx\""),
            ),
            (
                "a program for our own router",
                split(Case::new(&[("box", "0")])).params("router_bin = \"/opt/r\""),
            ),
            (
                "a flag of a router that the shape decides",
                split(Case::new(&[("box", "0")])).params(
                    "router = \"vllm-router\"\nrouter_args = [\"--prefill\", \"http://x:1\"]",
                ),
            ),
            (
                "a rank of data parallel over hosts",
                Case::new(&[("n2", "0"), ("n3", "0")]).shape(2, 1, 2).launcher(RankLauncher::Mp),
            ),
            ("data-parallel ranks over Ray", ranks(DpBalance::Hybrid).launcher(RankLauncher::Ray)),
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn emulated() {
    let mut two_nodes =
        Case::new(&[("n2", "0,1"), ("n3", "0,1")]).shape(2, 2, 1).params("inter_node_gbps = 100");
    two_nodes.model.served = "org/Model-7B".into();
    two_nodes.model.max_len = Some(4096);
    let all = "gpu = \"A100\"\nmax_num_seqs = 64\nmax_num_batched_tokens = 2048\nmax_model_len = 8192\n\
               ttft = \"50ms\"\nitl = \"10ms\"\nslots = 4\nspeed = 2.5\nseed = 7\ntruth_log = \"t.jsonl\"";
    let text = book(
        EngineKind::Emulated,
        &[
            ("an emulated H100", Case::new(&[("box", "0")])),
            ("two emulated nodes", two_nodes),
            ("every parameter", Case::new(&[("box", "0")]).params(all)),
            ("dp", Case::new(&[("box", "0,1")]).shape(1, 1, 2)),
            ("a pool", Case::new(&[("box", "0")]).role(Role::Prefill)),
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn llama_cpp() {
    let mut long = Case::new(&[("box", "")]).params("threads = 2\nparallel = 4");
    long.model.max_len = Some(2048);
    let rpc = "rpc_workers = 2\nserver = \"/opt/llama/llama-server\"";
    let text = book(
        EngineKind::LlamaCpp,
        &[
            ("defaults", Case::new(&[("box", "")]).args("--no-cache-prompt")),
            ("context follows max_len", long),
            ("layers over two rpc workers", Case::new(&[("box", "")]).params(rpc)),
            ("two GPUs", Case::new(&[("box", "0,1")]).shape(2, 1, 1)),
            ("tp without GPUs", Case::new(&[("box", "")]).shape(2, 1, 1)),
            ("two hosts", Case::new(&[("n2", "0"), ("n3", "0")]).shape(2, 1, 1)),
            (
                "two copies behind sglang-router",
                copies(Case::new(&[("box", "")])).params("router = \"sglang-router\""),
            ),
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn sglang() {
    let two = || Case::new(&[("head", "0,1,2,3"), ("worker", "0,1,2,3")]).ssh().shape(8, 1, 1);
    let pools = |params: &str| {
        let mut case = Case::new(&[("n2", "0")]).role(Role::Prefill).params(params);
        case.instance.port = 30_001;
        let like = |index, role| InstancePlan {
            index,
            role,
            port: case.instance.port + u16::try_from(index).unwrap(),
            ..case.instance.clone()
        };
        case.others = vec![like(1, Role::Prefill), like(2, Role::Decode)];
        case.instances = 3;
        // Those right after the instances'.
        case.extra = (9049..9065).collect();
        case
    };
    let pool = |role| Case::new(&[("head", "0,1")]).ssh().shape(2, 1, 1).role(role);
    let text = book(
        EngineKind::Sglang,
        &[
            ("one host", Case::new(&[("head", "0,1")]).ssh().shape(2, 1, 1)),
            ("two hosts", two()),
            ("a prefill pool", pool(Role::Prefill)),
            ("a decode pool", pool(Role::Decode)),
            ("two prefill and one decode behind its router", pools("")),
            ("pools behind a router that does not know them", pools("router = \"vllm-router\"")),
            ("a Ray cluster", two().launcher(RankLauncher::Ray)),
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn lmdeploy() {
    let mut model =
        Case::new(&[("box", "0,1")]).shape(2, 1, 1).params("bin = \"/opt/lm/lmdeploy\"");
    model.model.revision = Some("abc".into());
    model.model.dtype = Some("bfloat16".into());
    model.model.max_len = Some(3500);
    let mut wins = Case::new(&[("box", "0")])
        .args("--session-len 10000 --model-name other --enable-prefix-caching");
    wins.model.max_len = Some(3500);
    let mut experts = Case::new(&[("box", "0,1,2,3")]).shape(4, 1, 1);
    experts.instance.ep = Some(4);
    let mut pods = Case::new(&[]).shape(4, 1, 1);
    pods.platform = Platform::K8s;
    let text = book(
        EngineKind::Lmdeploy,
        &[
            ("one GPU of this machine", Case::new(&[("box", "0")])),
            ("what [model] says, a program of a venv", model),
            ("the user's flags win", wins),
            ("experts", experts),
            ("one host over ssh", Case::new(&[("head", "0,1")]).ssh().shape(2, 1, 1)),
            ("a platform that chooses hosts", pods),
            ("pp", Case::new(&[("box", "0,1")]).shape(1, 2, 1)),
            ("dp", Case::new(&[("box", "0,1")]).shape(1, 1, 2)),
            ("two hosts", Case::new(&[("n2", "0"), ("n3", "0")]).shape(2, 1, 1)),
            ("a pool", Case::new(&[("box", "0")]).role(Role::Prefill)),
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn command() {
    let python = |args: &str| Case::new(&[("box", "")]).params("program = \"python3\"").args(args);
    let mut second =
        python("-m mine --bind {host}:{port} --name {served} {model} --log=/var/log/{index}");
    second.instance.index = 1;
    second.instance.port = 8001;
    let mut gpus = python("--tp {tp} --dp={dp} {pp}").shape(2, 1, 2);
    gpus.instance.place[0].ids = ids("0,1,2,3");
    let mut far = python("--bind {host} --port {port} --data {scratch}/x{run}").ssh();
    far.hosts = Case::new(&[("head", "")]).hosts;
    far.instance.place[0].host = "head".into();
    let mut pods = Case::new(&[]).params("program = \"x\"").args("--port {port} --data {scratch}");
    pods.platform = Platform::K8s;
    let text = book(
        EngineKind::Command,
        &[
            ("every word, the second of two", second),
            ("braces that are no word", python(r#"--set {"a":{"b":[]}} {} {X} {{port}} { {port"#)),
            ("GPUs of its place", gpus),
            ("over ssh", far),
            ("a word that is misspelt", python("--port {prot}")),
            ("a word that no file can hold", pods),
            ("no program", Case::new(&[("box", "")]).args("-m mine")),
            ("a pool", python("").role(Role::Decode)),
            ("two hosts", Case::new(&[("n2", ""), ("n3", "")]).params("program = \"x\"")),
        ],
    );
    insta::assert_snapshot!(text);
}

fn seed3(role: Role, place: &str, tp: u32) -> Case {
    let mut case = Case::new(&[("head", place), ("worker", "")]).ssh().shape(tp, 1, 1).role(role);
    case.instance.place.truncate(1);
    case.instance.port = 8081;
    case.infra = Some(Infra {
        host: "head".into(),
        etcd: Some(2379),
        nats: Some(4222),
        frontend: Some(8080),
    });
    case
}

#[test]
fn dynamo_vllm() {
    let args = "--max-num-seqs 2 --max-model-len 10000 --block-size 128";
    let mut one_host = Case::new(&[("box", "0")]);
    one_host.instance.port = 8001;
    let mut two_hosts = seed3(Role::Aggregated, "0,1", 2);
    two_hosts.instance.pp = 2;
    two_hosts.instance.place.push(HostGpus { host: "worker".into(), ids: ids("0,1") });
    let text = book(
        EngineKind::DynamoVllm,
        &[
            ("prefill (seed 3)", seed3(Role::Prefill, "0,1", 2).args(args)),
            ("decode (seed 3)", seed3(Role::Decode, "4,5,6,7", 4).args("--block-size 128")),
            ("one host, files instead of etcd", one_host),
            ("an instance over two hosts", two_hosts),
            (
                "an instance over two hosts without etcd",
                Case::new(&[("head", "0,1"), ("worker", "0,1")]).ssh().shape(2, 2, 1),
            ),
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn dynamo_sglang_and_mocker() {
    let mut text = book(
        EngineKind::DynamoSglang,
        &[("prefill", seed3(Role::Prefill, "0,1", 2)), ("decode", seed3(Role::Decode, "2,3", 2))],
    );
    let mut mocker = Case::new(&[("box", "0")]).params("router_mode = \"kv\"");
    mocker.instance.port = 8001;
    text += &book(
        EngineKind::DynamoMocker,
        &[
            ("mocker", mocker.args("--speedup-ratio 10")),
            ("mocker, prefill", seed3(Role::Prefill, "0", 1)),
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn ray_serve() {
    let seed2 = |place: &[(&str, &str)]| {
        let mut case = Case::new(place).shape(4, 1, 1).args("--max-num-seqs 32 --no-enable-x");
        case.platform = Platform::Kuberay;
        case.instances = 4;
        case.instance.port = 8001;
        case.model.dtype = Some("bfloat16".into());
        case
    };
    let mut two = Case::new(&[("head", "0,1")]).ssh().shape(2, 1, 1);
    let worker = host("worker", "10.200.0.2", true);
    two.hosts.insert("worker".to_owned(), worker);
    let other = HostGpus { host: "worker".into(), ids: vec![2, 3] };
    two.others.push(InstancePlan { index: 1, place: vec![other], ..two.instance.clone() });
    (two.instances, two.instance.port) = (2, 8001);
    let two = two.params("bin = \"/opt/ray/bin/serve\"\nray_port = 7000\ningress_replicas = 3");
    let spans = Case::new(&[("n2", "0"), ("n3", "0")]).shape(1, 2, 1);
    let mut unlike = Case::new(&[("n2", "0,1")]).shape(2, 1, 1);
    unlike.others.push(InstancePlan { index: 1, tp: 1, ..unlike.instance.clone() });
    let mut split = Case::new(&[("n2", "0,1")]).shape(2, 1, 1).role(Role::Prefill);
    split.hosts.insert("n3".to_owned(), host("n3", "127.0.0.3", false));
    for index in [1, 2] {
        let place = vec![HostGpus { host: "n3".into(), ids: vec![index - 1] }];
        let decode =
            InstancePlan { index, role: Role::Decode, tp: 1, place, ..split.instance.clone() };
        split.others.push(decode);
    }
    (split.instances, split.instance.port) = (3, 8001);
    let text = book(
        EngineKind::RayServeLlm,
        &[
            ("four replicas (seed 2)", seed2(&[("head", "0,1,2,3")])),
            ("across nodes (seed 2)", seed2(&[("head", "0,1"), ("worker", "0,1")])),
            ("two replicas on two hosts over ssh", two),
            ("one replica over two loopback hosts", spans),
            ("an address that Ray replaces", Case::new(&[("box", "0")])),
            ("data-parallel ranks", Case::new(&[("n2", "0,1")]).shape(1, 1, 2)),
            ("a prefill pool", Case::new(&[("n2", "0")]).role(Role::Prefill)),
            ("a prefill replica over two GPUs and two that decode", split.args("--max-num-seqs 8")),
            ("instances of two shapes", unlike),
        ],
    );
    insta::assert_snapshot!(text);
}

const PLATFORMS: [Platform; 11] = [
    Platform::Local,
    Platform::Ssh,
    Platform::Slurm,
    Platform::K8s,
    Platform::Lws,
    Platform::Kuberay,
    Platform::Dgd,
    Platform::InferencePool,
    Platform::Modal,
    Platform::Skypilot,
    Platform::External,
];

#[test]
fn what_this_version_brings_up() {
    let mut text = String::new();
    for engine in engines() {
        let can = PLATFORMS.iter().filter(|p| engine.can_run_on(**p).is_ok()).map(|p| p.name());
        let names = can.collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "{}: {names}", engine.kind().name());
        for platform in PLATFORMS {
            if let Err(why) = engine.can_run_on(platform) {
                assert!(why.contains(platform.name()), "{why}");
                assert!(why.contains(engine.kind().name()), "{why}");
            }
        }
    }
    insta::assert_snapshot!(text, @r"
    vllm: local, ssh, slurm, k8s, lws, inferencepool, modal, skypilot, external
    sglang: local, ssh, slurm, k8s, lws, inferencepool, modal, skypilot, external
    dynamo-vllm: local, ssh, slurm, dgd, external
    dynamo-sglang: dgd, external
    dynamo-mocker: local, ssh, slurm, dgd, external
    ray-serve-llm: local, ssh, slurm, kuberay, external
    llama.cpp: local, ssh, slurm, external
    lmdeploy: external
    command: local, ssh, external
    openai: external
    emulated: local, ssh, slurm, external
    ");
}

#[test]
fn every_engine_keeps_the_rules() {
    for engine in engines() {
        assert!(
            std::ptr::eq(find(engines(), engine.kind()).unwrap(), *engine),
            "twice: {engine:?}"
        );
        for (flag, key) in engine.owned_flags() {
            assert!(flag.starts_with('-') && !key.is_empty(), "{engine:?} {flag}");
        }
        for param in engine.params() {
            assert!(param.doc.len() > 8, "{engine:?} {param:?}");
        }
        let mut attached = Case::new(&[("box", "0")]);
        attached.platform = Platform::External;
        assert_eq!(attached.lines(engine.kind()), "", "{engine:?} starts something when attached");
    }
}

/// A flag that the shape decides must be refused in `args`, or it would be given twice.
#[test]
fn derived_flags_are_owned_or_give_way() {
    let gives_way = [
        "--served-model-name",
        "--kv-transfer-config",
        "--metrics",
        "--enable-metrics",
        "--alias",
        "--model-name",
        "--disaggregation-transfer-backend",
        "--discovery-backend",
        "--request-plane",
        "--event-plane",
        "-ngl",
    ];
    for engine in engines() {
        let case = Case::new(&[("box", "0")]).params("rpc_workers = 1\nprogram = \"x\"");
        let drafts = case.ask(|r| engine.processes(r)).unwrap();
        let server = drafts.last().into_iter().flat_map(|d| d.args.clone());
        let owned: Vec<&str> = engine.owned_flags().iter().map(|(f, _)| *f).collect();
        for flag in server.filter(|a| a.starts_with("--")) {
            assert!(
                owned.contains(&flag.as_str()) || gives_way.contains(&flag.as_str()),
                "{engine:?} derives {flag} without owning it"
            );
        }
    }
}
