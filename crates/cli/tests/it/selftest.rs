//! `selftest`: counts, shape and words. What it measures is this machine's affair, and never asserted.

use crate::support::{Lab, emulated, say, scalebeam};
use std::collections::BTreeSet;

/// The shortest that there is.
const SHORT: &[&str] = &["selftest", "--quick", "--streams", "4"];

/// 3 where this machine is too busy to measure anything, which is a true answer.
fn measured(args: &[&str]) -> crate::support::Said {
    let said = say([SHORT, args].concat());
    assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
    said
}

/// Every number becomes `#`: what is left is the form.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' if out.ends_with('#') => {}
            '.' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            c => out.push(c),
        }
    }
    out
}

#[test]
fn every_number_is_there_and_nothing_is_lost() {
    let said = measured(&["--json"]);
    let json = said.json();
    let cases = json["cases"].as_array().unwrap();
    let names: Vec<&str> = cases.iter().map(|c| c["measured"]["case"].as_str().unwrap()).collect();
    assert_eq!(names, ["4 streams", "500 req/s"]);
    for case in cases {
        let measured = &case["measured"];
        for reader in ["ours", "raw"] {
            let of = &measured[reader];
            assert_eq!((&of["lost"], &of["miscounted"]), (&0.into(), &0.into()), "{said:#?}");
            for name in [
                "ttft_error_mean_ms",
                "ttft_error_ms_p99",
                "itl_error_ms_p99",
                "read_lag_ms_p99",
                "cpu_us_per_token",
                "cpu_us_per_request",
                "server_cpu_us_per_token",
                "launch_ms",
            ] {
                assert!(of[name].is_number(), "{reader} {name}: {of}");
            }
            // A token cannot arrive before it is written, nor a process be ready before it is started.
            assert!(of["read_lag_ms_p50"].as_f64().unwrap() > 0.0);
            assert!(of["launch_ms"].as_f64().unwrap() > 0.0);
            let rate = of.get("sent_rps").is_some();
            assert_eq!(rate, names[1] == measured["case"], "only an open loop has a rate");
        }
        assert!(case["cpu_per_token_over_raw"].as_f64().unwrap() > 0.0);
        assert!(case["arrivals_alike"].is_boolean());
        assert!(["sound", "caution", "invalid"].contains(&case["trust"].as_str().unwrap()));
    }
    let floor = &json["floor"];
    assert_eq!(floor["at"][0]["streams"], 4);
    assert!(floor["lateness_ms_p99"].is_number());
}

