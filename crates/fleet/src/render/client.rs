//! The client inside of a cluster: a Job that runs the experiment there, so that nothing between a person's machine
//! and the cluster is measured, and nothing has to be exposed.
//!
//! It is `scalebeam run` in a pod, with an account of its own that may do in its namespace what `run` does: make the
//! deployments, look at them, and remove them. One that is rendered for a person prints the results last; one that a
//! scalebeam outside watches waits until that has fetched the run.

use super::kube::{Container, EnvVar, Labels, Resource, Template, Volume};
use super::rbac::{self, Bare, Rule, rule};
use super::subject::{Subject, one_line, seconds};
use super::{RenderError, RenderedFile, inference_pool, kube, yaml};
use scalebeam_model::plan::{DeploymentPlan, Plan, Platform};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::{Source, Talk, Workload};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// Where the experiment is in the pod.
const EXPERIMENT: &str = "experiment.toml";
const EXPERIMENT_DIR: &str = "/etc/scalebeam";
/// Where runs are written; the home of kubectl, too.
pub const RUNS: &str = "/runs";
/// Where the process that waits for the run keeps what it is asked for.
pub const STATE: &str = "/scalebeam";
/// What the teardown of a deployment may take beyond its grace.
const TEARDOWN: Nanos = Nanos::from_secs(120);
/// The program in the image.
pub(crate) const PROGRAM: &str = "scalebeam";
/// The one container of the pod.
pub(crate) const CONTAINER: &str = "client";
/// The resources that the Job is of, itself apart.
pub(crate) const BESIDE: [Resource; 4] = [
    ("configmaps", ""),
    ("serviceaccounts", ""),
    ("roles", "rbac.authorization.k8s.io"),
    ("rolebindings", "rbac.authorization.k8s.io"),
];
/// The Job itself.
pub(crate) const JOB: Resource = ("jobs", "batch");

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
    data: BTreeMap<String, &'a str>,
}

/// What is measured inside of a cluster, and what goes there with it.
#[derive(Debug, Clone, Copy)]
pub struct Inside<'a> {
    /// The plan of the experiment.
    pub plan: &'a Plan,
    /// Those of its deployments that are measured; all are for one cluster and namespace.
    pub deployments: &'a [&'a DeploymentPlan],
    /// The text of its file.
    pub experiment: &'a str,
    /// Texts of files that it reads, by their paths from it.
    pub files: &'a BTreeMap<String, String>,
}

/// Files that the loads of `deployments` read, by their paths from the experiment: `./` says nothing of where they are.
pub fn files_read(plan: &Plan, deployments: &[&DeploymentPlan]) -> BTreeSet<String> {
    let is_mine = |name: &str| deployments.iter().any(|d| d.name == name);
    let mut files: BTreeSet<String> = plan.model.tokenizer.iter().cloned().collect();
    for point in plan.every_point().filter(|p| is_mine(&p.deployment)) {
        add_files(&point.workload, &mut files);
    }
    files.iter().map(|name| plain(name)).collect()
}

/// `path` without any `./`.
fn plain(path: &str) -> String {
    let parts = Path::new(path).components().filter(|part| *part != Component::CurDir);
    parts.collect::<PathBuf>().to_string_lossy().into_owned()
}

fn add_files(workload: &Workload, files: &mut BTreeSet<String>) {
    match &workload.source {
        Source::File { file, .. } | Source::Sessions { talk: Talk::File { file, .. }, .. } => {
            files.insert(file.clone());
        }
        Source::Mix { parts } => parts.iter().for_each(|part| add_files(&part.workload, files)),
        Source::Synthetic { .. } | Source::Prompts { .. } | Source::Sessions { .. } => {}
    }
}

