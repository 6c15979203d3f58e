//! Emptying the engine's prefix cache before each measurement.

use crate::support::{Lab, emulated, json_lines, say, truth_server};
use serde_json::Value;
use std::path::PathBuf;

fn server(dir: &tempfile::TempDir, more: &[&str]) -> (crate::support::Server, PathBuf) {
    let log = dir.path().join("log.jsonl");
    let args = ["--ttft-ms", "5", "--itl-ms", "1", "--log", log.to_str().unwrap()];
    (truth_server(&[&args[..], more].concat()), log)
}

fn external(engine: &str, url: &str) -> Lab {
    Lab::new(&format!(
        "schema = 1\nname = \"t\"\n[model]\nid = \"plain\"\n[[deploy]]\nname = \"there\"\nplatform = \"external\"\n\
         engine = \"{engine}\"\nendpoint = \"{url}/v1\"\n\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 16\nosl = 4\ncache = \"reset\"\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"closed\"\nconcurrency = 2\nrequests = 20\nwarmup = 2\nrepeats = 2\n"
    ))
}

fn codes(point: &Value) -> Vec<&str> {
    let reasons = point["trust"]["reasons"].as_array().map(Vec::as_slice).unwrap_or_default();
    reasons.iter().map(|r| r["code"].as_str().unwrap()).collect()
}

#[test]
fn every_trial_is_measured_after_a_reset_and_the_same_prompts_are_sent_again() {
    for (engine, path) in [("vllm", "/reset_prefix_cache"), ("sglang", "/flush_cache")] {
        let dir = tempfile::tempdir().unwrap();
        let (server, log) = server(&dir, &[]);
        let lab = external(engine, &server.url);
        let plan = lab.say("plan", &[]).expect_code(0).stdout;
        assert!(plan.contains(&format!("POST {path} at every entry")), "{plan}");
        let said = lab.say("run", &["--json"]).expect_code(0).json();
        assert!(!codes(&said["points"][0]).contains(&"cache_not_reset"));
        // By the server's own order: warm-up, reset, measurement, and so again.
        let seen: Vec<char> = json_lines(&log)
            .iter()
            .filter_map(|line| match (line["path"].as_str()?, line["id"].as_str()) {
                (seen, _) if seen == path => Some('r'),
                (_, Some(id)) if id.rsplit_once('-')?.0.ends_with("1m") => Some('1'),
                (_, Some(id)) if id.rsplit_once('-')?.0.ends_with("2m") => Some('2'),
                (_, Some(id)) if id.rsplit_once('-')?.0.ends_with('w') => Some('w'),
                _ => None,
            })
            .collect();
        let mut order = seen.clone();
        order.dedup();
        assert_eq!(order, ['w', 'r', '1', 'w', 'r', '2'], "{seen:?}");
        assert_eq!(seen.iter().filter(|c| **c == 'r').count(), 2);
    }
}

#[test]
fn a_reset_that_is_refused_or_not_known_marks_the_point() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _log) = server(&dir, &["--refuse-reset"]);
    for (engine, why) in [
        ("vllm", "/reset_prefix_cache answered 404: Not Found"),
        ("sglang", "/flush_cache answered 400: Flush cache failed."),
        ("openai", "the engine has no way to do so that is known"),
    ] {
        let lab = external(engine, &server.url);
        let said = lab.say("run", &["--json"]).expect_code(0);
        assert!(said.stderr.contains(why), "{}", said.stderr);
        let point = said.json()["points"][0].clone();
        assert!(codes(&point).contains(&"cache_not_reset"), "{point:#}");
        let reasons = point["trust"]["reasons"].to_string();
        assert!(reasons.contains(why) && reasons.contains("cache = \\\"salt\\\""), "{reasons}");
    }
    let lab = external("openai", &server.url);
    let said = lab.say("check", &[]).expect_code(0);
    let all = format!("{}{}", said.stdout, said.stderr);
    assert!(all.contains("there: the engine has no way to empty its prefix cache"), "{all}");
}

#[test]
fn bench_posts_where_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let (server, log) = server(&dir, &[]);
    let out = tempfile::tempdir().unwrap();
    let args = [
        "bench",
        &server.url,
        "--model",
        "plain",
        "--isl",
        "16",
        "--osl",
        "4",
        "--requests",
        "20",
        "--concurrency",
        "1,2",
        "--cache-reset",
        "/flush_cache",
        "--json",
        "--out",
    ];
    say([&args[..], &[out.path().to_str().unwrap()]].concat()).expect_code(0);
    let resets = json_lines(&log).iter().filter(|l| l["path"] == "/flush_cache").count();
    assert_eq!(resets, 2, "once a point");
}

#[test]
fn a_planned_vllm_is_started_as_a_development_server_only_where_it_is_asked_for() {
    let text = |cache: &str| {
        emulated(
            &["one"],
            "ttft = \"5ms\", itl = \"1ms\"",
            "mode = \"closed\"\nconcurrency = 2\nrequests = 4\n",
        )
        .replace("engine = \"emulated\"", "engine = \"vllm\"")
        .replace("params = { ttft = \"5ms\", itl = \"1ms\" }\n", "")
        .replace("seed = 1\n", &format!("seed = 1\ncache = \"{cache}\"\n"))
    };
    let plan = |cache| Lab::new(&text(cache)).say("plan", &[]).expect_code(0).stdout;
    assert!(plan("reset").contains("env VLLM_SERVER_DEV_MODE=1"));
    assert!(!plan("salt").contains("VLLM_SERVER_DEV_MODE"));
}

#[test]
fn the_emulated_engine_is_reset() {
    let lab = Lab::new(
        &emulated(
            &["one"],
            "ttft = \"5ms\", itl = \"1ms\"",
            "mode = \"closed\"\nconcurrency = 2\nrequests = 20\nwarmup = 2\n",
        )
        .replace("seed = 1\n", "seed = 1\ncache = \"reset\"\n"),
    );
    let said = lab.say("run", &["--json"]).expect_code(0).json();
    assert!(!codes(&said["points"][0]).contains(&"cache_not_reset"), "{said:#}");
    let trial =
        std::fs::read_to_string(lab.run_dir().join("points/one/l/c2/1/trial.json")).unwrap();
    assert!(
        trial.contains("POST /reset_prefix_cache was answered with 200 by 1 entries"),
        "{trial}"
    );
}
