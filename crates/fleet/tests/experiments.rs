//! Every experiment file of the repository becomes processes or says why not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use scalebeam_fleet::engine::engines;
use scalebeam_model::plan::{DeploymentPlan, resolve};
use scalebeam_model::spec::Experiment;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn experiments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments")
}

fn deployment(experiment: &str, name: &str) -> DeploymentPlan {
    let path = experiments().join(format!("{experiment}.toml"));
    let text = std::fs::read_to_string(path).unwrap();
    let experiment = Experiment::parse(&text, name, engines()).unwrap();
    resolve(&experiment, engines()).unwrap().deployment(name).unwrap().clone()
}

/// Names of the pages of metrics that are read, with those that have an address apart from the entry's.
fn pages(experiment: &str, name: &str) -> (Vec<String>, usize) {
    let deployment = deployment(experiment, name);
    let targets = deployment.metrics_targets();
    let is_entry = |url: &&String| deployment.entries.iter().any(|e| e.url == **url);
    let own: BTreeSet<&String> =
        targets.iter().filter_map(|t| t.url.as_ref()).filter(|url| !is_entry(url)).collect();
    (targets.iter().map(|t| t.name.clone()).collect(), own.len())
}

#[test]
fn each_instance_is_asked_for_its_own_page_of_metrics() {
    let routed = pages("real-vllm-pd", "pd");
    assert_eq!(routed, (vec!["prefill 0".to_owned(), "decode 1".to_owned()], 2));
    // Each is an entry itself.
    let copies = pages("real-vllm-cpu", "two-replicas");
    assert_eq!(copies, (vec!["aggregated 0".to_owned(), "aggregated 1".to_owned()], 0));
    let (names, own) = pages("real-dynamo", "p6-d1");
    assert_eq!((names.len(), own), (8, 7), "{names:?}");
    assert_eq!((names[6].as_str(), names[7].as_str()), ("decode 6", "frontend"));
    // Behind the address that replicas of a cluster share, each page would be of another.
    let shared = deployment("seed2-kuberay-scaling", "b32-2n-8g").metrics_targets();
    let reached: Vec<(&str, bool)> =
        shared.iter().map(|t| (t.name.as_str(), t.url.is_some())).collect();
    assert_eq!(reached, [("aggregated 0", false), ("aggregated 1", false), ("frontend", true)]);
}

#[test]
fn every_experiment_of_the_repository_is_planned() {
    let mut seen = 0;
    for entry in std::fs::read_dir(experiments()).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let experiment = Experiment::parse(&text, &name, engines())
            .unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        let plan =
            resolve(&experiment, engines()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        for deployment in &plan.deployments {
            let started = !deployment.processes.is_empty();
            let attached = deployment.platform.name() == "external";
            assert!(started || attached, "{name}: {}", deployment.name);
            // A pod's or a container's own address is not asked for what an engine counts: it is nobody's here.
            if !deployment.platform.takes_routers() {
                let is_entry = |url: &String| deployment.entries.iter().any(|e| e.url == *url);
                let targets = deployment.metrics_targets();
                let urls = targets.iter().filter_map(|t| t.url.as_ref());
                assert!(urls.into_iter().all(is_entry), "{name}: {}", deployment.name);
            }
        }
        seen += 1;
    }
    assert!(seen > 0, "no experiment was found");
}
