//! `selftest --beside`: other clients, good and bad, in the turns of ours. No number is asserted that is the
//! machine's affair.

use crate::support::{Said, root, say};
use serde_json::Value;

fn selftest(args: &[&str]) -> Said {
    let said = say([&["selftest", "--quick", "--streams", "4"], args].concat());
    // 3 where this machine is too busy to measure anything, which is a true answer.
    assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
    said
}

/// The rows of other clients in the closed case and in the open one.
fn rows(said: &Said) -> [Value; 2] {
    let json = said.json();
    [0, 1].map(|case| json["cases"][case]["measured"]["beside"].clone())
}

fn stand_in() -> String {
    let script = root().join("tests-support/stand_in_client.py");
    format!("their=python3 {} {{url}} {{requests}} {{streams}} {{result}}", script.display())
}

#[test]
fn another_client_is_measured_from_outside() {
    let said = selftest(&["--json", "--beside", &stand_in()]);
    let [closed, open] = rows(&said);
    let row = &closed[0];
    assert_eq!(row["client"], "their");
    assert_eq!((&row["whole"], &row["requests"]), (&4.into(), &4.into()), "{row:#}");
    assert_eq!(row["measured"]["lost"], 0);
    for name in ["wall_s", "start_cpu_s", "cpu_per_token_over_raw"] {
        assert!(row[name].as_f64().unwrap() > 0.0, "{name}: {row:#}");
    }
    assert!(row["arrivals_alike"].is_boolean(), "{row:#}");
    for name in [
        "cpu_us_per_token",
        "cpu_us_per_request",
        "tokens_per_s",
        "server_cpu_us_per_token",
        "launch_ms",
    ] {
        assert!(row["measured"][name].as_f64().unwrap() > 0.0, "{name}: {row:#}");
    }
    let errors = row["errors"].as_object().unwrap();
    let known: Vec<&String> = errors.keys().collect();
    assert_eq!(known, ["mean_ttft_ms", "mean_itl_ms"], "what it did not say has no error");
    // Its stamps are taken before it sends and after it has read: what it says is too much.
    assert!(errors["mean_ttft_ms"].as_f64().unwrap() > 0.0, "{row:#}");
    assert_eq!(open[0]["skipped"], "its command has no {rate}");
    assert_eq!(open[0].get("wall_s"), None);
}

#[test]
fn a_client_that_fails_or_does_nothing_is_a_row_with_the_reason() {
    let gaps = "{url} {requests} {streams} {rate}";
    let fails = format!("fails=/bin/sh -c 'echo first; echo \"oh no\" >&2; exit 3' {gaps}");
    let idle = format!("idle=/bin/true {gaps}");
    let absent = format!("/nowhere/a-client {gaps}");
    let all = ["--beside", &fails, "--beside", &idle, "--beside", &absent];
    let said = selftest(&[&["--json"], &all[..]].concat());
    for case in rows(&said) {
        let why = |i: usize| case[i]["unmeasured"][0]["reason"].as_str().unwrap().to_owned();
        assert_eq!(why(0), "exit status: 3");
        assert_eq!(case[0]["unmeasured"][0]["said_last"], serde_json::json!(["first", "oh no"]));
        assert_eq!(case[0]["measured"].get("cpu_us_per_token"), None, "{case:#}");
        assert_eq!(case[0]["measured"]["lost"], case[0]["requests"]);
        assert_eq!(why(1), "it had no request answered");
        assert!(why(2).starts_with("cannot start /nowhere/a-client: "), "{case:#}");
        assert_eq!(case[2]["client"], "a-client");
    }
}

#[test]
fn a_client_that_hangs_is_ended_and_said_so() {
    let hangs = "hangs=/bin/sh -c 'echo waiting; sleep 600' {url} {requests} {streams}";
    let said = selftest(&["--beside", hangs, "--beside-limit", "1"]);
    let from = said.stdout.find("hangs at ").unwrap_or_else(|| panic!("{said:#?}"));
    insta::assert_snapshot!(said.stdout[from..].trim_end(), @"
    hangs at 4 streams: 0 of 4 requests whole
      no measurement: not done after 1 s, and ended
        waiting
    hangs at 500 req/s: not run: its command has no {rate}
    ");
    let row = said.stdout.lines().find(|l| l.starts_with("4 streams") && l.contains("hangs"));
    assert!(row.unwrap().ends_with("n/a"), "{said:#?}");
}

#[test]
fn a_command_that_cannot_be_meant_is_refused_before_anything_starts() {
    let said = say(["selftest", "--beside", "run {url} {stream}"]).expect_code(2);
    assert!(said.stderr.contains("there is no {stream}; there are {host}"), "{}", said.stderr);
    let twice = ["selftest", "--beside", "run {url}", "--beside", "/bin/run {port}"];
    insta::assert_snapshot!(say(twice).expect_code(2).stderr, @"
    error: --beside: two clients are called 'run'

    hint: NAME=COMMAND gives one of them another name
    ");
}
