//! How deployments grow, and where the rest is lost, on real runs whose truth is known: engines with fixed instants and
//! slots, and one whose cache is small.

use crate::support::{Lab, free_port};
use serde_json::Value;

/// One engine that serves four requests at a time, twice that as copies, and a larger one that serves two.
fn experiment(deploys: &[(&str, &str)], load: &str, rest: &str) -> String {
    let mut text = String::from(
        "schema = 1\nname = \"grown\"\n[model]\nid = \"Qwen/Qwen2.5-7B-Instruct\"\n\
         [host.box]\ngpus = 8\ngpu = \"H100-SXM-80G\"\n",
    );
    for (name, keys) in deploys {
        text.push_str(&format!(
            "[[deploy]]\nname = \"{name}\"\nplatform = \"local\"\nengine = \"emulated\"\nport = {}\n\
             stop = {{ grace = \"5s\" }}\n{keys}\n",
            free_port()
        ));
    }
    text.push_str(
        "[[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 32\nosl = 8\nforce_len = true\nseed = 1\n",
    );
    text.push_str(&format!(
        "[[load]]\nname = \"l\"\nworkload = \"w\"\ntimeout = \"30s\"\n{load}\n{rest}"
    ));
    text
}

const SLOTS: [(&str, &str); 3] = [
    ("one", "place = [\"box:0\"]\nparams = { ttft = \"20ms\", itl = \"10ms\", slots = 4 }"),
    (
        "larger",
        "tp = 2\nplace = [\"box:0-1\"]\nparams = { ttft = \"20ms\", itl = \"10ms\", slots = 2 }",
    ),
    (
        "two",
        "replicas = 2\nplace = [\"box:0\", \"box:1\"]\nbalance = \"round-robin\"\n\
         params = { ttft = \"20ms\", itl = \"10ms\", slots = 4 }",
    ),
];

const LOAD: &str = "mode = \"closed\"\nconcurrency = 8\nrequests = 80\nwarmup = 4";

fn step<'a>(study: &'a Value, name: &str) -> &'a Value {
    let steps = study["steps"].as_array().unwrap();
    steps.iter().find(|s| s["deployment"] == name).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

fn loss<'a>(results: &'a Value, name: &str) -> &'a Value {
    let losses = results["losses"].as_array().unwrap();
    losses.iter().find(|l| l["deployment"] == name).unwrap()
}

/// What is in flight in the engine and not in a slot waits, and an engine with half of the slots gives half.
#[test]
fn sizes_are_held_against_their_ideal_and_the_loss_is_where_it_was_planted() {
    let rest = "[[report]]\nkind = \"scaling\"\nmetrics = [\"output_tps\", \"ttft.p50\"]\n\
                [[report]]\nkind = \"waterfall\"\n\
                [[expect]]\nmetric = \"efficiency.output_tps\"\nop = \">=\"\nvalue = 0.8\n\
                where = { deploy = \"two\" }\n\
                [[expect]]\nmetric = \"speedup.output_tps\"\nop = \">=\"\nvalue = 0.9\n\
                where = { deploy = \"larger\" }\n\
                [output]\nformats = [\"md\", \"html\", \"svg\"]\n";
    let lab = Lab::new(&experiment(&SLOTS, LOAD, rest));
    // One engine of twice the size does not do what one is expected to.
    let said = lab.say("run", &["--no-doctor"]).expect_code(1);
    assert!(
        said.stdout.contains("FAILED: speedup.output_tps >= 0.9 at larger/l/c8"),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains("Where the rest was lost"), "{}", said.stdout);

    let text = std::fs::read(lab.run_dir().join("results.json")).unwrap();
    let results: Value = serde_json::from_slice(&text).unwrap();
    let study = &results["scaling"][0];
    assert_eq!((&study["metric"], &study["baseline"]), (&"output_tps".into(), &"one".into()));
    let two = number(&step(study, "two")["efficiency"]["point"]);
    assert!((0.85..1.1).contains(&two), "{two}");
    let larger = step(study, "larger");
    let efficiency = number(&larger["efficiency"]["point"]);
    assert!(
        (0.22..0.28).contains(&efficiency),
        "a half of the slots on twice the size: {efficiency}"
    );
    assert_eq!(larger["control"]["deployment"], "two");
    assert_eq!(larger["load_growth"], "strong");

    let lost = loss(&results, "larger");
    let shares = lost["shares"].as_array().unwrap();
    assert_eq!(shares[0]["cause"], "queue", "{lost:#}");
    let sum: f64 = shares.iter().map(|s| number(&s["share"])).sum();
    assert!((sum - number(&lost["lost"])).abs() < 0.01, "{lost:#}");

    let page = std::fs::read_to_string(lab.run_dir().join("results.md")).unwrap();
    for part in
        ["## Scaling\n", "## Where the rest was lost\n", "Scaling of Token throughput, l c8"]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    let page = std::fs::read_to_string(lab.run_dir().join("report.html")).unwrap();
    assert!(page.contains("id=\"lost\"") && page.contains("id=\"scaling\""));
    let charts = lab.run_dir().join("charts");
    for name in ["grown-scaling.svg", "grown-where-the-rest-was-lost.svg"] {
        assert!(charts.join(name).is_file(), "{name}");
    }
}

