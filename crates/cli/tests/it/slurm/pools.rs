//! A router and what it stands before, as steps of one job: pools of stand-ins that speak as vLLM's NixlConnector does,
//! and copies of SGLang behind its own router, which is the real one.
//!
//! Both nodes of these tests are this machine, so their hosts have one address, and the ports of instances differ.

use super::{Cluster, LOAD, LONG, root};
use crate::interrupt::records;
use crate::route::stand_in;
use crate::support::{setting, wait_for, with_nixl};
use serde_json::Value;

const ADDRESSES: [(&str, &str); 2] = [
    ("[host.n1]", "[host.n1]\naddr = \"127.0.0.2\""),
    ("[host.n2]", "[host.n2]\naddr = \"127.0.0.2\""),
];

/// An experiment of `deploy`, with `pools` and addresses.
fn experiment(cluster: &Cluster, deploy: &str, pools: &str, load: &str) -> String {
    let file = cluster.experiment(deploy, load);
    let mut text = std::fs::read_to_string(&file).unwrap();
    for (from, to) in ADDRESSES {
        text = text.replace(from, to);
    }
    let text = text.replace("[[workload]]", &format!("{pools}[[workload]]"));
    std::fs::write(&file, text.replace("Qwen/Qwen2.5-7B-Instruct", "plain")).unwrap();
    file
}

/// Two prefill and two decode instances over both nodes, behind our own router.
fn split(cluster: &Cluster, kv: &str, load: &str) -> String {
    let bin = stand_in(cluster.dir.path(), kv);
    let deploy = format!("engine = \"vllm\"\nparams = {{ bin = \"{bin}\" }}");
    let pool = |role: &str, gpu: u32| {
        format!(
            "[[deploy.pool]]\nrole = \"{role}\"\nworkers = 2\nplace = [\"n1:{gpu}\", \"n2:{gpu}\"]\n"
        )
    };
    experiment(cluster, &deploy, &(pool("prefill", 0) + &pool("decode", 1)), load)
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_pools_over_two_nodes_are_one_deployment_behind_our_router() {
    let cluster = Cluster::new();
    let said = cluster.run(&split(&cluster, "moved", LOAD), &["--json"]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    assert_eq!(said.json()["points"][0]["outcomes"]["completed"], 80, "{said:?}");
    cluster.nothing_is_left();
    // Each is asked by itself at the node that it was placed on.
    let trial = cluster.run_dir().join("points/pair/l/c4/1/trial.json");
    let trial: Value = serde_json::from_str(&std::fs::read_to_string(trial).unwrap()).unwrap();
    let engines = trial["ended"]["info"]["engines"]["instances"].as_array().unwrap();
    let names: Vec<&str> = engines.iter().filter_map(|e| e["name"].as_str()).collect();
    assert_eq!(names, ["prefill 0", "prefill 1", "decode 2", "decode 3"]);
    assert!(engines.iter().all(|e| e["reads"].as_u64() >= Some(2)), "{engines:#?}");
    let ended = cluster.ended("pair");
    assert_eq!(ended.len(), 5, "each of them ended before the job did: {ended:?}");
    assert_eq!(ended[0], "pair/infra/router", "the entry is the first that goes: {ended:?}");
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_pools_that_compute_prompts_again_are_no_split_deployment() {
    let cluster = Cluster::new();
    let said = cluster.run(&split(&cluster, "recomputed", LOAD), &[]).expect_code(4);
    for want in ["deployment 'pair' is not split", "decode instance 2 (http://127.0.0.2:"] {
        assert!(said.stderr.contains(want), "{want}\n{}", said.stderr);
    }
    cluster.nothing_is_left();
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_a_router_that_dies_ends_the_run_and_all_behind_it() {
    let cluster = Cluster::new();
    // Not too long: once nobody answers, requests fail as fast as they are sent.
    let load = LONG.replace("100000", "4000");
    let mut live = cluster.start_run(&split(&cluster, "moved", &load));
    wait_for("the load", || records(&cluster.runs(), "pair") > 4);
    cluster.kill(|command| command.contains("scalebeam route ") && !command.starts_with("srun "));
    let (code, said) = live.end();
    assert!(matches!(code, Some(3 | 4)), "{code:?} {said}");
    assert!(said.contains("process pair/infra/router ended with signal 9 (SIGKILL)"), "{said}");
    cluster.nothing_is_left();
}

#[test]
#[ignore = "needs sglang-router, root and Slurm: run by ci/test"]
fn slurm_copies_of_sglang_behind_its_router_are_counted_one_by_one() {
    let router = setting("SCALEBEAM_E2E_SGLANG_ROUTER");
    let cluster = Cluster::new();
    let stand_in = root().join("tests-support/stand_in_sglang");
    let deploy = format!(
        "engine = \"sglang\"\nreplicas = 2\nplace = [\"n1:0\", \"n2:0\"]\n\
         params = {{ router = \"sglang-router\", router_bin = \"{router}\" }}\n\
         env = {{ PYTHONPATH = \"{}\", PYTHONDONTWRITEBYTECODE = \"1\" }}",
        stand_in.display()
    );
    let said = cluster.run(&experiment(&cluster, &deploy, "", LOAD), &["--json"]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    assert_eq!(said.json()["points"][0]["outcomes"]["completed"], 80, "{said:?}");
    assert_eq!(cluster.ended("pair")[0], "pair/infra/router");
    let plan: Value = {
        let text = std::fs::read_to_string(cluster.run_dir().join("plan.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let gates = plan["deployments"][0]["ready"]["gates"].as_array().unwrap();
    assert!(gates.iter().any(|gate| gate["expected"] == 2), "its workers are counted: {gates:#?}");
    cluster.nothing_is_left();
}

/// A prefill vLLM on one node and a decode vLLM on the other, for real: blocks move by NIXL between steps of one job.
#[test]
#[ignore = "needs a real vLLM, root and Slurm; ci/test --all runs it"]
fn vllm_split_over_two_nodes_as_a_job() {
    let text = with_nixl("real-vllm-pd.toml");
    let nodes = ADDRESSES.map(|(_, host)| format!("{host}\ngpus = 1\n")).concat();
    let text = text
        .replace("[host.box]\naddr = \"127.0.0.1\"\ngpus = 2\n", &nodes)
        .replace("platform = \"local\"", "platform = \"slurm\"")
        .replace("role = \"prefill\"", "role = \"prefill\"\nplace = [\"n1:0\"]")
        .replace("role = \"decode\"", "role = \"decode\"\nplace = [\"n2:0\"]")
        .replace("/path/to/vllm/bin/vllm", &setting("SCALEBEAM_E2E_VLLM"));
    let said = super::weigh_real(&Cluster::new(), &text, "pd").stderr;
    assert!(said.contains("pd: doctor on its nodes: 0 failed, "), "{said}");
}
