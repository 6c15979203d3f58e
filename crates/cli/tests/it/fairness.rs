//! `fairness` and `pareto` reports of real runs: seed 5's mixed load, and seed 3's front, on emulated engines.

use crate::support::{Lab, free_port, say, unwrapped};
use serde_json::Value;

/// Seed 5's experiments 2 and 4 in small: two longs and two shorts at once, against two shorts alone; and ten prompts as
/// a batch, at once and one by one.
fn mixed() -> String {
    let deploy = |name: &str, budget: u32| {
        format!(
            "[[deploy]]\nname = \"{name}\"\nplatform = \"local\"\nengine = \"emulated\"\nport = {}\nplace = [\"box:0\"]\n\
             params = {{ max_num_batched_tokens = {budget} }}\nstop = {{ grace = \"5s\" }}\n",
            free_port()
        )
    };
    let synthetic = |name: &str, isl: u32, osl: u32, more: &str| {
        format!(
            "[[workload]]\nname = \"{name}\"\nkind = \"synthetic\"\nisl = {isl}\nosl = {osl}\nforce_len = true\n{more}"
        )
    };
    let load = |name: &str, workload: &str, rest: &str| {
        format!("[[load]]\nname = \"{name}\"\nworkload = \"{workload}\"\nwarmup = 2\n{rest}\n")
    };
    [
        "schema = 1\nname = \"week5\"\n[model]\nid = \"Qwen/Qwen2.5-7B-Instruct\"\n".to_owned(),
        "[host.box]\ngpus = 1\ngpu = \"H100-SXM-80G\"\n".to_owned(),
        deploy("tp1-2048", 2048),
        deploy("tp1-8192", 8192),
        synthetic("short", 24, 8, ""),
        synthetic("long", 6000, 8, ""),
        synthetic("ten", 32, 16, "api = \"completions\"\n"),
        "[[workload]]\nname = \"both\"\nkind = \"mix\"\n\
         parts = [ { workload = \"long\", count = 2 }, { workload = \"short\", count = 2 } ]\n"
            .to_owned(),
        load("alone", "short", "mode = \"burst\"\nrequests = 2\nrepeats = 10"),
        load("mixed", "both", "mode = \"burst\"\nrequests = 4\nrepeats = 10"),
        load("batch", "ten", "mode = \"batch\"\nbatch = 10\nrequests = 1\nrepeats = 3"),
        load("at-once", "ten", "mode = \"burst\"\nrequests = 10\nrepeats = 3"),
        load("serial", "ten", "mode = \"serial\"\nrequests = 10\nrepeats = 3"),
        "[[report]]\nkind = \"fairness\"\nalone = \"alone\"\nmixed = \"mixed\"\nby = \"short\"\n\
         title = \"Short beside long\"\n"
            .to_owned(),
        "[[expect]]\nmetric = \"slowdown.ttft.p95\"\nop = \"<=\"\nvalue = 1.5\n\
         where = { deploy = \"tp1-2048\" }\n"
            .to_owned(),
        "[[expect]]\nmetric = \"jain\"\nop = \"<=\"\nvalue = 1\n".to_owned(),
        "[output]\nformats = [\"md\", \"html\", \"svg\", \"png\"]\n".to_owned(),
    ]
    .concat()
}

fn of<'a>(list: &'a Value, key: &str, name: &str) -> &'a Value {
    let list = list.as_array().unwrap_or_else(|| panic!("no list of {name}: {list:#}"));
    list.iter().find(|v| v[key] == name).unwrap_or_else(|| panic!("no {name}: {list:#?}"))
}

