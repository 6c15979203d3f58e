//! `search`: the capacity of a deployment whose capacity is known, also after a kill.

use crate::interrupt::{signal, start};
use crate::support::{Lab, emulated, emulator, say, wait_for};
use serde_json::Value;
use std::path::Path;

/// Four slots at 210 ms a request. A fifth user finds them taken: of each four requests one waits until
/// the others are done, and has its first token after 410 ms in place of 200.
const PARAMS: &str = "ttft = \"200ms\", itl = \"10ms\", slots = 4";
const LOAD: &str = "mode = \"closed\"\nrequests = \"4x>=12\"\nslo = \"ttft.p90 <= 300ms\"\n\
    search = { from = 2, to = 12, precision = 0.1, tries = 2 }\n";

fn lab() -> Lab {
    let text = emulated(&["one"], PARAMS, LOAD).replace("osl = 8", "osl = 2");
    Lab::new(&format!("{text}[[expect]]\nmetric = \"slo_capacity\"\nop = \">=\"\nvalue = 3.0\n"))
}

/// Trials of the search that were sealed.
fn sealed(dir: &Path) -> usize {
    let Ok(levels) = std::fs::read_dir(dir.join("points/one/l")) else { return 0 };
    let trials = levels.flatten().flat_map(|l| std::fs::read_dir(l.path()).into_iter().flatten());
    trials.flatten().filter(|t| t.path().join("requests.parquet").exists()).count()
}

#[track_caller]
fn knows_its_capacity(results: &Value) {
    let search = &results["searches"][0];
    // A busy machine adds to what is measured, never takes from it.
    let met = search["met"]["value"].as_f64().unwrap();
    assert!((3.0..=4.0).contains(&met), "{search:#}");
    assert!(search["missed"]["value"].as_f64().unwrap() <= 5.0, "{search:#}");
    assert_eq!(search["end"], "found");
    assert!(search["text"].as_str().unwrap().starts_with("highest concurrency that meets the SLO"));
    let points = results["points"].as_array().unwrap();
    assert!(points.iter().all(|p| p["is_probe"] == true));
    assert!(results["expects"][0]["holds"] == true && results["expects"][0]["value"] == met);
}

#[test]
fn it_finds_the_capacity_and_report_says_it_again() {
    let lab = lab();
    let plan = lab.say("plan", &[]).expect_code(0);
    assert!(plan.stdout.contains("1 deployment, 0 points, 1 search"), "{}", plan.stdout);
    assert!(plan.stdout.contains("the highest level from c2 to c12"), "{}", plan.stdout);
    assert!(plan.stdout.contains("at most 30 trials"), "{}", plan.stdout);
    let results = lab.say("run", &["--json"]).expect_code(0).json();
    knows_its_capacity(&results);
    let dir = lab.run_dir();
    let probes = results["searches"][0]["probes"].as_u64().unwrap();
    assert_eq!(sealed(&dir) as u64, probes, "each probe is a trial of the run directory");
    let again = say(["report", dir.to_str().unwrap(), "--json", "--format", "md,html"]);
    assert_eq!(again.expect_code(0).json()["searches"], results["searches"]);
    for page in ["results.md", "report.html"] {
        let page = std::fs::read_to_string(dir.join(page)).unwrap();
        assert!(page.contains("highest concurrency that meets the SLO"), "{page}");
    }
    // What was probed is among the raw records, request for request.
    let records = say(["report", dir.to_str().unwrap(), "--records", "csv"]).expect_code(0).stdout;
    let measured = records.lines().filter(|row| row.contains(",measure,")).count() as u64;
    let outcomes = results["points"].as_array().unwrap().iter().map(|p| p["outcomes"].clone());
    let due: u64 = outcomes
        .flat_map(|o| o.as_object().unwrap().clone())
        .map(|(_, n)| n.as_u64().unwrap())
        .sum();
    assert!(measured > 0 && measured == due, "{measured} of {due}");
    // Nothing is left to do.
    let again = say(["run", "--resume", dir.to_str().unwrap(), "--json"]).expect_code(0);
    assert_eq!(again.json()["searches"], results["searches"]);
}

