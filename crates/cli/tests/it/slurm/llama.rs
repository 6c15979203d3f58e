//! llama.cpp as steps of a job: two copies that Slurm places, and one whose layers are split over rpc workers.

use super::{Cluster, LOAD, logs};
use crate::support::{root, setting};
use serde_json::Value;

/// The real server, in the form that `scalebeam setup llama.cpp` installs, which has other flags and no RPC. As the one
/// that has it, it does not begin where a worker of `--rpc` does not listen yet.
const SERVER: &str = r#"#!/bin/bash
flags=()
while (($#)); do
  case $1 in
    -m) flags+=(--model "$2") ;;
    -np) flags+=(--parallel "$2") ;;
    -c) flags+=(--ctx "$2") ;;
    -t) flags+=(--threads "$2") ;;
    --alias | --host | --port) flags+=("$1" "$2") ;;
    --rpc)
      for at in ${2//,/ }; do
        (: <"/dev/tcp/${at%:*}/${at#*:}") || exit 9
        echo "split over $at"
      done
      ;;
    --metrics)
      shift
      continue
      ;;
  esac
  shift 2
done
exec PYTHON SERVE "${flags[@]}"
"#;

/// Slow to listen, as one is that looks for devices first.
const WORKER: &str = r#"#!/bin/bash
sleep 3
exec python3 -B -c "
import socket
listening = socket.create_server(('127.0.0.1', $4))
while True:
    listening.accept()
"
"#;

/// A job of llama.cpp with its programs in the site's folder for such things.
fn experiment(cluster: &Cluster, deploy: &str) -> String {
    let serve = root().join("crates/fleet/assets/llama_serve.py");
    let server = SERVER
        .replace("PYTHON", &setting("SCALEBEAM_E2E_LLAMA"))
        .replace("SERVE", &serve.display().to_string());
    cluster.install("llama-server", &server);
    cluster.install("ggml-rpc-server", WORKER);
    let file = cluster.experiment(&format!("engine = \"llama.cpp\"\n{deploy}"), LOAD);
    let text = std::fs::read_to_string(&file).unwrap();
    let model = setting("SCALEBEAM_E2E_TINY_GGUF");
    let text = text.replace("Qwen/Qwen2.5-7B-Instruct\"", &format!("{model}\"\nserved = \"tiny\""));
    std::fs::write(&file, text).unwrap();
    file
}

fn log(cluster: &Cluster, name: &str) -> String {
    std::fs::read_to_string(cluster.run_dir().join("logs/pair").join(name)).unwrap()
}

/// One copy a node, which Slurm chooses; each is asked at the address that it was given.
#[test]
#[ignore = "needs a real engine, root and Slurm: run by ci/test"]
fn slurm_copies_of_llama_cpp_share_the_load() {
    let cluster = Cluster::new();
    let deploy = "replicas = 2\nparams = { threads = 1, parallel = 4, ctx = 4096 }";
    let said = cluster.run(&experiment(&cluster, deploy), &["--json"]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    let results = said.json();
    let point = &results["points"][0];
    assert_eq!(point["outcomes"]["completed"], 80, "{point:#}");
    assert_eq!(point["metrics"]["output_tokens"]["min"], 8.0, "{point:#}");
    let shares = point["by_target"].as_array().unwrap();
    assert!(shares.len() == 2 && shares.iter().all(|n| n.as_u64().unwrap() > 20), "{shares:?}");
    let engines = point["trials"][0]["engines"].as_array().unwrap();
    let risen = |e: &Value| e["values"]["generation_tokens"]["counter"]["risen"].as_f64();
    let risen: f64 = engines.iter().filter_map(risen).sum();
    assert!((risen - 640.0).abs() < 0.5, "{risen}: {engines:#?}");
    cluster.nothing_is_left();
    assert_eq!(logs(&cluster.run_dir()), ["0-serve-1.log", "1-serve-1.log", "job-1.out"]);
}

/// The server is the last that begins, since it ends where a worker does not listen yet, and the first that goes.
#[test]
#[ignore = "needs a real engine, root and Slurm: run by ci/test"]
fn slurm_a_server_begins_once_its_rpc_workers_listen_on_its_node() {
    let cluster = Cluster::new();
    let deploy =
        "place = [\"n2:0\"]\nparams = { rpc_workers = 2, threads = 1, parallel = 4, ctx = 4096 }";
    let said = cluster.run(&experiment(&cluster, deploy), &["--json"]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    assert_eq!(said.json()["points"][0]["outcomes"]["completed"], 80, "{said:?}");
    let served = log(&cluster, "0-serve-1.log");
    assert_eq!(served.matches("split over 127.0.0.1:").count(), 2, "{served}");
    let ended = cluster.ended("pair");
    assert_eq!((ended.len(), ended[0].as_str()), (3, "pair/0/serve"), "{ended:?}");
    cluster.nothing_is_left();
}
