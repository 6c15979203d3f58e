//! Preflight: whatever can be known to fail fails here, before anything is started.

use super::{Goal, Place, reach};
use crate::exit::{Failure, chain};
use crate::experiment::Loaded;
use crate::{limits, settings};
use scalebeam_fleet::launch::deployment_available;
use scalebeam_fleet::leftovers;
use scalebeam_fleet::render::for_run;
use scalebeam_load::Tokenizer;
use scalebeam_load::http::tls;
use scalebeam_model::driver::LoadShape;
use scalebeam_model::plan::{DeploymentPlan, Plan, PointPlan};
use scalebeam_model::results::Skipped;
use scalebeam_model::workload::dataset::{ShareGptRules, sharegpt::guess_tokens};
use scalebeam_model::workload::{
    Conversations, Dataset, FileFormat, Files, Pick, Source, Talk, Workload,
};
use scalebeam_record::{RunReader, list_runs};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a run needs beside its plan.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Prompt files and traces.
    pub(super) files: Arc<Files>,
    /// The model's tokenizer, where there is one at hand.
    pub(super) tokenizer: Option<Arc<Tokenizer>>,
    /// Optional deployments whose programs are not installed.
    pub(super) skipped: Vec<Skipped>,
}

impl Prepared {
    pub(super) fn is_skipped(&self, deployment: &str) -> bool {
        self.skipped.iter().any(|s| s.deployment == deployment)
    }
}

pub(super) async fn prepare(loaded: &Loaded, goal: &Goal) -> Result<Prepared, Failure> {
    let plan = &loaded.plan;
    runnable(plan)?;
    renderable(plan)?;
    limits::enough_connections(plan)?;
    let skipped = installed(plan)?;
    for deployment in &plan.deployments {
        reach::secrets(deployment)?;
        if let Some(file) = &deployment.ca_file {
            tls::client_config(Some(&loaded.base.join(file)), deployment.http)?;
        }
    }
    let tokenizer = tokenizer(plan, &loaded.base)?;
    let files = prompt_files(plan, &loaded.base, tokenizer.as_deref())?;
    replayed(plan, &files)?;
    // A pod finds runs of others in the claim that it shares with them; whoever sent it has looked at its own.
    let is_sent = matches!(goal, Goal::New { place: Place::Inside(_), .. });
    if !is_sent && plan.deployments.iter().any(|d| !d.processes.is_empty()) {
        nothing_left(goal).await?;
    }
    Ok(Prepared { files: Arc::new(files), tokenizer, skipped })
}

/// Of a run that is measured elsewhere only what is known here.
pub(super) async fn sent(plan: &Plan, goal: &Goal) -> Result<(), Failure> {
    runnable(plan)?;
    renderable(plan)?;
    nothing_left(goal).await
}

/// Deployments that the run needs.
pub(super) fn wanted(plan: &Plan) -> impl Iterator<Item = &DeploymentPlan> {
    // `up` has a deployment and no points.
    let has_none = plan.every_point().next().is_none();
    let needed =
        move |d: &&DeploymentPlan| has_none || plan.every_point().any(|p| p.deployment == d.name);
    plan.deployments.iter().filter(needed)
}

/// Every deployment that this version cannot bring up, at once.
fn runnable(plan: &Plan) -> Result<(), Failure> {
    let cannot: Vec<String> = wanted(plan)
        .filter_map(|d| Some(format!("  {}: {}", d.name, d.cannot_run.as_ref()?)))
        .collect();
    if cannot.is_empty() {
        return Ok(());
    }
    Err(Failure::deployment(format!(
        "nothing was started; these cannot be run yet\n{}",
        cannot.join("\n")
    ))
    .hint(match wanted(plan).any(|d| d.cannot_run.is_some() && d.platform.renders()) {
        true => {
            "`scalebeam plan FILE --render DIR` writes the files that bring them up; run the others \
             with --deploy NAME"
        }
        false => "check and plan work on them; run the others with --deploy NAME",
    }))
}

