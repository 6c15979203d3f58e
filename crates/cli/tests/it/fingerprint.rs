//! What really ran is kept with a run: by the kernel's word, without values that may be secrets.

use crate::hosts::Hosts;
use crate::support::{Lab, emulated, root, say, scalebeam};
use serde_json::Value;
use std::path::Path;

const LOAD: &str = "mode = \"closed\"\nconcurrency = 1\nrequests = 2\n";
const SECRET: &str = "hush-hush-9c1f";

fn read(run: &Path) -> Value {
    let text = std::fs::read(run.join("fingerprint.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[track_caller]
fn is_of_the_published_form(print: &Value) {
    let schema = std::fs::read_to_string(root().join("schemas/fingerprint.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let problems: Vec<String> = validator.iter_errors(print).map(|e| e.to_string()).collect();
    assert_eq!(problems, [""; 0], "{print:#}");
}

/// Every text in `value`.
fn texts(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) => out.push(text.clone()),
        Value::Array(all) => all.iter().for_each(|v| texts(v, out)),
        Value::Object(all) => all.values().for_each(|v| texts(v, out)),
        _ => {}
    }
}

#[test]
fn of_an_emulated_deployment_on_this_machine() {
    let lab = Lab::new(&emulated(&["one"], "ttft = \"1ms\", itl = \"1ms\"", LOAD));
    let said = lab.command("run").env("HF_TOKEN", SECRET).output().unwrap();
    assert!(said.status.code().is_some_and(|code| code == 0 || code == 3), "{said:?}");
    let print = read(&lab.run_dir());
    is_of_the_published_form(&print);
    let one = &print["deployments"][0];
    assert_eq!((&one["deployment"], &one["session"]), (&"one".into(), &0.into()));
    assert_eq!(one["hosts"][0]["host"], "this machine");
    assert!(one["hosts"][0]["kernel"].as_str().unwrap().starts_with("Linux "), "{one:#}");
    assert!(one["hosts"][0]["memory_bytes"].as_u64().unwrap() > 0, "{one:#}");
    let why = one["hosts"][0]["gpus"]["absent"].as_str().unwrap();
    assert!(why.contains("computes on no GPU"), "{why}");
    let process = &one["processes"][0];
    let words: Vec<&str> =
        process["command"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(words[1], "serve", "{words:?}");
    assert!(words.contains(&"--port"), "{words:?}");
    let names = process["env_names"].as_array().unwrap();
    assert!(names.contains(&"PATH".into()) && names.contains(&"SCALEBEAM_RUN".into()), "{names:?}");
    assert!(one["entries"][0]["version"].is_string(), "{one:#}");

    // Results and reports say it too.
    let results: Value =
        serde_json::from_slice(&std::fs::read(lab.run_dir().join("results.json")).unwrap())
            .unwrap();
    assert_eq!(results["ran"][0]["deployment"], "one", "{results:#}");
    assert_eq!(results["ran"][0]["engine"], one["entries"][0]["version"]);
    assert_eq!(results["ran"][0]["processes"][0]["command"], process["command"]);
    let dir = lab.run_dir().display().to_string();
    say(["report", &dir, "--format", "md,html"]).expect_code(0);
    for file in ["results.md", "report.html"] {
        let text = std::fs::read_to_string(lab.run_dir().join(file)).unwrap();
        assert!(text.contains("What ran") && text.contains("one/0/serve on"), "{text}");
    }

    let mut all = Vec::new();
    texts(&print, &mut all);
    assert!(all.iter().all(|text| !text.is_empty() && !text.contains(SECRET)), "{print:#}");
}

#[test]
fn its_schema_is_printed() {
    let said = scalebeam().args(["schema", "fingerprint"]).output().unwrap();
    let schema: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(schema["title"], "Fingerprint");
}

#[test]
#[ignore = "needs root, ip and sshd: run by ci/test"]
fn ssh_each_host_is_told_apart() {
    let hosts = Hosts::new(&["a", "b"]);
    let file = crate::ssh::experiment(&hosts, &["a", "b"], "ttft = \"1ms\"", LOAD);
    let (file, out) = (file.display().to_string(), hosts.path("runs").display().to_string());
    hosts.say(&["run", &file, "--out", &out, "--selftest", "never"]);
    let run = std::fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
    let print = read(&run);
    is_of_the_published_form(&print);
    let one = &print["deployments"][0];
    let names: Vec<&Value> = one["hosts"].as_array().unwrap().iter().map(|h| &h["host"]).collect();
    assert_eq!(names, ["a", "b"]);
    for (host, process) in
        one["hosts"].as_array().unwrap().iter().zip(one["processes"].as_array().unwrap())
    {
        assert_eq!(host["links"]["eth0"]["state"], "up", "{host:#}");
        assert_eq!(process["host"], host["host"]);
        assert_eq!(process["command"][1], "serve", "{process:#}");
    }
}
