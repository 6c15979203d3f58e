//! What is rendered of the experiments of this repository, as it is written.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use scalebeam_fleet::engine::engines;
use scalebeam_fleet::render::{Rendered, render};
use scalebeam_model::plan::{Plan, resolve};
use scalebeam_model::spec::Experiment;
use serde_json::Value;

fn plan(name: &str) -> Plan {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../../experiments/{name}.toml"));
    let text = std::fs::read_to_string(path).unwrap();
    let experiment = Experiment::parse(&text, name, engines()).unwrap();
    resolve(&experiment, engines()).unwrap()
}

fn text(rendered: &[Rendered], deployment: &str) -> String {
    let one = rendered.iter().find(|r| r.deployment == deployment).unwrap();
    one.files[0].text.clone()
}

#[test]
fn seed4_on_modal() {
    let rendered = render(&plan("seed4-modal-gpu-users")).unwrap();
    let all: Vec<String> = ["1gpu", "2gpu", "4gpu"].iter().map(|d| text(&rendered, d)).collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn seed2_on_kuberay() {
    let rendered = render(&plan("seed2-kuberay-scaling")).unwrap();
    insta::assert_snapshot!("seed2_on_three_hosts", text(&rendered, "b256-3n-16g"));
    insta::assert_snapshot!("seed2_across_hosts", text(&rendered, "b32-tp-across-nodes"));
}

#[test]
fn seed2_takes_the_gpus_of_its_plan_and_admits_its_loads() {
    let plan = plan("seed2-kuberay-scaling");
    let rendered = render(&plan).unwrap();
    assert_eq!(rendered.len(), 9);
    for (deployment, one) in plan.deployments.iter().zip(&rendered) {
        let read: Value = serde_saphyr::from_str(&one.files[0].text).unwrap();
        let config = read["spec"]["serveConfigV2"].as_str().unwrap();
        let config: Value = serde_saphyr::from_str(config).unwrap();
        let llm = &config["applications"][0]["args"]["llm_configs"][0];
        let replicas = deployment.instances.len();
        assert_eq!(llm["deployment_config"]["num_replicas"], replicas, "{}", one.deployment);
        let users = if one.deployment.starts_with("b256") { 256 } else { 32 };
        assert_eq!(llm["deployment_config"]["max_ongoing_requests"], users * replicas);
        let groups = read["spec"]["rayClusterConfig"]["workerGroupSpecs"].as_array().unwrap();
        let of = |group: &Value| -> u32 {
            let limits = &group["template"]["spec"]["containers"][0]["resources"]["limits"];
            limits["nvidia.com/gpu"].as_str().unwrap().parse().unwrap()
        };
        assert_eq!(groups.iter().map(of).sum::<u32>(), deployment.gpus, "{}", one.deployment);
    }
}

#[test]
fn every_platform() {
    let rendered = render(&plan("platforms")).unwrap();
    for one in &rendered {
        let name = format!("platform_{}", one.deployment);
        insta::assert_snapshot!(name, format!("{}:\n{}", one.files[0].path, one.files[0].text));
    }
}

#[test]
fn files_of_a_plan_have_names_of_their_own() {
    for name in ["seed2-kuberay-scaling", "seed4-modal-gpu-users", "platforms"] {
        let rendered = render(&plan(name)).unwrap();
        let mut paths: Vec<&str> =
            rendered.iter().flat_map(|r| &r.files).map(|f| f.path.as_str()).collect();
        let all = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), all, "{name}");
        assert!(paths.iter().all(|p| !p.contains('/')), "{paths:?}");
    }
}

#[test]
fn what_runs_here_has_no_files() {
    assert_eq!(render(&plan("quickstart")), Ok(vec![]));
}
