//! SGLang on this machine. It needs GPUs, so what is started is a stand-in of ours: it takes the flags of SGLang's own
//! parser and no others, joins ranks, and meets its other half as SGLang's servers do.

use crate::support::{Lab, free_port, marked_processes, root};
use serde_json::Value;

/// An experiment with one deployment `d` of SGLang, on two "nodes" of this machine.
pub(crate) fn lab(deploy: &str) -> Lab {
    let stand_in = root().join("tests-support/stand_in_sglang");
    Lab::new(&format!(
        "schema = 1\nname = \"sglang\"\n[model]\nid = \"org/m\"\nserved = \"m\"\n\
         [host.a]\naddr = \"127.0.0.2\"\ngpus = 4\n[host.b]\naddr = \"127.0.0.3\"\ngpus = 4\n\
         [env]\nPYTHONPATH = \"{}\"\nPYTHONDONTWRITEBYTECODE = \"1\"\n\
         [[deploy]]\nname = \"d\"\nplatform = \"local\"\nengine = \"sglang\"\nport = {}\n\
         ready = {{ timeout = \"1m\" }}\nstop = {{ grace = \"5s\" }}\n{deploy}\n\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 16\nosl = 8\nforce_len = true\nseed = 1\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"closed\"\nconcurrency = 4\nrequests = 24\n\
         warmup = 4\ntimeout = \"60s\"\n",
        stand_in.display(),
        free_port(),
    ))
}

/// Weighs the deployment: every request is answered, and nothing is left. Whether it is to be trusted on a busy
/// machine is not asked here.
#[track_caller]
pub(crate) fn weighed(lab: &Lab) -> Value {
    let said = lab.say("run", &["--json"]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    assert_eq!(marked_processes(&lab.runs()), []);
    let results = said.json();
    let point = results["points"][0].clone();
    assert_eq!(point["outcomes"]["completed"], 24, "{point:#}");
    assert_eq!(point["metrics"]["output_tokens"]["min"], 8.0, "{point:#}");
    point
}

/// Requests that engine `name` answered, by its own count.
#[track_caller]
pub(crate) fn answered(point: &Value, name: &str) -> Value {
    let engines = point["trials"][0]["engines"].as_array().unwrap();
    let engine = engines.iter().find(|e| e["name"] == name);
    let engine = engine.unwrap_or_else(|| panic!("no {name}: {engines:#?}"));
    engine["values"]["requests_done"]["counter"]["risen"].clone()
}

#[test]
fn one_host_is_weighed() {
    let lab = lab("tp = 2\nplace = [\"a:0-1\"]\nargs = [\"--schedule-conservativeness\", \"0.8\"]");
    let point = weighed(&lab);
    assert_eq!(answered(&point, "aggregated 0"), 24.0);
}

#[test]
fn ranks_on_two_hosts_join_and_the_first_answers() {
    let lab = lab("tp = 8\nplace = [\"a:0-3 + b:0-3\"]\nlauncher = \"mp\"");
    let point = weighed(&lab);
    assert_eq!(answered(&point, "aggregated 0"), 24.0);
    let logs = lab.run_dir().join("logs/d");
    let said = |log: &str| std::fs::read_to_string(logs.join(log)).unwrap();
    assert!(said("0-serve.log").contains("rank 1 joined"), "{}", said("0-serve.log"));
    assert!(said("0-rank1.log").contains("rank 1 is ready"), "{}", said("0-rank1.log"));
}

#[test]
fn a_flag_that_sglang_does_not_have_is_told_in_its_words() {
    let lab = lab("place = [\"a:0\"]\nargs = [\"--no-such-flag\"]");
    let said = lab.say("run", &[]);
    assert_ne!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("unrecognized arguments: --no-such-flag"), "{said:?}");
    assert_eq!(marked_processes(&lab.runs()), []);
}