#[test]
fn shorts_that_wait_behind_longs_are_told_in_numbers_tables_and_a_chart() {
    let lab = Lab::new(&mixed());
    // The bound that does not hold decides.
    let said = lab.say("run", &["--json"]).expect_code(1);
    let results = said.json();
    let fairness = of(&results["fairness"], "deployment", "tp1-2048");
    assert_eq!((&fairness["load"], &fairness["alone"]), (&"mixed".into(), &"alone".into()));
    let short = of(&fairness["classes"], "class", "short");
    assert_eq!(short["requests"], 20);
    // Who is written first gets its tokens first; which of both that is, the machine decides.
    let overtaken = |class: &Value| class["overtaken"].as_u64().unwrap();
    let long = of(&fairness["classes"], "class", "long");
    assert!(overtaken(short) + overtaken(long) >= 20, "one of both in each trial: {fairness:#}");
    let slowdown = of(&short["slowdowns"], "metric", "ttft.p95");
    let (ratio, number) = (&slowdown["ratio"], |v: &Value| v.as_f64().unwrap());
    let (beside, alone) = (number(&slowdown["beside"]), number(&slowdown["alone"]));
    assert!((number(&ratio["point"]) - beside / alone).abs() < 1e-9, "{slowdown:#}");
    assert!(number(&ratio["low"]) > 1.0 && number(&ratio["low"]) <= number(&ratio["point"]));
    assert_eq!(ratio["method"], "bootstrap over 10 and 10 whole trials");
    assert!(long["slowdowns"].is_null(), "it does not count: {long:#}");
    assert!((0.25..=1.0).contains(&number(&fairness["evenness"]["jain"])), "{fairness:#}");

    let expects = results["expects"].as_array().unwrap();
    assert_eq!(expects.len(), 3, "one deployment, and both: {expects:#?}");
    assert_eq!(expects[0]["point"], "tp1-2048/mixed/n4");
    assert!(expects[0]["holds"] == false && expects[0]["value"] == ratio["point"]);
    assert!(expects[1]["holds"] == true && expects[2]["holds"] == true);

    let ways = of(&results["ways"], "deployment", "tp1-2048");
    assert_eq!((&ways["workload"], &ways["prompts"]), (&"ten".into(), &10.into()));
    let at_once = number(&of(&ways["ways"], "load", "at-once")["speedup"]["point"]);
    assert!(at_once > 2.0, "decoded side by side: {ways:#}");
    assert!(of(&ways["ways"], "load", "serial")["speedup"].is_null());

    let dir = lab.run_dir();
    let text = unwrapped(&say(["report", dir.to_str().unwrap()]).expect_code(1).stdout);
    assert!(text.contains("short beside others against alone: TTFT p50 "), "{text}");
    let waited = format!("{} of 20 waited behind another class", overtaken(short));
    assert!(text.contains(&waited), "{waited}: {text}");
    let page = std::fs::read_to_string(dir.join("results.md")).unwrap();
    for title in
        ["Each class beside others", "How evenly mixed loads", "The same prompts as a batch"]
    {
        assert!(page.contains(&format!("\n## {title}")), "{title}: {page}");
    }
    let chart = std::fs::read_to_string(dir.join("charts/short-beside-long.svg")).unwrap();
    for words in ["Slowdown, TTFT p95", "1 is no slowdown", "Waited behind another class"] {
        assert!(chart.contains(words), "{words}");
    }
    keep(&dir, "short-beside-long");
}

#[test]
fn a_class_without_its_yardstick_has_no_slowdown_and_fails_with_the_reason() {
    let lab = Lab::new(&mixed());
    let said =
        lab.say("run", &["--json", "--load", "mixed", "--deploy", "tp1-2048"]).expect_code(1);
    let expect = &said.json()["expects"][0];
    assert!(expect["holds"] == false && expect["value"].is_null(), "{expect:#}");
    assert_eq!(expect["absent"], "load 'alone' was not measured here");
    let dir = lab.run_dir();
    let text = unwrapped(&say(["report", dir.to_str().unwrap()]).expect_code(1).stdout);
    assert!(text.contains("(is n/a: load 'alone' was not measured here)"), "{text}");
}

