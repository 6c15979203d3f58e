//! `advise` on finished runs: numbers against sums made here, exit codes, and what is refused.

use crate::support::{Lab, Said, emulated, say, unwrapped};
use serde_json::Value;
use std::path::Path;

/// With two slots each of eight users waits for three others, far beyond the objective.
const LOAD: &str =
    "mode = \"closed\"\nconcurrency = [2, 8]\nrequests = 48\nwarmup = 2\ntimeout = \"20s\"";
const SLO: [&str; 2] = ["--slo", "ttft.p90 <= 150ms"];
const PRICES: &str = "currency = \"EUR\"\n[gpu.H100-SXM-80G]\non_demand = 3.0\nspot = 1.25\n\
                      [power]\nper_kwh = 0.3\n";

/// `slots` answers at a time of 95 ms each.
fn measured(name: &str, gpus: u32, slots: u32) -> Lab {
    let params = format!("ttft = \"60ms\", itl = \"5ms\", slots = {slots}");
    let text = emulated(&[name], &params, LOAD);
    let place = format!("tp = {gpus}\nplace = [\"box:0-{}\"]", gpus - 1);
    let lab = Lab::new(&text.replace("place = [\"box:0\"]", &place));
    std::fs::write(lab.dir.path().join("prices.toml"), PRICES).unwrap();
    lab.say("run", &["--no-doctor"]);
    lab
}

