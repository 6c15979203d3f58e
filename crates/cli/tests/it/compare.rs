//! `compare` on finished runs: what differs first, then numbers; what is unlike is refused; exit codes.

use crate::support::{Lab, Said, emulated, say, unwrapped};
use std::path::Path;

const LOAD: &str =
    "mode = \"closed\"\nconcurrency = 2\nrequests = 12\nwarmup = 2\nrepeats = 3\ntimeout = \"20s\"";

/// A run of emulated deployments with fixed instants.
fn measured(names: &[&str], params: &str) -> Lab {
    let lab = Lab::new(&emulated(names, params, LOAD));
    lab.say("run", &["--no-doctor"]);
    lab
}

fn compare(a: &Path, b: &Path, more: &[&str]) -> Said {
    say([&["compare", a.to_str().unwrap(), b.to_str().unwrap()][..], more].concat())
}

#[test]
fn a_slower_run_is_a_regression_and_the_faster_one_is_none() {
    let fast = measured(&["one"], "ttft = \"20ms\", itl = \"5ms\"");
    let slow = measured(&["one"], "ttft = \"40ms\", itl = \"10ms\"");
    let (fast, slow) = (fast.run_dir(), slow.run_dir());
    let asked = ["--metrics", "output_tps,ttft.p50,tpot.p50", "--fail-on", "regression"];

    let said = compare(&fast, &slow, &asked).expect_code(1);
    for part in
        ["What differs: ", "command line: ", "--itl 5ms", "--itl 10ms", "l c2: 3 trials each"]
    {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    assert!(said.stdout.contains("Time to first token, p50: B is worse, "), "{}", said.stdout);
    assert!(said.stdout.contains("intervals: Welch over 3 and 3 trials"), "{}", said.stdout);

    let found = compare(&fast, &slow, &["--json"]).json();
    let schema = say(["schema", "compare"]).expect_code(0).json();
    assert!(jsonschema::is_valid(&schema, &found), "{found:#}");
    let rows = found["points"][0]["comparisons"].as_array().unwrap();
    let tpot = rows.iter().find(|r| r["metric"] == "tpot.p50").unwrap();
    let ratio = &tpot["ratio"];
    assert_eq!(tpot["verdict"], "worse", "{tpot:#}");
    assert!((ratio["point"].as_f64().unwrap() - 2.0).abs() < 0.2, "{ratio:#}");

    compare(&slow, &fast, &asked).expect_code(0);
    compare(&slow, &fast, &["--metrics", "tpot.p50", "--fail-on", "difference"]).expect_code(1);
    // Against itself it would always be alike.
    let said = compare(&fast, &fast, &["--margin", "50%"]).expect_code(2);
    assert!(said.stderr.contains(" is on both sides"), "{}", said.stderr);
    assert!(said.stderr.contains("name another run"), "{}", said.stderr);
}

#[test]
fn several_runs_a_side_are_repeats_and_each_counts_once() {
    let (fast, slow) = ("ttft = \"20ms\", itl = \"5ms\"", "ttft = \"40ms\", itl = \"10ms\"");
    // Three a side: two of a machine that others use, as other tests do, are taken for nothing alike.
    let labs = [fast, fast, fast, slow, slow, slow].map(|params| measured(&["one"], params));
    let dirs = labs.each_ref().map(|lab| lab.run_dir().display().to_string());
    let [a, b, e, c, d, f] = dirs.each_ref().map(String::as_str);
    let flags = ["compare", "--metrics", "tpot.p50", "--fail-on", "regression"];
    let said = say([&flags[..], &[a, b, e, "--", c, d, f]].concat()).expect_code(1);
    for part in [
        "A  one of lab (runs ",
        "l c2: 9 trials each, of 3 and 3 runs",
        "intervals: Welch over 3 and 3 runs",
        "Time per output token, p50: B is worse, ",
    ] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    assert!(!said.stdout.contains("in no interval: "), "{}", said.stdout);
    let found = say(["compare", a, b, "--json", "--", c, d]).json();
    let schema = say(["schema", "compare"]).expect_code(0).json();
    assert!(jsonschema::is_valid(&schema, &found), "{found:#}");
    assert_eq!(found["a"]["more"].as_array().unwrap().len(), 1);
    assert_eq!(found["points"][0]["comparisons"][0]["drawn"], "runs");
    // One run a side has one bring-up, and says what that leaves out.
    let said = say(["compare", a, c]);
    let words = unwrapped(&said.stdout);
    assert!(
        words.contains("in no interval: what differs from one bring-up to the next"),
        "{words}"
    );
    for (args, part, hint) in [
        (
            &[a, c, "--", b, d][..],
            "of A are no repeats of one thing: command line",
            "repeats of one thing",
        ),
        (&[a, a, "--", b], "is there twice on side A", "name it once"),
        (&[a, b, c], "3 are named, and two are compared", "A1 A2 -- B1 B2"),
        (&[a, b, "--", c, "--margin"], "--margin stands behind --", "options come before --"),
    ] {
        let said = say([&["compare"][..], args].concat()).expect_code(2);
        assert!(
            said.stderr.contains(part) && said.stderr.contains(hint),
            "{part}: {}",
            said.stderr
        );
    }
    let forced = say(["compare", "--force", a, c, "--", b, d]);
    assert!(
        forced.stdout.contains("* forced, not asked the same: command line"),
        "{}",
        forced.stdout
    );
}

#[test]
fn one_deployment_of_several_is_named_and_what_is_wrong_is_said() {
    let lab = measured(&["one", "two"], "ttft = \"20ms\", itl = \"5ms\"");
    let dir = lab.run_dir();
    let of = |name: &str| format!("{}:{name}", dir.display());
    let said = say(["compare", &of("one"), &of("two"), "--margin", "60%"]);
    assert!(said.stdout.starts_with("A  one of lab (run "), "{}", said.stderr);
    assert!(said.stdout.contains("alike within the margin of 60"), "{}", said.stdout);
    assert!(!said.stdout.contains("command line"), "ports and names are none: {}", said.stdout);
    for (args, part) in [
        ([of("one"), dir.display().to_string()], "has 2 deployments, and one is compared"),
        ([of("one"), of("three")], "has no deployment 'three'"),
        ([of("one"), "/nowhere".to_owned()], "/nowhere"),
    ] {
        let said = say([&["compare".to_owned()][..], &args].concat()).expect_code(2);
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
        assert!(said.stderr.contains("hint: "), "{}", said.stderr);
    }
    for (flag, value, part) in [
        ("--margin", "3", "write it as 3%"),
        ("--metrics", "speed", "no metric 'speed'"),
        ("--metrics", "prompt_tokens", "neither way is 'prompt_tokens' better"),
    ] {
        let said = say(["compare", &of("one"), &of("two"), flag, value]).expect_code(2);
        assert!(said.stderr.contains(part), "{}", said.stderr);
    }
}

#[test]
fn lengths_that_are_not_alike_are_refused_unless_it_is_forced() {
    let text = |osl: u32| {
        let text = emulated(&["one"], "ttft = \"5ms\", itl = \"1ms\"", LOAD);
        text.replace("osl = 8", &format!("osl = {osl}")).replace("repeats = 3", "repeats = 1")
    };
    let labs = [8, 12].map(|osl| {
        let lab = Lab::new(&text(osl));
        lab.say("run", &["--no-doctor"]);
        lab
    });
    let [a, b] = [labs[0].run_dir(), labs[1].run_dir()];
    let said = compare(&a, &b, &[]).expect_code(2);
    assert!(
        said.stderr.contains("output tokens under l/c2 (8.0 on average and 12.0)"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("--force compares them all the same"), "{}", said.stderr);
    assert_eq!(said.stdout, "", "no number before it is refused");
    let said = compare(&a, &b, &["--force", "--metrics", "output_tps"]);
    assert!(said.stdout.contains("* forced, not asked the same:"), "{}", said.stdout);
    assert!(said.stdout.contains("What differs: one thing"), "{}", said.stdout);
    // The other, where other tests take time from this machine.
    let widened =
        ["3 % for", "400 % for"].map(|by| format!("in flight at one time, widened by {by}"));
    assert!(widened.iter().any(|w| said.stdout.contains(w)), "{}", said.stdout);
}
