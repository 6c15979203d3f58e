//! Split deployments behind our own router, with truth servers that speak as vLLM's NixlConnector does.

use crate::hosts::Hosts;
use crate::support::{
    Lab, free_port, json_lines, marked_processes, root, route, say, truth_server, writes,
};
use scalebeam_record::RunReader;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// `vllm serve MODEL .. --host HOST --port PORT`, as far as a plan needs it.
pub(crate) fn stand_in(dir: &Path, kv: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let script = root().join("tests-support/truth_server.py").display().to_string();
    let log = dir.join("truth").display().to_string();
    let text = format!(
        "#!/bin/sh\nwhile [ $# -gt 1 ]; do case $1 in --host) host=$2;; --port) port=$2;; esac; shift; done\n\
         exec python3 -B {script} --host \"$host\" --port \"$port\" --ttft-ms 5 --itl-ms 2 --kv {kv} \
         --log-bodies --log {log}-\"$port\"\n"
    );
    let path = dir.join("vllm");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// Two prefill and two decode instances on `hosts`; the router is on `port`.
fn experiment(hosts: &str, platform: &str, bin: &str, port: u16) -> String {
    format!(
        "schema = 1\nname = \"split\"\n[model]\nid = \"plain\"\n{hosts}\
         [[deploy]]\nname = \"pd\"\nplatform = \"{platform}\"\nengine = \"vllm\"\nport = {port}\n\
         params = {{ bin = \"{bin}\" }}\nready = {{ timeout = \"60s\" }}\nstop = {{ grace = \"5s\" }}\n\
         [[deploy.pool]]\nrole = \"prefill\"\nworkers = 2\n[[deploy.pool]]\nrole = \"decode\"\nworkers = 2\n\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 32\nosl = 8\nforce_len = true\nseed = 1\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"closed\"\nconcurrency = 4\nrequests = 16\nwarmup = 2\n"
    )
}

/// A lab whose instances say of key-value blocks what `kv` is, and the port of its first instance.
fn lab(kv: &str) -> (Lab, u16) {
    let port = free_port();
    let lab = Lab::new("");
    let host = "[host.box]\naddr = \"127.0.0.1\"\ngpus = 4\n";
    let text = experiment(host, "local", &stand_in(lab.dir.path(), kv), port);
    std::fs::write(lab.file(), text).unwrap();
    (lab, port + 1)
}

fn log(lab: &Lab, port: u16) -> Vec<Value> {
    json_lines(&lab.dir.path().join(format!("truth-{port}")))
}

#[test]
fn two_pools_are_one_deployment_behind_one_entry() {
    let (lab, first) = lab("moved");
    let plan = lab.say("plan", &["--json"]).expect_code(0).json();
    let deployment = &plan["deployments"][0];
    let entry = format!("http://127.0.0.1:{}", first - 1);
    assert_eq!(deployment["entries"], serde_json::json!([{ "url": entry }]));
    assert_eq!(deployment["ready"]["gates"].as_array().unwrap().len(), 6, "{deployment:#}");

    let results = lab.say("run", &["--json"]).json();
    let point = &results["points"][0];
    assert_eq!(point["outcomes"]["completed"], 16, "{results:#}");
    assert_eq!(point["metrics"]["output_tokens"]["min"], 8.0);
    assert_eq!(marked_processes(&lab.runs()), []);
    // Engines behind a router are asked one by one.
    let trial = lab.run_dir().join("points/pd/l/c4/1/trial.json");
    let trial: Value = serde_json::from_str(&std::fs::read_to_string(trial).unwrap()).unwrap();
    assert_eq!(trial["ended"]["info"]["preemptions"], 0, "{trial:#}");
    let engines = trial["ended"]["info"]["engines"]["instances"].as_array().unwrap();
    let names: Vec<&str> = engines.iter().filter_map(|e| e["name"].as_str()).collect();
    assert_eq!(names, ["prefill 0", "prefill 1", "decode 2", "decode 3"]);
    assert!(engines.iter().all(|e| e["reads"].as_u64() >= Some(2)), "{engines:#?}");

    // One question of the gate before, two prompts that prove the blocks, words that size the prompts, the load.
    let counts: Vec<usize> = (first..first + 4).map(|port| log(&lab, port).len()).collect();
    assert!(counts.iter().all(|n| *n >= 10 && n.abs_diff(counts[0]) <= 1), "in turn: {counts:?}");
    for asked in log(&lab, first).iter().map(|record| &record["body"]) {
        assert_eq!((&asked["max_tokens"], &asked["stream"]), (&1.into(), &false.into()));
    }
    for asked in log(&lab, first + 2).iter().map(|record| &record["body"]) {
        assert_eq!(asked["kv_transfer_params"]["remote_engine_id"], "truth");
    }
}

#[test]
fn instances_that_compute_prompts_again_are_no_split_deployment() {
    let (lab, first) = lab("recomputed");
    let said = lab.say("run", &[]).expect_code(4);
    for want in [
        "deployment 'pd' is not split",
        &format!("decode instance 2 (http://127.0.0.1:{})", first + 2),
        "was sent no key-value bytes",
        "hint: see the decode instance's log for NIXL",
    ] {
        assert!(said.stderr.contains(want), "{want}\n{}", said.stderr);
    }
    assert_eq!(marked_processes(&lab.runs()), []);
}

#[test]
fn what_is_not_counted_is_a_note() {
    let (lab, _) = lab("uncounted");
    let said = lab.say("run", &[]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    let journal = std::fs::read_to_string(lab.run_dir().join("journal.jsonl")).unwrap();
    let note = "does not export vllm:nixl_bytes_transferred, so whether key-value blocks reach it was not told";
    assert_eq!(journal.matches(note).count(), 2, "{journal}");
}

#[test]
fn a_pool_without_the_other_and_an_unknown_router_are_refused() {
    let (lab, _) = lab("moved");
    let text = std::fs::read_to_string(lab.file()).unwrap();
    let change = |from: &str, to: &str| {
        std::fs::write(lab.file(), text.replacen(from, to, 1)).unwrap();
        lab.say("check", &[]).expect_code(2).stderr
    };
    let said = change("role = \"decode\"", "role = \"prefill\"");
    assert!(
        said.contains("a prefill pool needs a [[deploy.pool]] with role = \"decode\""),
        "{said}"
    );
    let said = change("params = {", "params = { router = \"nginx\",");
    assert!(said.contains("router 'nginx' is not known"), "{said}");
    let said = change("params = {", "params = { router_args = [\"--decode\", \"http://h:1\"],");
    assert!(said.contains("router_args must not have --decode"), "{said}");
}

/// The router is a process of a far host like any other, and reaches instances on the next one.
#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_pools_on_two_hosts_are_one_deployment() {
    let hosts = Hosts::new(&["a", "b"]);
    let exe = Path::new(env!("CARGO_BIN_EXE_scalebeam"));
    let path = format!("{}:/usr/bin:/bin", exe.parent().unwrap().display());
    let host = |name: &str, n: u32| {
        format!(
            "[host.{name}]\naddr = \"10.77.0.{n}\"\nssh = \"{name}\"\ngpus = 2\n\
             [host.{name}.env]\nPATH = \"{path}\"\n"
        )
    };
    let both = host("a", 1) + &host("b", 2);
    let dir = hosts.path("stand-in");
    std::fs::create_dir(&dir).unwrap();
    let file = hosts.path("split.toml");
    std::fs::write(&file, experiment(&both, "ssh", &stand_in(&dir, "moved"), 8100)).unwrap();
    let (file, out) = (file.display().to_string(), hosts.path("runs").display().to_string());
    let said = hosts.say(&["run", &file, "--out", &out, "--selftest", "never", "--json"]);
    let results = said.json();
    assert_eq!(results["points"][0]["outcomes"]["completed"], 16, "{said:?}");
    // Hosts count their ports alike, and share this machine's files.
    let both = json_lines(&dir.join("truth-8101"));
    for step in ["do_remote_decode", "do_remote_prefill"] {
        let is_it = |r: &&Value| r["body"]["kv_transfer_params"][step] == true;
        assert!(both.iter().filter(is_it).count() >= 10, "{step}: {}", both.len());
    }
    assert_eq!(marked_processes(&hosts.path("runs")), []);
    assert!(hosts.remote_files().is_empty(), "{:?}", hosts.remote_files());
}

/// What the router adds on the way of a token, by the instants at which a decode worker really wrote: the
/// same load without and with it. Printed, since a busy machine says little of it; what must hold is that
/// nothing is lost, merged into fewer tokens, or seen before it was written.
#[test]
fn what_the_router_adds_is_known_token_by_token() {
    let dir = tempfile::tempdir().unwrap();
    let server = |log: &Path| {
        let args = ["--ttft-ms", "20", "--itl-ms", "10", "--kv", "moved", "--log"];
        truth_server(&[&args[..], &[log.to_str().unwrap()]].concat())
    };
    let mut medians = Vec::new();
    for name in ["direct", "routed"] {
        let log = dir.path().join(format!("{name}.jsonl"));
        let (prefill, decode) = (server(&dir.path().join("prefill.jsonl")), server(&log));
        let router = route(&["--prefill", &prefill.url, "--decode", &decode.url]);
        let url = if name == "direct" { &decode.url } else { &router.url };
        let mut lags = lags(&bench(url, &dir.path().join(name)), &log);
        assert_eq!(lags.len(), 64 * 32, "{name}: every token");
        lags.sort_by(f64::total_cmp);
        let at = |percent: usize| lags[lags.len() * percent / 100];
        println!("{name}: p50 {:.3} ms, p99 {:.3} ms from write to arrival", at(50), at(99));
        medians.push(at(50));
    }
    println!("the router adds {:.3} ms to the median token", medians[1] - medians[0]);
}

/// 64 requests of 32 tokens, 16 at a time on average; their records.
fn bench(url: &str, out: &Path) -> Vec<scalebeam_model::request::RequestRecord> {
    let args =
        ["bench", url, "--model", "plain", "--selftest", "never", "--warmup", "0", "--isl", "16"];
    let load = ["--osl", "32", "--requests", "64", "--request-rate", "48", "--json", "--out"];
    let said = say([&args[..], &load, &[out.to_str().unwrap()]].concat());
    assert_eq!(said.json()["points"][0]["outcomes"]["completed"], 64, "{said:?}");
    let dir = std::fs::read_dir(out).unwrap().next().unwrap().unwrap().path();
    let run = RunReader::open(&dir).unwrap();
    run.measured_points().unwrap().remove(0).trials.remove(0).records
}

/// Milliseconds from each write of the server to its arrival. Writes that one read brought arrived together.
fn lags(records: &[scalebeam_model::request::RequestRecord], log: &Path) -> Vec<f64> {
    let of_index = |id: &str| id.rsplit_once("-1m-").and_then(|(_, n)| n.parse::<u64>().ok());
    let rows: BTreeMap<u64, Value> = json_lines(log)
        .into_iter()
        .filter_map(|row| Some((of_index(row["id"].as_str()?)?, row)))
        .collect();
    let mut lags = Vec::new();
    for record in records {
        let row = &rows[&record.index];
        let writes = writes(row);
        assert!(record.first_token_at.unwrap() > writes[0], "nothing is seen before it is written");
        assert!(record.last_token_at.unwrap() > writes[writes.len() - 1]);
        let arrivals =
            record.arrivals.iter().flat_map(|a| std::iter::repeat_n(a.at, a.chunks as usize));
        lags.extend(
            writes
                .into_iter()
                .zip(arrivals)
                .map(|(written, arrived)| arrived.millis_after(written)),
        );
    }
    lags
}