/// Read off between levels, and never outside of what was measured.
#[test]
fn sizes_are_held_against_each_other_where_their_users_get_as_much() {
    let deploys = [
        ("one", "tp = 2\nplace = [\"box:0-1\"]"),
        (
            "two",
            "tp = 2\nreplicas = 2\nplace = [\"box:0-1\", \"box:2-3\"]\nbalance = \"round-robin\"",
        ),
    ];
    let load = "mode = \"closed\"\nconcurrency = [2, 16, 48]\nrequests = \"4x\"\nwarmup = 4";
    // Prompts of a larger model, which slow down who is being answered the more of them there are.
    let text = experiment(&deploys, load, "")
        .replace("Qwen/Qwen2.5-7B-Instruct", "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B")
        .replace("isl = 32\nosl = 8", "isl = 512\nosl = 16");
    let lab = Lab::new(&text);
    let results = lab.say("run", &["--no-doctor", "--json"]).json();
    let studies = results["scaling"].as_array().unwrap();
    let study = studies.iter().find(|s| s["basis"]["at"] == "interactivity").unwrap();
    let target = number(&study["basis"]["tps"]);
    for name in ["one", "two"] {
        let points = results["points"].as_array().unwrap();
        let of = |metric: fn(&Value) -> f64| -> Vec<f64> {
            points
                .iter()
                .filter(|p| p["deployment"] == name)
                .map(|p| metric(&p["metrics"]))
                .collect()
        };
        for (metric, value) in [
            (of(|m| number(&m["interactivity_tps"]["p50"])), target),
            (of(|m| number(&m["output_tps"])), number(&step(study, name)["value"])),
        ] {
            let low = metric.iter().copied().fold(f64::INFINITY, f64::min);
            let high = metric.iter().copied().fold(0.0, f64::max);
            assert!((low..=high).contains(&value), "{name}: {value} in {low} to {high}");
        }
    }
    assert!(number(&step(study, "two")["efficiency"]["point"]) > 0.0);
    assert!(study["text"].as_str().unwrap().contains("where a user gets"), "{study:#}");
}

