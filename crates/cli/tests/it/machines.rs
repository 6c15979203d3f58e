//! What is read of machines while a point is measured.

use crate::support::{Lab, emulated};
use crate::usage::usage;
use serde_json::Value;

const LOAD: &str =
    "mode = \"closed\"\nconcurrency = [4]\nrequests = \"20x\"\nwarmup = 2\nrepeats = 1\n";
const TELEMETRY: &str = "[telemetry]\ninterval = \"100ms\"\n";

#[test]
fn cores_memory_and_every_process_of_the_plan_are_told() {
    let params = "ttft = \"20ms\", itl = \"10ms\"";
    let formats = "[output]\nformats = [\"json\", \"csv\", \"md\"]\n";
    let lab = Lab::new(&(emulated(&["one"], params, LOAD) + TELEMETRY + formats));
    let results = lab.say("run", &["--json"]).expect_code(0).json();
    let usage = usage(&results);
    let host = &usage["hosts"][0];
    assert_eq!(host["serves"], true, "{usage:#}");
    for share in ["cpu_pct", "memory_pct"] {
        let (mean, max) = (host[share]["mean"].as_f64(), host[share]["max"].as_f64());
        let (mean, max) = (mean.unwrap(), max.unwrap());
        assert!(0.0 < mean && mean <= max && max <= 101.0, "{share}: {host:#}");
    }
    let processes = usage["processes"].as_array().unwrap();
    let named = |text: &str| {
        let is = |p: &&Value| p["name"].as_str().is_some_and(|name| name.starts_with(text));
        processes.iter().find(is).unwrap_or_else(|| panic!("no {text} in {processes:#?}"))
    };
    assert_eq!(named("one/0/")["role"], "aggregated");
    assert!(named("one/0/")["memory_bytes"]["mean"].as_f64().unwrap() > 1e6);
    assert!(named("load generator")["cpu_cores"]["mean"].as_f64().unwrap() < 4.0);
    for absent in usage["absent"].as_array().into_iter().flatten() {
        assert!(!absent["why"].as_str().unwrap().is_empty(), "{absent}");
    }
    let metrics = &results["points"][0]["metrics"];
    assert!(metrics["cpu_util"].as_f64().unwrap() > 0.0, "{metrics:#}");
    let dir = lab.run_dir();
    assert!(dir.join("points/one/l/c4/1/telemetry.parquet").is_file());
    let csv = std::fs::read_to_string(dir.join("machines.csv")).unwrap();
    assert!(csv.starts_with("deploy,load,level,trial,host,kind,name,role,metric,mean,max\n"));
    assert!(csv.contains(",process,load generator,,cpu_cores,"), "{csv}");
    assert!(std::fs::read_to_string(dir.join("results.md")).unwrap().contains("## Machines"));
}

#[test]
fn emulated_gpus_have_no_watts_whatever_the_machine_has() {
    let lab = Lab::new(&(emulated(&["one"], "ttft = \"5ms\", itl = \"1ms\"", LOAD) + TELEMETRY));
    let results = lab.say("run", &["--json"]).expect_code(0).json();
    assert_eq!(usage(&results)["energy"], Value::Null);
    for metric in ["power_w", "energy_j", "joules_per_output_token", "gpu_util"] {
        assert_eq!(results["points"][0]["metrics"][metric], Value::Null, "{metric}");
    }
}

#[test]
fn readings_that_were_changed_afterwards_are_not_believed_and_cost_no_request() {
    let lab = Lab::new(&(emulated(&["one"], "ttft = \"5ms\", itl = \"1ms\"", LOAD) + TELEMETRY));
    lab.say("run", &[]).expect_code(0);
    let file = lab.run_dir().join("points/one/l/c4/1/telemetry.parquet");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let run = lab.run_dir().display().to_string();
    let results = crate::support::say(["report", &run, "--json"]).expect_code(0).json();
    assert_eq!(results["points"][0]["outcomes"]["completed"], 80);
    let usage = usage(&results);
    assert_eq!(usage["hosts"], Value::Array(Vec::new()), "{usage:#}");
    let why = usage["absent"][0]["why"].as_str().unwrap();
    assert!(why.contains("SHA-256 differs"), "{why}");
}

#[test]
fn a_reading_every_ten_milliseconds_is_refused() {
    let text = emulated(&["one"], "ttft = \"5ms\"", LOAD) + "[telemetry]\ninterval = \"10ms\"\n";
    let said = Lab::new(&text).say("check", &[]).expect_code(2);
    assert!(said.stderr.contains("machines are read every 100 ms"), "{}", said.stderr);
}

#[test]
fn what_machines_and_engines_did_is_kept_look_by_look_and_given_step_by_step() {
    let load = LOAD.replace("20x", "60x");
    let lab = Lab::new(&(emulated(&["one"], "ttft = \"20ms\", itl = \"10ms\"", &load) + TELEMETRY));
    let results = lab.say("run", &["--json"]).expect_code(0).json();
    let account = &results["points"][0]["account"];
    assert_eq!(account["roles"][0]["role"], "aggregated", "{account:#}");
    assert!(account["roles"][0]["cpu_cores"].as_f64().unwrap() > 0.0, "{account:#}");
    let host = &usage(&results)["hosts"][0];
    let (foreign, cores) = (host["foreign_cores"].as_f64(), host["cores"].as_f64());
    assert!(foreign.unwrap() >= 0.0 && foreign < cores, "{host:#}");
    assert!(lab.run_dir().join("points/one/l/c4/1/engines.parquet").is_file());

    let run = lab.run_dir().display().to_string();
    let csv = crate::support::say(["report", &run, "--samples"]).expect_code(0).stdout;
    let mut lines = csv.lines();
    assert_eq!(
        lines.next().unwrap(),
        "deploy,load,level,trial,at_s,seconds,host,device,index,gpu,instance,role,tp,pp,dp,power_w,\
         power_limit_w,counted_power_w,gpu_busy_pct,sm_active_pct,tensor_active_pct,dram_active_pct,\
         sm_clock_mhz,temperature_c,gpu_memory_bytes,cpu_pct,running,queued,kv_usage,\
         prompt_tokens_per_s,output_tokens_per_s"
    );
    let steps: Vec<&str> = lines.collect();
    // A minute's worth of answers of 20 ms + 10 ms a token, four at a time.
    assert!(steps.len() >= 2, "{csv}");
    for (i, step) in steps.iter().enumerate() {
        let start = format!("one,l,c4,1,{i},1,box,host,,,,,,,,,");
        assert!(step.starts_with(&start), "{step} does not begin with {start}");
    }
}

#[test]
fn looks_at_engines_that_were_changed_afterwards_are_not_believed() {
    let lab = Lab::new(&(emulated(&["one"], "ttft = \"5ms\", itl = \"1ms\"", LOAD) + TELEMETRY));
    lab.say("run", &[]).expect_code(0);
    let file = lab.run_dir().join("points/one/l/c4/1/engines.parquet");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let run = lab.run_dir().display().to_string();
    let said = crate::support::say(["report", &run, "--samples"]).expect_code(2);
    assert!(said.stderr.contains("SHA-256 differs"), "{}", said.stderr);
    crate::support::say(["report", &run]).expect_code(0);
}
