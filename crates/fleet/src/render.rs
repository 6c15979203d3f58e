//! The files with which a platform brings a deployment up: what `scalebeam plan --render` writes.
//!
//! **Invariants.** Pure: a function of the plan, without a file, an environment or a clock; the same plan
//! gives the same bytes. Commands are the plan's own, word for word: what a platform adds is where they
//! run. No secret is in a file: a variable that is passed on by name stays a name. Nothing is applied.
//!
//! To add a platform: one file here with a function from `Subject` to [`Rendered`], one arm in
//! `deployment`, and its parameters in the table of `model::plan`.

pub(crate) mod client;
mod dgd;
mod inference_pool;
mod k8s;
pub(crate) mod kube;
mod kuberay;
mod lws;
mod modal;
mod rbac;
mod shell;
mod skypilot;
mod slurm;
mod subject;
#[cfg(test)]
mod tests;
mod yaml;

pub use client::client;
pub use client::{Inside, RUNS, STATE, experiment_path, files_read};

pub(crate) use slurm::script::scratch_of_job;

use scalebeam_model::plan::{DeploymentPlan, Plan, Platform};
use subject::Subject;

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RenderedFile {
    /// Relative to where all are written: a name, without a folder.
    pub path: String,
    /// Its whole text.
    #[serde(skip)]
    pub text: String,
}

/// What brings one deployment up, and down again.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Rendered {
    /// Its name in the plan.
    pub deployment: String,
    /// Its platform.
    pub platform: Platform,
    /// Its files.
    pub files: Vec<RenderedFile>,
    /// The command that brings it up, from the folder of the files.
    pub up: String,
    /// The command that takes it down.
    pub down: String,
    /// Where it answers then, as `endpoint` of a deployment with platform = "external". Words in capitals
    /// are only known once it is up.
    pub endpoints: Vec<String>,
    /// The command that runs the experiment inside of its cluster, where the file asks for that: instead of the
    /// others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inside: Option<String>,
}

impl Rendered {
    /// The keys of a deployment that attaches to it.
    pub fn attach(&self) -> String {
        attach(&self.endpoints)
    }
}

fn attach(endpoints: &[String]) -> String {
    let endpoint = match endpoints {
        [one] => format!("\"{one}\""),
        several => format!("[\"{}\"]", several.join("\", \"")),
    };
    format!("platform = \"external\", endpoint = {endpoint}")
}

/// Why a deployment's files cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("deployment '{deployment}' cannot be rendered for {}: {reason}", platform.name())]
pub struct RenderError {
    /// The deployment.
    pub deployment: String,
    /// Its platform.
    pub platform: Platform,
    /// What is missing, or what the platform cannot do.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
}

/// The files of every deployment of `plan` whose platform starts its processes itself, in plan order.
/// Those on this machine, over ssh and of somebody else have none.
///
/// # Errors
/// The first deployment whose shape the platform cannot serve, or which does not say enough.
pub fn render(plan: &Plan) -> Result<Vec<Rendered>, RenderError> {
    let rendered = plan.deployments.iter().filter(|d| d.platform.renders());
    rendered.map(|d| deployment(&Subject::new(plan, d))).collect()
}

/// The files of the deployment `name` of `plan`, or why there are none; nothing where its platform starts no process
/// itself, or the plan has none of that name.
pub fn of(plan: &Plan, name: &str) -> Option<Result<Rendered, RenderError>> {
    let is_it = |d: &&DeploymentPlan| d.name == name && d.platform.renders();
    let found = plan.deployments.iter().find(is_it)?;
    Some(deployment(&Subject::new(plan, found)))
}

/// The files of one deployment of `plan` for one run, in which it is called `name`.
///
/// # Errors
/// When the platform has no files, cannot serve its shape, or is not told enough.
pub fn for_run(plan: &Plan, d: &DeploymentPlan, name: &str) -> Result<Rendered, RenderError> {
    deployment(&Subject::new(plan, d).named(name))
}

fn deployment(subject: &Subject<'_>) -> Result<Rendered, RenderError> {
    match subject.deployment.platform {
        Platform::Modal => modal::render(subject),
        Platform::Kuberay => kuberay::render(subject),
        Platform::K8s => k8s::render(subject),
        Platform::Lws => lws::render(subject),
        Platform::Dgd => dgd::render(subject),
        Platform::InferencePool => inference_pool::render(subject),
        Platform::Slurm => slurm::render(subject),
        Platform::Skypilot => skypilot::render(subject),
        Platform::Local | Platform::Ssh | Platform::External => {
            Err(subject.cannot("it has no files", "bring it up with `scalebeam up`, or attach"))
        }
    }
}
