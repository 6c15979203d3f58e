//! From a path to a checked experiment and its plan.

use crate::commands::serve::emulated;
use crate::exit::Failure;
use scalebeam_fleet::render;
use scalebeam_model::plan::{DeploymentPlan, EngineKind, Plan, PlanNote, resolve};
use scalebeam_model::spec::{Diagnostics, Experiment, Problem};
use scalebeam_sim::catalog;
use scalebeam_sim::config::{ConfigError, EmulatedConfig, Timing};
use std::path::{Path, PathBuf};

/// A file that was read, checked and planned.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// As given.
    pub(crate) text: String,
    /// Prompt files and tokenizers are relative to this.
    pub(crate) base: PathBuf,
    pub(crate) experiment: Experiment,
    pub(crate) plan: Plan,
}

/// Which part of an experiment is wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    pub(crate) deploy: Vec<String>,
    pub(crate) load: Vec<String>,
}

/// Why a file is no experiment.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// It cannot be opened.
    File(Failure),
    /// It has problems.
    Problems(Diagnostics),
}

impl From<Unreadable> for Failure {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::File(failure) => failure,
            Unreadable::Problems(d) => Self::usage(format!(
                "{} in the experiment file\n\n{d}",
                match d.0.len() {
                    1 => "a problem".to_owned(),
                    n => format!("{n} problems"),
                }
            )),
        }
    }
}

/// Reads `path`.
pub(crate) fn load(path: &Path) -> Result<Loaded, Unreadable> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| {
        let failure = Failure::usage(format!("cannot read {shown}: {e}"));
        Unreadable::File(match e.kind() {
            std::io::ErrorKind::NotFound => {
                failure.hint("name an experiment file, as experiments/quickstart.toml")
            }
            _ => failure,
        })
    })?;
    let base = path.parent().map(Path::to_path_buf).unwrap_or_default();
    from_text(text, &shown, base)
}

/// Reads `path` for what is selected of it, which is to be started.
pub(crate) fn selected(path: &Path, selection: &Selection) -> Result<Loaded, Failure> {
    let mut loaded = load(path)?;
    loaded.select(selection)?;
    loaded.can_start(path)?;
    Ok(loaded)
}

/// Reads a text as the file `shown`.
pub(crate) fn from_text(text: String, shown: &str, base: PathBuf) -> Result<Loaded, Unreadable> {
    let engines = scalebeam_fleet::engine::engines();
    let experiment = Experiment::parse(&text, shown, engines).map_err(Unreadable::Problems)?;
    let plan = resolve(&experiment, engines)
        .map_err(|e| Unreadable::Problems(Diagnostics::locate(&text, shown, e.0)))?;
    Ok(Loaded { text, base, experiment, plan })
}

/// Emulated models and GPUs that are in no catalogue, and models that what is emulated cannot hold or share. Fixed times
/// need neither.
fn unfit_for_the_emulator(experiment: &Experiment, plan: &Plan) -> Vec<Problem> {
    let is_started =
        |d: &&DeploymentPlan| d.engine == EngineKind::Emulated && d.cannot_run.is_none();
    let mut out = Vec::new();
    for (index, spec) in experiment.deployments() {
        let deployment = plan.deployments.iter().find(|d| d.name == spec.name);
        let Some(deployment) = deployment.filter(is_started) else { continue };
        let configs = deployment.processes.iter().filter_map(|p| emulated(&p.args));
        let mut problems = configs.map(|config| of_config(index, &spec.name, &config));
        out.extend(problems.find(|of_one| !of_one.is_empty()).unwrap_or_default());
    }
    out
}

fn of_config(index: usize, name: &str, config: &EmulatedConfig) -> Vec<Problem> {
    let (gpu, model) = (config.gpu.as_str(), config.model.as_str());
    let is_timed = config.timing == Timing::Roofline;
    let no_gpu = (is_timed && catalog::gpu(gpu).is_none()).then(|| {
        let near = catalog::nearest(gpu, catalog::gpu_names());
        unknown(index, name, ("GPU", gpu), &near)
    });
    let no_model = (is_timed && catalog::model(model).is_none()).then(|| {
        let last = model.rsplit('/').next().unwrap_or(model);
        let near = catalog::nearest(last, catalog::model_names());
        unknown(index, name, ("model", model), &near)
    });
    let unknown: Vec<Problem> = no_gpu.into_iter().chain(no_model).collect();
    match config.validate() {
        Err(error) if unknown.is_empty() => vec![unfit(index, &error)],
        _ => unknown,
    }
}

fn unknown(index: usize, name: &str, (what, wanted): (&str, &str), near: &[&str]) -> Problem {
    let near = near.join(", ");
    let hint = format!("near it are {near}; fixed times (ttft, itl in params) need no {what}");
    let message = format!("'{name}' emulates the {what} '{wanted}', which is in no catalogue");
    Problem::new(format!("deploy[{index}]"), message, hint)
}

fn unfit(index: usize, error: &ConfigError) -> Problem {
    let hint = "give it another tp, pp or model, or a GPU with more memory; fixed times (ttft, itl in params) need none";
    Problem::new(format!("deploy[{index}]"), format!("it cannot be emulated: {error}"), hint)
}

impl Loaded {
    /// Refuses what could not be started: what is emulated and cannot be.
    pub(crate) fn can_start(&self, path: &Path) -> Result<(), Unreadable> {
        match unfit_for_the_emulator(&self.experiment, &self.plan) {
            unfit if unfit.is_empty() => Ok(()),
            unfit => {
                let shown = path.display().to_string();
                Err(Unreadable::Problems(Diagnostics::locate(&self.text, &shown, unfit)))
            }
        }
    }

    /// What the platforms of its deployments refuse. A file may be there to be emulated, so they are notes.
    pub(crate) fn refused(&self) -> Vec<PlanNote> {
        let of = |(index, name): (usize, &str)| {
            let error = render::of(&self.plan, name)?.err()?;
            let message = format!("{} refuses it: {}", error.platform.name(), error.reason);
            Some(PlanNote { path: format!("deploy[{index}]"), message, hint: error.hint })
        };
        let deployments = self.experiment.deployments();
        deployments.filter_map(|(index, spec)| of((index, &spec.name))).collect()
    }

    /// Keeps what was selected; a name that is not there is an error.
    pub(crate) fn select(&mut self, selection: &Selection) -> Result<(), Failure> {
        let plan = &mut self.plan;
        let deployments: Vec<String> = plan.deployments.iter().map(|d| d.name.clone()).collect();
        let mut loads: Vec<String> = plan.every_point().map(|p| p.load.clone()).collect();
        loads.dedup();
        known("deployment", &selection.deploy, &deployments)?;
        known("load", &selection.load, &loads)?;
        let wanted = |list: &[String], name: &String| list.is_empty() || list.contains(name);
        plan.deployments.retain(|d| wanted(&selection.deploy, &d.name));
        plan.points.retain(|p| {
            wanted(&selection.deploy, &p.deployment) && wanted(&selection.load, &p.load)
        });
        plan.searches.retain(|s| {
            wanted(&selection.deploy, &s.deployment) && wanted(&selection.load, &s.load)
        });
        plan.estimate_anew();
        Ok(())
    }
}

fn known(what: &str, asked: &[String], there: &[String]) -> Result<(), Failure> {
    use scalebeam_model::spec::diagnostic::nearest;
    for name in asked {
        if !there.contains(name) {
            let hint = match nearest(name, there.iter().map(String::as_str)) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("known are {}", there.join(", ")),
            };
            return Err(Failure::usage(format!("no {what} '{name}' in this file")).hint(hint));
        }
    }
    Ok(())
}