/// A cache that holds three requests lets no fourth in, whatever the engine could compute.
#[test]
fn a_small_cache_is_what_a_loss_is_laid_to() {
    let deploys = [
        ("one", "place = [\"box:0\"]\nparams = { kv_tokens = 65536 }"),
        (
            "small",
            "tp = 2\nplace = [\"box:0-1\"]\nparams = { kv_tokens = 160, max_model_len = 128 }",
        ),
    ];
    let load = "mode = \"closed\"\nconcurrency = 12\nrequests = 72\nwarmup = 4";
    let lab = Lab::new(&experiment(&deploys, load, "[telemetry]\ninterval = \"100ms\"\n"));
    let said = lab.say("run", &["--no-doctor"]);
    assert!([Some(0), Some(3)].contains(&said.code), "{}", said.stderr);
    let text = std::fs::read(lab.run_dir().join("results.json")).unwrap();
    let results: Value = serde_json::from_slice(&text).unwrap();
    let lost = loss(&results, "small");
    assert_eq!(lost["shares"][0]["cause"], "kv_cache", "{lost:#}");
}

/// The block that a plan offers is one that can be pasted.
#[test]
fn the_missing_control_is_offered_as_a_block_and_its_plan_has_no_such_note() {
    let without = experiment(&SLOTS[..2], LOAD, "");
    let said = Lab::new(&without).say("plan", &["--json"]).expect_code(0).json();
    let notes = said["notes"].as_array().unwrap();
    let note = notes.iter().find(|n| n["path"] == "deploy[1]").unwrap();
    assert_eq!(
        note["message"],
        "'larger' grows its instance and has no control: the same 2 GPUs as whole copies"
    );
    let hint = note["hint"].as_str().unwrap();
    let (_, block) = hint.split_once('\n').unwrap();
    let with = without.replace("[[workload]]", &format!("{block}\n[[workload]]"));
    let said = Lab::new(&with).say("plan", &["--json"]).expect_code(0).json();
    let deployments = said["deployments"].as_array().unwrap();
    let pasted = deployments.iter().find(|d| d["name"] == "larger-copies").unwrap();
    assert_eq!((&pasted["gpus"], pasted["instances"].as_array().unwrap().len()), (&2.into(), 2));
    let notes = said["notes"].as_array().unwrap();
    assert!(!notes.iter().any(|n| n["path"] == "deploy[1]"), "{notes:#?}");
}

/// Ranks that reduce over a slow network between two nodes, as the emulator times them: what the report computes of that
/// is what was planted.
#[test]
fn time_in_collectives_is_computed_and_named_first() {
    let deploys = [
        ("one", "tp = 4\nplace = [\"box:0-3\"]\nparams = { gpu = \"H100-SXM\" }"),
        (
            "over-two",
            "tp = 8\nplace = [\"box:0-3 + far:0-3\"]\n\
             params = { gpu = \"H100-SXM\", inter_node_gbps = 10.0 }",
        ),
    ];
    let hosts = "[host.far]\ngpus = 4\ngpu = \"H100-SXM-80G\"\n";
    let load = "mode = \"closed\"\nconcurrency = 8\nrequests = 40\nwarmup = 4";
    let report = "[[report]]\nkind = \"scaling\"\n[output]\nformats = [\"json\"]\n";
    // Of a model whose heads 8 ranks can share.
    let text = experiment(&deploys, load, &format!("{hosts}{report}"));
    let text = text.replace("Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.1-8B-Instruct");
    let lab = Lab::new(&text);
    lab.say("run", &["--no-doctor"]).expect_code(0);

    let text = std::fs::read(lab.run_dir().join("results.json")).unwrap();
    let results: Value = serde_json::from_slice(&text).unwrap();
    let lost = loss(&results, "over-two");
    let shares = lost["shares"].as_array().unwrap();
    assert_eq!(shares[0]["cause"], "collectives", "{lost:#}");
    let evidence = shares[0]["evidence"].as_str().unwrap();
    let planted = "2 all-reduces a layer over 8 ranks on 2 nodes of 10 Gbit/s by TCP take ";
    assert!(evidence.starts_with(planted), "{evidence}");
    // Each of its 32 layers reduces twice, over 14 hops of 70 us.
    let ms: f64 = evidence[planted.len()..].split(' ').next().unwrap().parse().unwrap();
    let least = 7.0 * 32.0 * 2.0 * 14.0 * 0.070;
    assert!((least..1.2 * least).contains(&ms), "{ms} of at least {least}");
}