/// Whether what a platform would be given can be written.
fn renderable(plan: &Plan) -> Result<(), Failure> {
    wanted(plan).filter(|d| d.platform.renders()).try_for_each(|d| {
        for_run(plan, d, &d.name)?;
        Ok(())
    })
}

/// Every load that replays a part of a trace in which there is nothing.
fn replayed(plan: &Plan, files: &Files) -> Result<(), Failure> {
    let replays_nothing = |p: &&PointPlan| {
        let LoadShape::Replay { window, .. } = &p.measure.shape else { return false };
        files.due(&p.workload).is_none_or(|due| window.range(&due).is_empty())
    };
    let loads: BTreeSet<&str> =
        plan.points.iter().filter(replays_nothing).map(|p| p.load.as_str()).collect();
    if loads.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = loads.into_iter().collect();
    Err(Failure::usage(format!(
        "nothing was started; the part of the trace that load {} replays holds no request",
        names.join(", ")
    ))
    .hint("'window' is in the trace's own time, from its first request on"))
}

fn installed(plan: &Plan) -> Result<Vec<Skipped>, Failure> {
    let exe = std::env::current_exe()
        .map_err(|e| Failure::internal(format!("cannot find this program: {e}")))?;
    let mut skipped = Vec::new();
    for deployment in wanted(plan) {
        match deployment_available(deployment, &exe, &settings::cache_dir()) {
            Ok(()) => {}
            Err(error) if deployment.optional => {
                let reason = chain(&error);
                crate::printer::say(&format!("{}: skipped: {reason}", deployment.name));
                skipped.push(Skipped { deployment: deployment.name.clone(), reason });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(skipped)
}

fn each_workload(workload: &Workload, visit: &mut dyn FnMut(&Workload)) {
    visit(workload);
    if let Source::Mix { parts } = &workload.source {
        parts.iter().for_each(|p| each_workload(&p.workload, visit));
    }
}

/// A prompt file of the plan, and the most prompts that any phase takes from it.
type Wanted = BTreeMap<(String, FileFormat), usize>;

/// A file of conversations, the most of them that any phase takes from it, and the most turns of each.
type WantedTalks = BTreeMap<(String, FileFormat), (usize, usize)>;

/// The most that any phase of a point takes from a list.
fn most_taken(point: &PointPlan, pick: Pick) -> usize {
    let phases = [Some(&point.measure), point.warmup.as_ref()].into_iter().flatten();
    let requests = phases.map(|p| p.requests).max_by_key(|n| n.unwrap_or(u64::MAX)).flatten();
    let most = requests.map_or(u64::MAX, |n| n.saturating_mul(u64::from(point.batch)));
    // A draw is from all of them.
    let most = if pick == Pick::Random { u64::MAX } else { most };
    usize::try_from(most).unwrap_or(usize::MAX)
}

fn wanted_talks(plan: &Plan) -> WantedTalks {
    let mut wanted = WantedTalks::new();
    for point in plan.every_point() {
        let Source::Sessions { talk: Talk::File { file, format, pick, turns, .. }, .. } =
            &point.workload.source
        else {
            continue;
        };
        let turns = usize::try_from(*turns).unwrap_or(usize::MAX);
        let entry = wanted.entry((file.clone(), *format)).or_default();
        *entry = (entry.0.max(most_taken(point, *pick)), entry.1.max(turns));
    }
    wanted
}

fn wanted_files(plan: &Plan) -> Wanted {
    let mut wanted = Wanted::new();
    for point in plan.every_point() {
        each_workload(&point.workload, &mut |w| {
            let Source::File { file, format, pick, .. } = &w.source else { return };
            let entry = wanted.entry((file.clone(), *format)).or_default();
            *entry = (*entry).max(most_taken(point, *pick));
        });
    }
    wanted
}

fn prompt_files(plan: &Plan, base: &Path, tokenizer: Option<&Tokenizer>) -> Result<Files, Failure> {
    let count =
        |text: &str| tokenizer.and_then(|t| t.count(text)).unwrap_or_else(|| guess_tokens(text));
    let mut files = Files::default();
    let refused = |path: &Path, format: FileFormat, why: String| {
        Failure::usage(format!("{} is not of format {}: {why}", path.display(), format.name()))
            .hint("'format' of a [[workload]] is one of jsonl, sharegpt, mooncake, burstgpt, azure")
    };
    let say = |name: &str, format: FileFormat, about: &str| {
        let counted = match (format, tokenizer) {
            (FileFormat::Sharegpt, None) => "; tokens by the rule of four for three words",
            _ => "",
        };
        crate::printer::say(&format!("{name} ({}): {about}{counted}", format.name()));
    };
    for ((name, format), most) in wanted_files(plan) {
        let (path, text) = read_prompts(base, &name)?;
        let rules = ShareGptRules { count: &count, most };
        let dataset =
            Dataset::parse(format, &text, &rules).map_err(|why| refused(&path, format, why))?;
        say(&name, format, &dataset.about());
        files.insert(&name, format, dataset);
    }
    for ((name, format), (most, turns)) in wanted_talks(plan) {
        let (path, text) = read_prompts(base, &name)?;
        let rules = ShareGptRules { count: &count, most };
        let found = Conversations::parse(format, &text, &rules, turns)
            .map_err(|why| refused(&path, format, why))?;
        say(&name, format, &found.about());
        files.insert_conversations(&name, format, found);
    }
    Ok(files)
}

fn read_prompts(base: &Path, name: &str) -> Result<(PathBuf, String), Failure> {
    let path = base.join(name);
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Failure::usage(format!("cannot read the prompt file {}: {e}", path.display()))
            .hint("'file' of a [[workload]] is relative to the experiment file")
    })?;
    Ok((path, text))
}

/// The tokenizer that the file names, or the one that lies in the model's own directory.
fn tokenizer(plan: &Plan, base: &Path) -> Result<Option<Arc<Tokenizer>>, Failure> {
    let given = plan.model.tokenizer.as_ref().map(|t| base.join(t));
    let beside = PathBuf::from(&plan.model.id);
    let found = beside.join("tokenizer.json").is_file().then_some(beside);
    let Some(path) = given.clone().or(found) else { return Ok(None) };
    match Tokenizer::load(&path) {
        Ok(tokenizer) => Ok(Some(Arc::new(tokenizer))),
        Err(error) if given.is_some() => Err(Failure::usage(chain(&error))
            .hint("'tokenizer' is a directory with tokenizer.json, or that file")),
        Err(_) => Ok(None),
    }
}

/// Refuses to start over what an earlier run has left running: its GPUs and ports are taken.
async fn nothing_left(goal: &Goal) -> Result<(), Failure> {
    let runs = match goal {
        Goal::New { out, .. } => list_runs(out)?.into_iter().map(|r| r.dir).collect(),
        Goal::Resume(dir) => vec![dir.clone()],
    };
    for dir in runs {
        let left = leftovers(&dir).await?;
        let is_live = RunReader::open(&dir).is_ok_and(|r| r.is_being_written());
        if is_live && (matches!(goal, Goal::Resume(_)) || !left.is_empty()) {
            return Err(Failure::usage(format!(
                "{} is being measured by another scalebeam",
                dir.display()
            ))
            .hint("wait for it, stop it with Ctrl-C where it runs, or use another --out"));
        }
        if left.is_empty() {
            continue;
        }
        let rows: Vec<String> = left
            .iter()
            .map(|l| match l.pids.as_slice() {
                [] => format!("  {} on {}: {}", l.process, l.host, l.command),
                pids => format!("  {} on {}: pids {pids:?}", l.process, l.host),
            })
            .collect();
        return Err(Failure::deployment(format!(
            "{} has left something running\n{}",
            dir.display(),
            rows.join("\n")
        ))
        .hint(format!("take them down with: scalebeam down {}", dir.display())));
    }
    Ok(())
}