#[test]
fn killed_in_the_middle_it_goes_on_from_what_is_recorded() {
    let lab = lab();
    let mut child = start(&lab);
    let runs = lab.runs();
    let dir = || std::fs::read_dir(&runs).ok()?.flatten().next().map(|d| d.path());
    wait_for("two probes", || dir().is_some_and(|dir| sealed(&dir) >= 2));
    signal(child.id(), "KILL");
    child.wait().unwrap();
    let dir = lab.run_dir();
    let kept = sealed(&dir);
    say(["down", dir.to_str().unwrap()]).expect_code(0);
    let cut = say(["report", dir.to_str().unwrap(), "--json"]).json();
    assert!(cut["searches"][0]["end"].is_null(), "{cut:#}");
    assert!(cut["searches"][0]["text"].as_str().unwrap().contains("--resume"));
    let results = say(["run", "--resume", dir.to_str().unwrap(), "--json"]).expect_code(0).json();
    knows_its_capacity(&results);
    let probes = results["searches"][0]["probes"].as_u64().unwrap();
    assert!(kept >= 2 && sealed(&dir) as u64 == probes, "what was measured was not measured again");
}

#[test]
fn what_a_search_lacks_is_told_with_a_hint() {
    let text =
        emulated(&["one"], PARAMS, "mode = \"open\"\nrequests = 10\nsearch = { from = 1, to = 9 }");
    let said = Lab::new(&text).say("check", &[]).expect_code(2);
    for want in
        ["'search' needs 'slo'", "an open load searches a rate", "write for example \"5/s\""]
    {
        assert!(said.stderr.contains(want) || said.stdout.contains(want), "{want}: {said:#?}");
    }
    for (args, want) in [
        (&["--search", "rate:1..9"][..], "--slo"),
        (&["--slo", "ttft<=1s", "--search", "rps:1..9"], "KIND:FROM..TO"),
        (&["--slo", "ttft<=1s", "--search", "rate:9..1"], "'to' must be above 'from'"),
        (&["--slo", "ttft<=1s", "--search", "rate:1..9", "-c", "4"], "cannot be used with"),
    ] {
        let said = say([&["bench", "http://127.0.0.1:9", "--model", "m"], args].concat());
        assert!(said.expect_code(2).stderr.contains(want), "{args:?}");
    }
}

/// Two slots at 25 ms a request serve 80 a second.
#[test]
fn a_load_beyond_capacity_ends_early_and_one_below_it_runs_to_its_end() {
    let server = emulator(&["--ttft", "20ms", "--itl", "5ms", "--slots", "2", "--model", "m"]);
    let out = tempfile::tempdir().unwrap();
    let ask = |rate: &str, duration: &str| {
        let args = ["--stop-oversaturated", "--osl", "2", "--isl", "16", "--warmup", "0", "--json"];
        let load = ["--request-rate", rate, "--duration", duration, "--arrival", "constant"];
        let url = ["bench", &server.url, "--out", out.path().to_str().unwrap()];
        say([&url[..], &load, &args].concat())
    };
    let below = ask("30", "4s").json();
    let below = &below["points"][0];
    assert_eq!(below["outcomes"]["completed"], 120);
    let codes = |point: &Value| point["trust"]["reasons"].to_string();
    assert!(!codes(below).contains("oversaturated"), "{below:#}");
    let above = ask("240", "60s").expect_code(3).json();
    let above = &above["points"][0];
    assert!(codes(above).contains("oversaturated"), "{above:#}");
    let sent = above["outcomes"]["completed"].as_u64().unwrap();
    assert!(sent < 7_200, "{sent} of 14400: it ended long before its minute");
    assert_eq!(
        above["outcomes"].as_object().unwrap().len(),
        1,
        "what was in flight ended as usual"
    );
}
