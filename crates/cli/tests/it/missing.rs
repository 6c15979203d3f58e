//! What a run directory has lost, or has in the place of something else, is told and never taken for a result.

use crate::interrupt::{signal, start};
use crate::support::{Lab, emulated, json_lines, say, unwrapped, wait_for};
use serde_json::Value;
use std::path::Path;

const FAST: &str = "ttft = \"5ms\", itl = \"1ms\"";
const LOAD: &str =
    "mode = \"closed\"\nconcurrency = [2, 4]\nrequests = 24\nwarmup = 2\nrepeats = 2\n";

fn report(dir: &Path) -> Value {
    let said = say(["report", dir.to_str().unwrap(), "--json"]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
    said.json()
}

fn shown(dir: &Path) -> String {
    unwrapped(&say(["report", dir.to_str().unwrap()]).stdout)
}

/// The reason `code` of a point.
#[track_caller]
fn reason<'a>(point: &'a Value, code: &str) -> &'a Value {
    let reasons = point["trust"]["reasons"].as_array().unwrap();
    reasons.iter().find(|r| r["code"] == code).unwrap_or_else(|| panic!("no {code}: {point:#}"))
}

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copied(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[test]
fn trials_that_were_sealed_before_a_kill_are_reported_without_a_resume() {
    let load = "mode = \"closed\"\nconcurrency = 4\nrequests = 120\nwarmup = 4\nrepeats = 2\n";
    let lab = Lab::new(&emulated(&["one"], "ttft = \"10ms\", itl = \"2ms\"", load));
    let mut child = start(&lab);
    wait_for("the second trial", || {
        let Ok(mut runs) = std::fs::read_dir(lab.runs()) else { return false };
        let open = "points/one/l/c4/2/requests.open.jsonl";
        runs.any(|d| json_lines(&d.unwrap().path().join(open)).len() > 20)
    });
    signal(child.id(), "KILL");
    child.wait().unwrap();
    let dir = lab.run_dir();
    say(["down", dir.to_str().unwrap()]).expect_code(0);
    let results = report(&dir);
    assert_eq!(results["incomplete"], true);
    let point = &results["points"][0];
    assert_eq!(point["outcomes"]["completed"], 120, "{point:#}");
    assert_eq!(point["metrics"]["rps"], point["trials"][0]["metrics"]["rps"]);
    assert_eq!(point["trials"].as_array().unwrap().len(), 1);
    let partial = reason(point, "partial");
    assert_eq!(partial["level"], "caution");
    let message = partial["message"].as_str().unwrap();
    assert!(
        message.starts_with("1 of 2 trials are in these numbers; trial 2 was cut short"),
        "{message}"
    );
}

#[test]
fn points_whose_records_are_gone_are_told_by_the_plan_and_the_journal() {
    let lab = Lab::new(&emulated(&["one", "two"], FAST, LOAD));
    lab.say("run", &[]);
    let dir = lab.run_dir();
    assert_eq!(report(&dir)["unrecorded"], Value::Null);
    std::fs::remove_dir_all(dir.join("points/two")).unwrap();
    std::fs::remove_dir_all(dir.join("points/one/l/c2/1")).unwrap();
    let results = report(&dir);
    let gone = results["unrecorded"].as_array().unwrap();
    let places: Vec<String> =
        gone.iter().map(|p| format!("{}/{}", p["deployment"], p["level"])).collect();
    assert_eq!(places, ["\"two\"/\"c2\"", "\"two\"/\"c4\""]);
    let by_journal = "by the journal trials 1, 2 were measured to the end, and the record is gone";
    assert_eq!(gone[0]["reason"], by_journal);
    let partial = reason(&results["points"][0], "partial")["message"].as_str().unwrap().to_owned();
    assert!(partial.contains("by the journal trial 1 was measured to the end"), "{partial}");
    let text = shown(&dir);
    let want = format!("everything of two under l/c2, l/c4: {by_journal}");
    assert!(text.contains(&want), "{text}");
    let dir = dir.to_str().unwrap();
    say(["report", dir]).expect_code(3);
    let out = lab.dir.path().join("exported");
    let export = ["export", dir, "--as", "vllm", "--out", out.to_str().unwrap()];
    let said = say(export).expect_code(3);
    let told = unwrapped(&(said.stdout + &said.stderr));
    for want in [
        format!("`two/l/c4`, all of it: {by_journal}"),
        "`one/l/c2`, trial 1: by the journal it was measured to the end".to_owned(),
    ] {
        assert!(told.contains(&want), "{told}");
    }
}

/// What was proven stays so, whatever else is gone; what has no value any more proves nothing.
#[test]
fn an_expectation_that_failed_decides_before_records_that_are_gone() {
    let expect = "[[expect]]\nmetric = \"ttft.p50\"\nop = \"<\"\nvalue = 0.001\n";
    for (deploy, code) in [("one", 1), ("two", 3)] {
        let within = format!("{expect}where = {{ deploy = \"{deploy}\" }}\n");
        let load = "mode = \"serial\"\nrequests = 4\n";
        let lab = Lab::new(&(emulated(&["one", "two"], FAST, load) + &within));
        lab.say("run", &[]).expect_code(1);
        let dir = lab.run_dir();
        std::fs::remove_dir_all(dir.join("points/two")).unwrap();
        say(["report", dir.to_str().unwrap()]).expect_code(code);
    }
}

#[test]
fn levels_of_a_search_whose_records_are_gone_are_told_by_the_journal() {
    let load = "mode = \"closed\"\nrequests = 8\nslo = \"ttft.p90 <= 300ms\"\n\
                search = { from = 2, to = 4, precision = 0.5, tries = 1 }\n";
    let lab = Lab::new(&emulated(&["one"], FAST, load));
    lab.say("run", &[]);
    let dir = lab.run_dir();
    assert_eq!(report(&dir)["unrecorded"], Value::Null);
    std::fs::remove_dir_all(dir.join("points/one/l")).unwrap();
    say(["report", dir.to_str().unwrap()]).expect_code(3);
    let gone = report(&dir)["unrecorded"].clone();
    let why = "by the journal trial 1 was measured to the end, and the record is gone";
    assert_eq!((&gone[0]["level"], &gone[0]["reason"]), (&"c2".into(), &why.into()), "{gone:#}");
}

#[test]
fn a_trial_in_the_place_of_another_is_no_result_of_it() {
    let lab = Lab::new(&emulated(&["one"], FAST, LOAD));
    lab.say("run", &[]);
    let dir = lab.run_dir();
    let points = dir.join("points/one/l");
    std::fs::remove_dir_all(points.join("c4/1")).unwrap();
    copied(&points.join("c2/1"), &points.join("c4/1"));
    let results = report(&dir);
    let point = &results["points"][1];
    assert_eq!((&point["level"], &point["trust"]["level"]), (&"c4".into(), &"invalid".into()));
    let why = reason(point, "damaged")["message"].as_str().unwrap().to_owned();
    let want = "it is of trial 1 of one/l/c2, and lies where trial 1 of one/l/c4 does";
    assert!(why.contains("trial.json is damaged: ") && why.contains(want), "{why}");
    assert_ne!(results["points"][0]["trust"]["level"], "invalid");
    let resume = ["run", "--selftest", "never", "--resume", dir.to_str().unwrap(), "--json"];
    let point = say(resume).json()["points"][1].clone();
    assert_eq!(point["outcomes"]["completed"], 48, "{point:#}");
}

#[test]
fn what_is_asked_of_a_skipped_deployment_is_not_checked() {
    let text = emulated(&["good"], FAST, "mode = \"serial\"\nrequests = 4\n")
        + "[[deploy]]\nname = \"absent\"\nplatform = \"local\"\nengine = \"vllm\"\nparams = { bin = \"/no/such/vllm\" }\n\
           place = [\"box:0\"]\noptional = true\n\
           [[expect]]\nmetric = \"success_rate\"\nop = \"==\"\nvalue = 1.0\nwhere = { deploy = \"absent\" }\n\
           [[expect]]\nmetric = \"success_rate\"\nop = \"==\"\nvalue = 1.0\nwhere = { deploy = \"good\" }\n";
    let lab = Lab::new(&text);
    let said = lab.say("run", &[]).expect_code(0);
    let text = unwrapped(&said.stdout);
    assert!(text.contains("1 of 2 hold, 1 not checked"), "{text}");
    let want = "not checked: success_rate == 1 at absent: absent was skipped because ";
    assert!(text.contains(want) && !text.contains("FAILED"), "{text}");
    let expect = &report(&lab.run_dir())["expects"][0];
    assert_eq!((&expect["holds"], &expect["not_checked"]), (&false.into(), &true.into()));
}

#[test]
fn a_copy_of_a_run_is_no_repeat_of_it_whatever_it_is_called() {
    let labs = [(); 2].map(|()| {
        let lab = Lab::new(&emulated(&["one"], FAST, LOAD));
        lab.say("run", &[]);
        lab
    });
    let [a, b] = labs.each_ref().map(|lab| lab.run_dir());
    let copy = labs[0].dir.path().join("another");
    copied(&a, &copy);
    let id = a.file_name().unwrap().to_str().unwrap();
    let manifest = copy.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace(id, "20260101T000000Z-another")).unwrap();
    let [a, b, copy] = [&a, &b, &copy].map(|dir| dir.to_str().unwrap());
    let said = say(["compare", a, copy, "--", b]).expect_code(2);
    let want = "is there twice on side A: every request of it is in another run too";
    assert!(said.stderr.contains(want) && said.stderr.contains("name it once"), "{}", said.stderr);
    let said = say(["compare", a, copy]).expect_code(2);
    assert!(said.stderr.contains("is on both sides"), "{}", said.stderr);
    // A run that has not every level is in no number of the others.
    std::fs::remove_dir_all(Path::new(b).join("points/one/l/c4")).unwrap();
    let c = Lab::new(&emulated(&["one"], FAST, LOAD));
    c.say("run", &[]);
    let c = c.run_dir();
    let said = say(["compare", a, b, "--", c.to_str().unwrap()]);
    let want = format!(
        "not of every run: A: l/c4 was not met by {}",
        Path::new(b).file_name().unwrap().display()
    );
    assert!(unwrapped(&said.stdout).contains(&want), "{}\n{}", said.stdout, said.stderr);
}
