//! The client inside of a cluster: a Job that runs the experiment there, so that nothing between a person's machine
//! and the cluster is measured, and nothing has to be exposed.
//!
//! It is `scalebeam run` in a pod, with an account of its own that may do in its namespace what `run` does: make the
//! deployment, look at it, and remove it. What it prints last is the results.

use super::kube::{Container, Labels, Resource, Template, Volume};
use super::rbac::{self, Bare, Rule, rule};
use super::subject::{Subject, one_line, seconds};
use super::{RenderError, RenderedFile, inference_pool, kube, yaml};
use scalebeam_model::plan::{DeploymentPlan, Plan, Platform};
use scalebeam_model::workload::{Source, Talk, Workload};
use serde::Serialize;
use std::collections::BTreeMap;

/// Where the experiment is in the pod.
const EXPERIMENT: &str = "experiment.toml";
const EXPERIMENT_DIR: &str = "/etc/scalebeam";
/// Where runs are written; the home of kubectl, too.
const RUNS: &str = "/runs";
/// What the teardown of a deployment may take beyond its grace.
const TEARDOWN_SECONDS: u64 = 120;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JobSpec {
    backoff_limit: u32,
    template: Template,
}

#[derive(Debug, Serialize)]
struct ConfigMap<'a> {
    #[serde(flatten)]
    object: Bare,
    data: BTreeMap<&'static str, &'a str>,
}

/// The file with the Job that runs `experiment`, the text of the file of `plan`, for deployment `d` inside of its
/// cluster; nothing where `d` names no image for it.
///
/// # Errors
/// When it could not run there as the file is.
pub fn client(
    plan: &Plan,
    d: &DeploymentPlan,
    experiment: &str,
) -> Result<Option<RenderedFile>, RenderError> {
    let subject = Subject::new(plan, d);
    let Some(image) = subject.text("client_image") else { return Ok(None) };
    check(&subject)?;
    let name = format!("{}-client", subject.name);
    let subject = Subject::new(plan, d).named(&name);
    let config = ConfigMap {
        object: Bare::new(&subject, ("v1", "ConfigMap"), &name),
        data: BTreeMap::from([(EXPERIMENT, experiment)]),
    };
    let job = JobSpec { backoff_limit: 0, template: pod(&subject, d, image) };
    let mut documents = rbac::account(&subject, &name, rules(d.platform))?.to_vec();
    documents.push(yaml::document(&subject, &config)?);
    documents.push(yaml::document(&subject, &subject.object(("batch/v1", "Job"), &name, job))?);
    Ok(Some(file(&subject, &documents)))
}

/// What `run` does with a deployment on `platform`, and no more. Whoever gives rights must have them, so what the
/// deployment's own accounts may do is among it.
fn rules(platform: Platform) -> Vec<Rule> {
    const MAKE: &[&str] = &["get", "list", "create", "patch", "delete"];
    let made: Vec<Resource> =
        [kube::custom_resources(platform), kube::plain_resources(platform)].concat();
    let of_group = |resources: &[Resource]| {
        let names: Vec<&'static str> = resources.iter().map(|(name, _)| *name).collect();
        resources.first().map(|(_, group)| rule(group, &names, MAKE))
    };
    let mut rules: Vec<Rule> =
        made.chunk_by(|(_, a), (_, b)| a == b).filter_map(of_group).collect();
    rules.push(rule("", &["pods"], &["get", "list"]));
    rules.push(rule("", &["pods/log"], &["get"]));
    // Telemetry agents come into pods so; a WebSocket is a `get` to API servers before 1.35.
    rules.push(rule("", &["pods/exec"], &["get", "create"]));
    if platform == Platform::InferencePool {
        rules.extend(inference_pool::picker_rules());
    }
    rules
}

/// `scalebeam run` of the one deployment. When the Job is deleted, it is told to end, and takes down what it made.
fn pod(subject: &Subject<'_>, d: &DeploymentPlan, image: &str) -> Template {
    let experiment = format!("{EXPERIMENT_DIR}/{EXPERIMENT}");
    let args = ["run", &experiment, "--deploy", &d.name, "--out", RUNS, "--json"];
    let container = Container {
        name: "client",
        image: image.to_owned(),
        command: vec!["scalebeam".to_owned()],
        args: args.iter().map(|arg| kube::literal(arg)).collect(),
        env: vec![kube::set("HOME", RUNS.to_owned())],
        volume_mounts: vec![kube::mount("experiment", EXPERIMENT_DIR), kube::mount("runs", RUNS)],
        ..Container::default()
    };
    let mut template = subject.template_of(container, Labels::new());
    let spec = &mut template.spec;
    spec.service_account_name = Some(subject.name.clone());
    spec.restart_policy = Some("Never");
    spec.termination_grace_period_seconds = seconds(d.stop.grace) + TEARDOWN_SECONDS;
    spec.volumes = vec![
        Volume::of_config("experiment", &subject.name),
        match subject.text("results_pvc") {
            Some(claim) => Volume::of_claim("runs", claim),
            None => Volume::scratch("runs"),
        },
    ];
    template
}

fn file(subject: &Subject<'_>, documents: &[String]) -> RenderedFile {
    let name = &subject.name;
    let path = format!("{name}.yaml");
    let at = subject.text("namespace").map_or(String::new(), |n| format!(" --namespace {n}"));
    let text = format!(
        "# Runs deployment {} of experiment {} inside of its cluster, rendered by scalebeam from its file.\n\
         # up:      kubectl apply -f {path}\n\
         # results: kubectl{at} logs job/{name} | sed -n '/^{{/,$p', once it is done\n\
         # down:    kubectl delete -f {path} --ignore-not-found\n{}",
        subject.deployment.name,
        one_line(&subject.plan.name),
        yaml::joined(documents)
    );
    RenderedFile { path, text }
}

fn check(subject: &Subject<'_>) -> Result<(), RenderError> {
    if subject.text("context").is_some() {
        let hint = "remove context: the Job is in the cluster that it is applied to";
        return Err(subject.cannot("a Job has no kubeconfig, and the file names a context", hint));
    }
    let mine = subject.plan.every_point().filter(|p| p.deployment == subject.deployment.name);
    if mine.map(|p| &p.workload).any(reads_a_file) {
        let hint = "use a workload without a file, or run scalebeam in a pod that has it";
        return Err(subject.cannot("its load reads a file that the Job would not have", hint));
    }
    Ok(())
}

fn reads_a_file(workload: &Workload) -> bool {
    match &workload.source {
        Source::File { .. } | Source::Sessions { talk: Talk::File { .. }, .. } => true,
        Source::Mix { parts } => parts.iter().any(|part| reads_a_file(&part.workload)),
        Source::Synthetic { .. } | Source::Prompts { .. } | Source::Sessions { .. } => false,
    }
}
