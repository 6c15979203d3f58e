//! What is rendered of the experiments of this repository, as it is written.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use scalebeam_fleet::engine::engines;
use scalebeam_fleet::render::{Rendered, client, render};
use scalebeam_model::plan::{Plan, resolve};
use scalebeam_model::spec::Experiment;
use serde_json::Value;
use std::collections::BTreeMap;

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

/// The published schema of a kind, where it is one of those that are kept here.
fn published(kind: &str) -> Option<Value> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../../tests-support/crds/{kind}.json"));
    let text = std::fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

/// The objects in what is rendered of a deployment of `platforms`.
fn objects(deployment: &str) -> Vec<Value> {
    let rendered = render(&plan("platforms")).unwrap();
    let text = text(&rendered, deployment);
    text.split("---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is_it = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == name;
    objects.iter().find(is_it).unwrap_or_else(|| panic!("{kind} {name}: {objects:#?}"))
}

#[test]
fn an_inference_pool_is_as_its_published_schemas_say() {
    let mut held = Vec::new();
    for object in &objects("pool") {
        let Some(published) = object["kind"].as_str().and_then(published) else { continue };
        assert_eq!(object["apiVersion"], published["apiVersion"]);
        let validator = jsonschema::validator_for(&published["schema"]).unwrap();
        let problems: Vec<String> = validator.iter_errors(object).map(|e| e.to_string()).collect();
        assert_eq!(problems, [""; 0], "{object:#}");
        held.push(object["kind"].clone());
    }
    assert_eq!(held, ["InferencePool", "Gateway", "HTTPRoute"]);
}

#[test]
fn a_pool_has_the_engine_s_pods_alone_and_its_own_picker() {
    let objects = objects("pool");
    let pool = find(&objects, "InferencePool", "pool");
    let selector = pool["spec"]["selector"]["matchLabels"].as_object().unwrap();
    let is_in = |deployment: &str| {
        let pods = &find(&objects, "Deployment", deployment)["spec"]["template"]["metadata"];
        selector.iter().all(|(name, value)| pods["labels"][name] == *value)
    };
    assert!(is_in("pool") && !is_in("pool-picker"), "{selector:?}");
    assert_eq!(find(&objects, "Deployment", "pool")["spec"]["replicas"], 3);

    let picker = &pool["spec"]["endpointPickerRef"];
    let service = find(&objects, "Service", picker["name"].as_str().unwrap());
    assert_eq!(service["spec"]["ports"][0]["port"], picker["port"]["number"]);
    let pod = &find(&objects, "Deployment", "pool-picker")["spec"]["template"]["spec"];
    find(&objects, "ServiceAccount", pod["serviceAccountName"].as_str().unwrap());
    let args = pod["containers"][0]["args"].as_array().unwrap();
    let at = args.iter().position(|arg| arg == "--config-text").unwrap();
    let config: Value = serde_json::from_str(args[at + 1].as_str().unwrap()).unwrap();
    let weighed = &config["schedulingProfiles"][0]["plugins"];
    let prefix = serde_json::json!({ "pluginRef": "prefix-cache-scorer", "weight": 3 });
    assert_eq!(weighed[0], prefix, "{config:#}");
}

#[test]
fn the_client_inside_of_a_cluster_has_the_file_as_it_is_and_may_do_what_a_run_does() {
    let plan = plan("platforms");
    let of = |name: &str| plan.deployments.iter().find(|d| d.name == name).unwrap();
    assert_eq!(client(&plan, of("k8s-one"), "x", &BTreeMap::new()), Ok(None), "it names no image");
    let experiment = "# yes: no\nschema = 1\n\n---\n\tname = \"$(HOME) $5 'x'\"\n";
    let file = client(&plan, of("k8s-anywhere"), experiment, &BTreeMap::new()).unwrap().unwrap();
    insta::assert_snapshot!(format!("{}:\n{}", file.path, file.text));
    let documents: Vec<Value> =
        file.text.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect();
    let name = "k8s-anywhere-client";
    assert_eq!(find(&documents, "ConfigMap", name)["data"]["experiment.toml"], experiment);
    let pod = &find(&documents, "Job", name)["spec"]["template"];
    assert_eq!(pod["spec"]["serviceAccountName"], name);
    // A Service of the deployment must not send requests to it.
    assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/instance"], name);
    let rules = find(&documents, "Role", name)["rules"].as_array().unwrap();
    let may = |resource: &str, verb: &str| {
        let has = |list: &Value, word: &str| list.as_array().unwrap().iter().any(|w| w == word);
        rules.iter().any(|rule| has(&rule["resources"], resource) && has(&rule["verbs"], verb))
    };
    for (resource, verb) in
        [("statefulsets", "patch"), ("services", "delete"), ("pods", "list"), ("pods/log", "get")]
    {
        assert!(may(resource, verb), "{verb} {resource}");
    }
    assert!(!may("pods", "delete") && !may("secrets", "get"), "{rules:#?}");
}