fn advise(runs: &[&Path], more: &[&str]) -> Said {
    let runs = runs.iter().map(|r| r.to_str().unwrap());
    say(["advise"].into_iter().chain(runs).chain(SLO).chain(more.iter().copied()))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// What a run's own results say of a level.
fn rps(run: &Path, level: &str) -> f64 {
    let results = say(["report", run.to_str().unwrap(), "--json"]).json();
    let points = results["points"].as_array().unwrap();
    number(&points.iter().find(|p| p["level"] == level).unwrap()["metrics"]["rps"])
}

#[track_caller]
fn near(got: &Value, want: f64) {
    let got = number(got);
    assert!((got / want - 1.0).abs() < 1e-9, "{got}, not {want}");
}

#[test]
fn two_runs_are_weighed_and_every_number_can_be_made_by_hand() {
    let (small, large) = (measured("small", 1, 2), measured("large", 4, 8));
    let prices = small.dir.path().join("prices.toml");
    let (small, large) = (small.run_dir(), large.run_dir());
    let asked = ["--rate", "30/s", "--prices", prices.to_str().unwrap(), "--utilisation", "25%"];
    let json = [&asked[..], &["--json"]].concat();
    let found = advise(&[&small, &large], &json).expect_code(0).json();
    let schema = say(["schema", "advise"]).expect_code(0).json();
    assert!(jsonschema::is_valid(&schema, &found), "{found:#}");

    // Two slots carry eight users only by making them wait; eight slots carry them.
    for (name, run, level, gpus) in [("small", &small, "c2", 1.0), ("large", &large, "c8", 4.0)] {
        let choices = found["choices"].as_array().unwrap();
        let choice =
            choices.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("{found:#}"));
        assert_eq!(choice["at"]["level"], level, "{choice:#}");
        let rate = rps(run, level);
        let copies = (30.0 * 1.2 / rate).ceil();
        near(&choice["copies"], copies);
        near(&choice["gpus"], copies * gpus);
        near(&choice["cost_per_hour"]["point"], copies * gpus * 3.0);
        near(&choice["utilisation"], 30.0 / (copies * rate));
        // Eight tokens a request.
        let mtok = |rate: f64| rate * 3_600.0 * 8.0 / 1e6;
        near(&choice["mtok_at_slo"]["output"], gpus * 3.0 / mtok(rate));
        near(&choice["mtok_at_demand"]["output"], copies * gpus * 3.0 / mtok(30.0));
        near(&choice["mtok_at_utilisation"]["output"], gpus * 3.0 / mtok(0.25 * rate));
        assert_eq!(choice["power"], Value::Null, "what is emulated takes no watts of its own");
    }
    let cost = |place: usize| number(&found["choices"][place]["cost_per_hour"]["point"]);
    assert!(cost(0) <= cost(1), "{found:#}");
    let turned = advise(&[&large, &small], &json).expect_code(0).json();
    assert_eq!(turned, found, "the order of runs changes nothing");

    let said = advise(&[&small, &large], &asked).expect_code(0).stdout;
    for part in [
        "SLO: ttft.p90 <= 150 ms",
        "To carry: 30 req/s, with 20 % head-room",
        "EUR an hour",
        "EUR for a million tokens, at 30 req/s where nothing else is said",
        "Output at 25 % used",
        "What would change the answer",
        " at 20 % less of its price: the same choice.",
        "small: priced by 1 x H100-SXM-80G, on_demand.",
        "copies side by side carry ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let dearer = advise(&[&small], &[&asked[..], &["--plan", "spot", "--json"]].concat()).json();
    let copies = number(&dearer["choices"][0]["copies"]);
    near(&dearer["choices"][0]["cost_per_hour"]["point"], copies * 1.25);
}

#[test]
fn exit_codes_say_whether_there_is_an_answer() {
    let lab = measured("one", 1, 2);
    let run = lab.run_dir();
    let run = run.to_str().unwrap();
    let said = say(["advise", run, "--slo", "ttft.p50 <= 1ms", "--rate", "5"]).expect_code(1);
    assert!(
        said.stdout.contains("no deployment that was measured meets the SLO"),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains("one: misses the SLO even at l/c2: ttft.p50"), "{}", said.stdout);
    // Without prices there is an answer by GPUs.
    let said = say(["advise", run, SLO[0], SLO[1], "--users", "5"]).expect_code(0);
    assert!(said.stdout.contains("one has no cost: no price is given."), "{}", said.stdout);
    let file = lab.file().display().to_string();
    let prices = lab.dir.path().join("wrong.toml");
    std::fs::write(&prices, "[gpu.H100]\non_demnd = 1.0\n").unwrap();
    for (args, part) in [
        (vec![run, SLO[0], SLO[1]], "--rate"),
        (vec![run, "--rate", "5"], "--slo"),
        (vec![run, "--slo", "ttft > 1s", "--rate", "5"], "hint: "),
        (vec![run, SLO[0], SLO[1], "--rate", "5", "--users", "5"], "cannot be used with"),
        (vec![run, SLO[0], SLO[1], "--rate", "-5"], "--rate"),
        (vec![&file, SLO[0], SLO[1], "--rate", "5"], "advice is read from what was measured"),
        (vec!["/nowhere", SLO[0], SLO[1], "--rate", "5"], "/nowhere"),
        (
            vec![run, SLO[0], SLO[1], "--rate", "5", "--prices", prices.to_str().unwrap()],
            "did you mean 'on_demand'?",
        ),
        (vec![run, SLO[0], SLO[1], "--rate", "5", "--load", "x"], "no load 'x'"),
    ] {
        let said = say([&["advise"][..], &args].concat()).expect_code(2);
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
        assert_eq!(said.stdout, "");
    }
}

#[test]
fn an_answer_that_hangs_on_a_point_that_is_not_trusted_ends_with_3() {
    let text = emulated(&["one"], "ttft = \"60ms\", itl = \"5ms\"", LOAD);
    let lab = Lab::new(&text.replace(
        "place = [\"box:0\"]",
        "place = [\"box:0\"]\nargs = [\"--fail-status\", \"500:0.3\"]",
    ));
    lab.say("run", &["--no-doctor"]);
    let run = lab.run_dir();
    let asked = ["--slo", "ttft.p50 <= 150ms", "--rate", "5"];
    let said = say([&["advise", run.to_str().unwrap()][..], &asked].concat()).expect_code(3);
    assert!(
        said.stdout.contains("only points that are not to be trusted meet the SLO"),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains("one l/c2 (failures)"), "{}", said.stdout);
}

#[test]
fn prices_of_the_file_price_a_run_and_what_is_wrong_in_them_is_told() {
    let text = emulated(&["one"], "ttft = \"5ms\", itl = \"1ms\"", LOAD);
    let priced = |prices: &str| Lab::new(&format!("{text}\n{prices}"));
    let lab = priced("[prices.gpu.H100-SXM-80G]\non_demand = 3.0\nspot = 1.25\n");
    let plan = lab.say("plan", &["--json"]).expect_code(0).json();
    assert_eq!(plan["deployments"][0]["price_per_hour"], 3.0);
    let own = text.replace("[[deploy]]", "[[deploy]]\nprice_per_hour = 7.0");
    let own = Lab::new(&format!("{own}\n[prices.gpu.H100-SXM-80G]\non_demand = 3.0\n"));
    let plan = own.say("plan", &["--json"]).expect_code(0).json();
    assert_eq!(plan["deployments"][0]["price_per_hour"], 7.0, "its own price goes first");
    for (prices, part) in [
        ("[prices.host.bix]\non_demand = 1.0", "did you mean 'box'?"),
        ("[prices.gpu.X]\nspot = -1.0", "a price is a number from 0 on"),
        ("[prices.gpu.X]\nspott = 1.0", "did you mean 'spot'?"),
        ("[prices.gpu.X]\nspot = nan", "a price is a number from 0 on"),
        ("[prices.gpu.X]\nspot = 1e308", "at most 1000000000"),
    ] {
        let said = priced(prices).say("check", &[]).expect_code(2);
        let all = said.stdout + &said.stderr;
        assert!(all.contains(part), "{part}: {all}");
    }
    // A table may hold more than one file needs, so that what is of nothing is told only.
    let said = priced("[prices.gpu.H100-SXM]\non_demand = 3.0\n").say("check", &[]).expect_code(0);
    let all = unwrapped(&(said.stdout + &said.stderr));
    let spot = priced("[prices.gpu.H100-SXM-80G]\nspot = 3.0\n").say("check", &[]).expect_code(0);
    let all_of_spot = unwrapped(&(spot.stdout + &spot.stderr));
    let want = "note: prices: no deployment has a price by it";
    assert!(all_of_spot.contains(want) && all_of_spot.contains("on_demand"), "{all_of_spot}");
    let want = "no GPU of this file is a 'H100-SXM', so the price is of nothing";
    assert!(all.contains(want) && all.contains("did you mean 'H100-SXM-80G'?"), "{all}");
}