#[test]
fn a_person_reads_a_table_and_a_verdict() {
    let said = measured(&[]);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert!(lines[0].contains("load average") && lines[0].contains("one round"));
    let head: Vec<&str> = lines[2].split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
    insta::assert_snapshot!(head.join(" | "), @"case | reader | TTFT err mean ms | p99 | each p99 | ITL err p99 ms | each p99 | late p50 ms | late p99 | CPU us/token | us/request | RSS MB | CPU/raw");
    let rows: BTreeSet<String> =
        lines[3..7].iter().map(|l| l.split("  ").take(3).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(rows.len(), 4, "{}", said.stdout);
    let verdicts = without_numbers(&lines[8..].join("\n"));
    // What follows a semicolon depends on the machine, and whether there is a note.
    let verdicts = verdicts.lines().filter(|l| !l.starts_with('?'));
    let verdicts: Vec<&str> = verdicts.map(|l| l.split(';').next().unwrap()).collect();
    insta::assert_snapshot!(verdicts.join("\n"), @"
    at # streams TTFT is true to # ms (p# # ms), the time between tokens to # ms (p#)
    at # req/s requests leave # ms after they are due (p# # ms)
    ");
    assert_eq!(said.stderr, "", "no bar where nobody looks");
}

#[test]
fn what_cannot_be_measured_is_said_before_anything_starts() {
    let said = say(["selftest", "--streams", "0"]).expect_code(2);
    insta::assert_snapshot!(said.stderr, @"
    error: --streams: 0 is not between 1 and 20000

    hint: one address has no more ports than that; 10000 is a lot for one machine
    ");
    let said = say(["selftest", "--full", "--case", "nothing"]).expect_code(2);
    insta::assert_snapshot!(said.stderr, @"
    error: --case: there is no case 'nothing'

    hint: one of flat-out-64, paced-256, paced-1000, lockstep-1000, burst-4000, open-500rps, stall-500rps, early-role-8, tls-256, hold-9000, hold-10000, launch, claims-1, claims-10, claims-100, claims-500, claims-1000
    ");
    let said = say(["selftest-part", "{}", "1"]).expect_code(2);
    assert!(said.stderr.contains("hint: this command is for selftest alone"), "{}", said.stderr);
    assert_eq!(say(["selftest", "--full", "--quick"]).code, Some(2));
    assert_eq!(say(["selftest", "--case", "launch"]).code, Some(2), "--case wants --full");
}

#[test]
fn the_full_table_is_markdown() {
    let said = say(["selftest", "--full", "--case", "early-role-8", "--rounds", "1", "--markdown"]);
    let said = said.expect_code(0);
    let table: Vec<&str> = said.stdout.lines().filter(|l| l.starts_with('|')).collect();
    assert_eq!(table.len(), 3, "{}", said.stdout);
    let columns: BTreeSet<usize> = table.iter().map(|l| l.matches('|').count()).collect();
    assert_eq!(columns.len(), 1, "{}", said.stdout);
    assert!(table[2].starts_with("| early-role-8 | ours |"), "{}", table[2]);
}

#[test]
fn help_has_examples_and_hides_the_parts() {
    let said = say(["selftest", "--help"]).expect_code(0);
    assert!(
        said.stdout.contains("Examples:") && said.stdout.contains("scalebeam selftest --quick")
    );
    assert!(!say(["--help"]).expect_code(0).stdout.contains("selftest-part"));
}

#[test]
fn a_run_measures_the_instrument_first_where_it_is_asked_to() {
    let text = emulated(
        &["one"],
        "ttft = \"50ms\", itl = \"10ms\"",
        "mode = \"closed\"\nconcurrency = 2\nrequests = 20\n",
    );
    let run = |lab: &Lab, when: &[&str]| {
        let mut command = scalebeam();
        command.arg("run").arg(lab.file()).arg("--out").arg(lab.runs()).args(when);
        crate::support::Said::from(command.output().unwrap())
    };
    let lab = Lab::new(&text);
    let said = run(&lab, &["--selftest", "always", "--json"]);
    // 3 where this machine is too busy, which is a true answer.
    assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
    assert!(said.stderr.contains("instrument: at 2 streams TTFT is true to "), "{}", said.stderr);
    let floor = std::fs::read(lab.run_dir().join("floor.json")).unwrap();
    let floor: serde_json::Value = serde_json::from_slice(&floor).unwrap();
    assert_eq!((&floor["at"][0]["streams"], &floor["at"][0]["wrong"]), (&2.into(), &0.into()));
    assert!(floor["at"][0]["ttft_error_ms_p99"].is_number() && floor.get("rate_rps").is_none());
    // A floor that no number is above marks every point, also of an old run.
    let edit = |ms: f64| {
        let mut floor = floor.clone();
        floor["at"][0]["ttft_median_error_ms"] = ms.into();
        std::fs::write(lab.run_dir().join("floor.json"), floor.to_string()).unwrap();
        let said = say(["report", lab.run_dir().to_str().unwrap(), "--json"]);
        let reasons = said.json()["points"][0]["trust"]["reasons"].clone();
        let reasons = reasons.as_array().unwrap().clone();
        (said.code, reasons.into_iter().find(|r| r["code"] == "instrument_floor"))
    };
    let (code, reason) = edit(40.0);
    assert_eq!((code, reason.unwrap()["level"].as_str()), (Some(3), Some("invalid")));
    // So short a run is not measured first unless it is asked for, in the file or beside it.
    let lab = Lab::new(&text);
    let said = run(&lab, &[]);
    assert!(
        said.stderr.contains("instrument: not measured before so short a run"),
        "{}",
        said.stderr
    );
    assert!(!lab.run_dir().join("floor.json").exists());
    let lab = Lab::new(&text.replacen("schema = 1\n", "schema = 1\nselftest = \"never\"\n", 1));
    assert!(!run(&lab, &[]).stderr.contains("instrument:"));
}