/// The file with the Job that a person applies to measure `d` inside of its cluster; nothing where `d` names no image
/// for it.
///
/// # Errors
/// When it could not run there as the file is.
pub fn client(
    plan: &Plan,
    d: &DeploymentPlan,
    experiment: &str,
    files: &BTreeMap<String, String>,
) -> Result<Option<RenderedFile>, RenderError> {
    let subject = Subject::new(plan, d);
    if subject.text("client_image").is_none() {
        return Ok(None);
    }
    if subject.text("context").is_some() {
        let hint = "remove context: the Job is in the cluster that it is applied to; or have \
                    `scalebeam run --in-cluster` apply it there";
        return Err(subject.cannot("a Job has no kubeconfig, and the file names a context", hint));
    }
    let name = format!("{}-client", subject.name);
    let inside = Inside { plan, deployments: &[d], experiment, files };
    let place = experiment_path();
    let words = [PROGRAM, "run", &place, "--deploy", &d.name, "--out", RUNS, "--json"];
    let documents = documents(&inside, &name, &words.map(str::to_owned))?;
    Ok(Some(file(&subject.named(&name), &documents)))
}

/// The file with the Job `name` that does `words` inside of the cluster of `inside`.
///
/// # Errors
/// When it could not run there as the file is.
pub(crate) fn job(
    inside: &Inside<'_>,
    name: &str,
    words: &[String],
) -> Result<RenderedFile, RenderError> {
    let documents = documents(inside, name, words)?;
    let text = format!(
        "# Runs experiment {} inside of its cluster, rendered by scalebeam from its file.\n{}",
        one_line(&inside.plan.name),
        yaml::joined(&documents)
    );
    Ok(RenderedFile { path: format!("{name}.yaml"), text })
}

/// Where the experiment is in the pod.
pub fn experiment_path() -> String {
    format!("{EXPERIMENT_DIR}/{EXPERIMENT}")
}

/// How long the pod has to take down what it made, once it is asked to end.
pub(crate) fn grace(deployments: &[&DeploymentPlan]) -> Nanos {
    let longest = deployments.iter().map(|d| d.stop.grace).max().unwrap_or_default();
    Nanos(longest.0.saturating_add(TEARDOWN.0))
}

fn documents(
    inside: &Inside<'_>,
    name: &str,
    words: &[String],
) -> Result<Vec<String>, RenderError> {
    let Inside { plan, deployments, experiment, files } = *inside;
    // What is the same for all is read of the first.
    let Some(first) = deployments.first() else { return Ok(Vec::new()) };
    let subject = Subject::new(plan, first).named(name);
    check(&subject, inside)?;
    let data = files.values().enumerate().map(|(index, text)| (key_of(index), text.as_str()));
    let config = ConfigMap {
        object: Bare::new(&subject, ("v1", "ConfigMap"), name),
        data: data.chain([(EXPERIMENT.to_owned(), experiment)]).collect(),
    };
    let job = JobSpec { backoff_limit: 0, template: pod(&subject, inside, words) };
    let mut documents = rbac::account(&subject, name, rules(deployments))?.to_vec();
    documents.push(yaml::document(&subject, &config)?);
    documents.push(yaml::document(&subject, &subject.object(("batch/v1", "Job"), name, job))?);
    Ok(documents)
}

/// The key of a file in the ConfigMap, which knows no folders.
fn key_of(index: usize) -> String {
    format!("file-{index}")
}

/// What `run` does with `deployments`, and no more. Whoever gives rights must have them, so what the deployments' own
/// accounts may do is among it.
fn rules(deployments: &[&DeploymentPlan]) -> Vec<Rule> {
    const MAKE: &[&str] = &["get", "list", "create", "patch", "delete"];
    let mut groups: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
    let made = deployments.iter().map(|d| d.platform).flat_map(|platform| {
        kube::custom_resources(platform).iter().chain(kube::plain_resources(platform))
    });
    for (name, group) in made.copied() {
        match groups.iter_mut().find(|(of, _)| *of == group) {
            Some((_, names)) if names.contains(&name) => {}
            Some((_, names)) => names.push(name),
            None => groups.push((group, vec![name])),
        }
    }
    let mut rules: Vec<Rule> =
        groups.into_iter().map(|(group, names)| rule(group, &names, MAKE)).collect();
    rules.push(rule("", &["pods"], &["get", "list"]));
    rules.push(rule("", &["pods/log"], &["get"]));
    // Telemetry agents come into pods so; a WebSocket is a `get` to API servers before 1.35.
    rules.push(rule("", &["pods/exec"], &["get", "create"]));
    if deployments.iter().any(|d| d.platform == Platform::InferencePool) {
        rules.extend(inference_pool::picker_rules());
    }
    rules
}