/// Seed 3's front in small: one copy cut in two against two whole copies.
fn front() -> String {
    let deploy = |name: &str, rest: &str| {
        format!(
            "[[deploy]]\nname = \"{name}\"\nplatform = \"local\"\nengine = \"emulated\"\nport = {}\n{rest}\n\
             stop = {{ grace = \"5s\" }}\n",
            free_port()
        )
    };
    [
        "schema = 1\nname = \"front\"\n[model]\nid = \"Qwen/Qwen2.5-7B-Instruct\"\n".to_owned(),
        "[host.box]\ngpus = 2\ngpu = \"H100-SXM-80G\"\n".to_owned(),
        deploy("tp2", "tp = 2\nplace = [\"box:0-1\"]"),
        deploy("dp2", "replicas = 2\nplace = [\"box:0\", \"box:1\"]\nbalance = \"least-inflight\""),
        "[[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 2000\nosl = 24\nforce_len = true\n"
            .to_owned(),
        "[[load]]\nname = \"conc\"\nworkload = \"w\"\nmode = \"closed\"\nconcurrency = \"pow2:0..5\"\n\
         requests = \"4x>=16\"\nwarmup = 2\n"
            .to_owned(),
        "[[report]]\nkind = \"pareto\"\nbaseline = \"dp2\"\nat = [110, 5000]\ntitle = \"Front\"\n".to_owned(),
        "[output]\nformats = [\"md\", \"html\", \"svg\", \"png\"]\n".to_owned(),
    ]
    .concat()
}

#[test]
fn the_front_and_what_lies_at_a_target_follow_from_the_points() {
    let lab = Lab::new(&front());
    let results = lab.say("run", &["--json"]).json();
    let front = &results["fronts"][0];
    assert_eq!(
        (&front["x"], &front["y"]),
        (&"interactivity_tps.p50".into(), &"output_tps_per_gpu".into())
    );
    let points = front["points"].as_array().unwrap();
    assert_eq!(points.len(), 12);
    let place = |p: &Value| (p["x"].as_f64().unwrap(), p["y"].as_f64().unwrap());
    let trusted: Vec<&Value> = points.iter().filter(|p| p["trust"] != "invalid").collect();
    for p in &trusted {
        let (x, y) = place(p);
        let beats = |o: &&&Value| {
            let (a, b) = place(o);
            a >= x && b >= y && (a > x || b > y)
        };
        assert_eq!(p["is_on_front"] == true, !trusted.iter().any(|o| beats(&o)), "{p:#}");
    }
    let reads = front["read_outs"].as_array().unwrap();
    assert_eq!(reads.len(), 4, "two deployments at two targets");
    for read in &reads[2..] {
        assert!(read["y"].is_null(), "{read:#}");
        assert!(
            read["absent"].as_str().unwrap().contains("was not measured: its points lie between")
        );
    }
    // One request at a time is faster than that, and many that take each other's steps for their prompts are slower.
    for read in &reads[..2] {
        let (y, between) = (read["y"].as_f64().unwrap(), read["between"].as_array().unwrap());
        let ys: Vec<f64> = between.iter().map(|n| n["y"].as_f64().unwrap()).collect();
        let low = ys.iter().copied().fold(f64::MAX, f64::min);
        let high = ys.iter().copied().fold(0.0, f64::max);
        assert!(low <= y && y <= high, "{read:#}");
    }
    let y = |i: usize| reads[i]["y"].as_f64().unwrap();
    let ratio = reads[0]["ratio"].as_f64().unwrap();
    assert!((ratio - y(0) / y(1)).abs() < 1e-9 && reads[0]["baseline"] == "dp2");
    assert!(reads[1]["ratio"].is_null());
    let dir = lab.run_dir();
    let page = std::fs::read_to_string(dir.join("results.md")).unwrap();
    assert!(
        page.contains("## Points that no other beats") && page.contains("| vs dp2 |"),
        "{page}"
    );
    let chart = std::fs::read_to_string(dir.join("charts/front.svg")).unwrap();
    for words in ["(tok/s/user), higher is better", ">at 110<", "outside of all points: 5,000"] {
        assert!(chart.contains(words), "{words}");
    }
    keep(&dir, "front");
}

/// `SCALEBEAM_LOOK=DIR` leaves the picture there to be looked at.
fn keep(dir: &std::path::Path, chart: &str) {
    if let Some(look) = std::env::var_os("SCALEBEAM_LOOK") {
        std::fs::create_dir_all(&look).unwrap();
        let to = std::path::PathBuf::from(look);
        std::fs::copy(dir.join(format!("charts/{chart}.png")), to.join(format!("{chart}.png")))
            .unwrap();
        std::fs::copy(dir.join("report.html"), to.join(format!("{chart}.html"))).unwrap();
    }
}