/// The pod. When the Job is deleted, its program is told to end, and takes down what it made.
fn pod(subject: &Subject<'_>, inside: &Inside<'_>, words: &[String]) -> Template {
    let (program, args) = words.split_first().map_or((PROGRAM, words), |(p, a)| (p.as_str(), a));
    let mounts = [("experiment", EXPERIMENT_DIR), ("runs", RUNS), ("state", STATE)];
    let container = Container {
        name: CONTAINER,
        image: subject.text("client_image").unwrap_or_default().to_owned(),
        command: vec![kube::literal(program)],
        args: args.iter().map(|arg| kube::literal(arg)).collect(),
        env: env(subject, inside.deployments),
        volume_mounts: mounts.map(|(name, path)| kube::mount(name, path)).into(),
        ..Container::default()
    };
    let mut template = subject.template_of(container, Labels::new());
    let spec = &mut template.spec;
    spec.service_account_name = Some(subject.name.clone());
    spec.restart_policy = Some("Never");
    spec.termination_grace_period_seconds = seconds(grace(inside.deployments));
    let places = inside.files.keys().enumerate().map(|(index, path)| (key_of(index), path.clone()));
    let places = places.chain([(EXPERIMENT.to_owned(), EXPERIMENT.to_owned())]);
    spec.volumes = vec![
        Volume::of_config("experiment", &subject.name, places),
        match subject.text("results_pvc") {
            Some(claim) => Volume::of_claim("runs", claim),
            None => Volume::scratch("runs"),
        },
        Volume::scratch("state"),
    ];
    template
}

/// Keys that its requests are sent with come from the Secret that has the other variables.
fn env(subject: &Subject<'_>, deployments: &[&DeploymentPlan]) -> Vec<EnvVar> {
    let keys = deployments.iter().flat_map(|d| d.api_key_env.iter().chain(d.headers_env.values()));
    let keys: BTreeSet<&String> = keys.collect();
    let keys = keys.into_iter().map(|name| subject.secret_variable(name));
    std::iter::once(kube::set("HOME", RUNS.to_owned())).chain(keys).collect()
}

fn file(subject: &Subject<'_>, documents: &[String]) -> RenderedFile {
    let name = &subject.name;
    let path = format!("{name}.yaml");
    let at = subject.text("namespace").map_or(String::new(), |n| format!(" --namespace {n}"));
    // The pod takes down what it made by its account, which must be there until it is gone.
    let down = format!(
        "kubectl{at} delete job/{name} --ignore-not-found --cascade=foreground && \
         kubectl delete -f {path} --ignore-not-found"
    );
    let text = format!(
        "# Runs deployment {} of experiment {} inside of its cluster, rendered by scalebeam from its file.\n\
         # up:      kubectl apply -f {path}\n\
         # results: kubectl{at} logs job/{name} | sed -n '/^{{/,$p', once it is done\n\
         # down:    {down}\n{}",
        subject.deployment.name,
        one_line(&subject.plan.name),
        yaml::joined(documents)
    );
    RenderedFile { path, text }
}

/// Refuses files that would not be there. What is a folder there has its files below its name.
fn check(subject: &Subject<'_>, inside: &Inside<'_>) -> Result<(), RenderError> {
    let is_there = |name: &String| {
        let below = format!("{}/", name.trim_end_matches('/'));
        inside.files.keys().any(|path| path == name || path.starts_with(&below))
    };
    let missing = files_read(inside.plan, inside.deployments).into_iter().find(|f| !is_there(f));
    let Some(file) = missing else { return Ok(()) };
    let hint = "texts of 900 kB together, beside or below the experiment file, go with the Job; else use a workload \
                without a file, or run scalebeam in a pod that has it";
    Err(subject.cannot(format!("its load reads a file that the Job would not have: {file}"), hint))
}
