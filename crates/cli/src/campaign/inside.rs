//! A run that is measured in a pod of its deployments' own cluster: sent there, waited for, fetched, taken down.
//!
//! **Invariants.** Whatever happens, the Job and all that it made is removed before this returns, or named. A run
//! directory is only that of the pod once all of it came; until then it says what was known here.

use super::{Goal, Place, open, prepare};
use crate::clock::WallClock;
use crate::exit::{Failure, Status, chain};
use crate::experiment::Loaded;
use crate::interrupt::{self, Asked, reached};
use crate::printer;
use scalebeam_fleet::inside::{Client, End, Inside, Job, RUNS, STATE, experiment_path, files_read};
use scalebeam_fleet::journal::{self, Journal};
use scalebeam_fleet::teardown::TeardownReport;
use scalebeam_model::plan::{DeploymentPlan, Plan, Platform};
use scalebeam_model::spec::{Diagnostics, Problem};
use scalebeam_record::{RunStatus, RunWriter, layout, unpack};
use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// So much text goes with an experiment; a ConfigMap holds 1 MiB.
const CARRIED_BYTES: usize = 900_000;
/// How often a run directory is fetched before it is given up.
const TRIES: u32 = 5;
/// Between two tries.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// What is left of the log once the run has ended takes so long to come at most.
const REST_OF_LOG: Duration = Duration::from_secs(5);
/// Where a run directory lies until all of it came, in the one that it becomes.
const FETCHED: &str = "fetched.tmp";
/// What all deployments of one Job must have in common.
const COMMON: [&str; 4] = ["client_image", "context", "namespace", "results_pvc"];

/// What came of a run in a pod.
#[derive(Debug)]
pub(crate) struct Came {
    pub(crate) dir: PathBuf,
    pub(crate) status: Status,
    /// Whether the run directory is that of the pod.
    pub(crate) is_fetched: bool,
}

/// Texts of the files that the loads of `deployments` read, as far as they can go with the experiment.
pub(crate) fn carried(
    plan: &Plan,
    base: &Path,
    deployments: &[&DeploymentPlan],
) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut left = CARRIED_BYTES;
    for name in files_read(plan, deployments) {
        // A tokenizer may be named by its folder.
        let within = base.join(&name).join("tokenizer.json").is_file();
        let name = if within { format!("{name}/tokenizer.json") } else { name };
        let is_below = Path::new(&name).components().all(|c| matches!(c, Component::Normal(_)));
        let path = base.join(&name);
        let bytes = path.metadata().ok().and_then(|m| usize::try_from(m.len()).ok());
        let fits = bytes.is_some_and(|bytes| bytes <= left);
        if let (true, true, Ok(text)) = (is_below, fits, std::fs::read_to_string(&path)) {
            left = left.saturating_sub(text.len());
            files.insert(name, text);
        }
    }
    files
}

/// Measures `loaded`, the file `shown`, in a pod of its deployments' cluster; `more` is of the command line there.
pub(crate) async fn run(
    loaded: &Loaded,
    shown: &str,
    out: PathBuf,
    more: &[String],
) -> Result<Came, Failure> {
    let signals = interrupt::watch()?;
    let plan = &loaded.plan;
    let deployments: Vec<&DeploymentPlan> = prepare::wanted(plan).collect();
    fits_together(loaded, shown, &deployments)?;
    let files = carried(plan, &loaded.base, &deployments);
    let goal = Goal::New { out, place: Place::Sent };
    prepare::sent(plan, &goal).await?;
    let clock = WallClock::shared();
    let writer = open(loaded, &goal, clock.as_ref())?;
    printer::say(&format!("run {}", writer.dir().display()));
    let journal = Arc::new(Journal::open(&writer.dir().join(journal::FILE), Arc::clone(&clock))?);
    let words = words(writer.id(), more);
    let inside =
        Inside { plan, deployments: &deployments, experiment: &loaded.text, files: &files };
    let job = Job { inside, run: writer.id(), run_dir: writer.dir(), words: &words };
    let mut client = match Client::claim(job, journal, clock).await {
        Ok(client) => client,
        Err(error) => return Err(failed(writer, error.into())),
    };
    let came = measured(&mut client, &signals.1, writer.dir()).await;
    let left = client.remove().await;
    told(&left);
    concluded(writer, came, left.is_clean())
}

/// What the pod does: the same command, and around it what waits until the run is fetched.
fn words(run: &str, more: &[String]) -> Vec<String> {
    let place = experiment_path();
    let around = ["scalebeam", "inside", "run", "--state", STATE, "--"];
    let words = ["run", &place, "--out", RUNS, "--inside-as", run];
    let words = around.into_iter().chain(words).map(str::to_owned);
    words.chain(more.iter().cloned()).collect()
}

fn failed(writer: RunWriter, failure: Failure) -> Failure {
    let _ = writer.finish(RunStatus::Failed, Some(failure.message().to_owned()));
    failure
}

/// How the run in the pod ended, as far as it is known.
enum Ended {
    /// It ended so; whether its directory is here.
    Itself(End, bool),
    /// It was given up before.
    Interrupted,
}

async fn measured(
    client: &mut Client,
    asked: &watch::Receiver<Asked>,
    dir: &Path,
) -> Result<Ended, Failure> {
    client.submit().await?;
    let told = Mutex::new(String::new());
    let say = |text: String| {
        let mut last = told.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != text {
            printer::say(&format!("inside: {text}"));
            *last = text;
        }
    };
    tokio::select! {
        running = client.until_running(&say) => running?,
        () = reached(asked, Asked::Once) => return Ok(Ended::Interrupted),
    }
    printer::say(&format!("inside: pod {} runs", client.pod()));
    let end = tokio::select! {
        end = watched(client, asked) => end?,
        () = reached(asked, Asked::Twice) => return Ok(Ended::Interrupted),
    };
    let is_fetched = tokio::select! {
        fetched = fetched(client, dir) => fetched?,
        () = reached(asked, Asked::Twice) => return Ok(Ended::Interrupted),
    };
    // It is removed in a moment anyway, and then waits no longer.
    let _ = client.release().await;
    Ok(Ended::Itself(end, is_fetched))
}

/// Shows its log until the run has ended; asked once, has it end.
async fn watched(client: &Client, asked: &watch::Receiver<Asked>) -> Result<End, Failure> {
    let say = |line: &str| printer::say(&format!("inside: {line}"));
    let mut log = Box::pin(client.follow(&say));
    let mut ended = Box::pin(client.until_ended());
    let (mut is_told, mut is_read) = (false, false);
    let end = loop {
        tokio::select! {
            end = &mut ended => break end?,
            () = &mut log, if !is_read => is_read = true,
            () = reached(asked, Asked::Once), if !is_told => {
                is_told = true;
                if let Err(error) = client.stop().await {
                    printer::say(&format!("it could not be told: {}", chain(&error)));
                }
            }
        }
    };
    if !is_read {
        let _ = timeout(REST_OF_LOG, log).await;
    }
    Ok(end)
}

/// Brings the run directory of the pod into `dir`; whether the pod had one.
async fn fetched(client: &Client, dir: &Path) -> Result<bool, Failure> {
    let place = dir.join(FETCHED);
    let mut why = String::new();
    for _ in 0..TRIES {
        // Of the try before.
        let _ = std::fs::remove_dir_all(&place);
        let to = place.clone();
        let (came, said) = client.fetch(move |stream| unpack(stream, &to)).await?;
        match came {
            Some(Ok(0)) => return Ok(false),
            Some(Ok(_)) => {
                let moved = settle(&place, dir).and_then(|()| std::fs::remove_dir_all(&place));
                let cannot = |e: io::Error| {
                    Failure::internal(format!("cannot write {}: {e}", dir.display()))
                };
                return moved.map(|()| true).map_err(cannot);
            }
            Some(Err(error)) => why = chain(&error),
            None => {}
        }
        if let Some(said) = said {
            why = format!("{why}; kubectl: {said}");
        }
        printer::say(&format!("the run did not come whole, trying again: {why}"));
        let _ = timeout(AGAIN_AFTER, pending::<()>()).await;
    }
    let text = format!(
        "the run inside of the cluster could not be fetched: {why}; what came of it is in {}",
        place.display()
    );
    Err(Failure::deployment(text).hint("results_pvc in params keeps a run in the cluster, too"))
}

/// Moves what was fetched to its place. The journal stays that of this side, which `down` goes by; the manifest comes
/// last, since it says what the rest is worth.
fn settle(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    let mut entries = std::fs::read_dir(from)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(|entry| entry.file_name() == layout::MANIFEST);
    for entry in entries {
        let name = entry.file_name();
        let name = if name == journal::FILE { journal::INSIDE.into() } else { name };
        match entry.file_type()?.is_dir() {
            true => settle(&entry.path(), &to.join(name))?,
            false => std::fs::rename(entry.path(), to.join(name))?,
        }
    }
    Ok(())
}

fn told(left: &TeardownReport) {
    left.problems.iter().for_each(|problem| printer::say(problem));
    if left.is_clean() {
        printer::say("inside: the Job and all of it is gone");
    }
}

/// What the run comes to, with everything removed that could be.
fn concluded(
    writer: RunWriter,
    came: Result<Ended, Failure>,
    is_clean: bool,
) -> Result<Came, Failure> {
    let dir = writer.dir().to_owned();
    let came = match came {
        Ok(Ended::Itself(End::Code(code), is_fetched)) => {
            let status = Status::of_code(code).unwrap_or(Status::Internal);
            Came { dir, status, is_fetched }
        }
        Ok(Ended::Itself(End::Signal(signal), is_fetched)) => {
            let text = format!(
                "the run inside of the cluster was ended by signal {signal}{}",
                if is_fetched { "; what it had measured was fetched" } else { "" }
            );
            let failure = Failure::deployment(text)
                .hint("9 is the kernel's for want of memory: see the limits of that namespace");
            return Err(if is_fetched { failure } else { failed(writer, failure) });
        }
        Ok(Ended::Interrupted) => {
            // Where that was in the midst of it.
            let _ = std::fs::remove_dir_all(dir.join(FETCHED));
            Came { dir, status: Status::Interrupted, is_fetched: false }
        }
        Err(failure) => return Err(failed(writer, failure)),
    };
    if !came.is_fetched {
        let (run, note) = match came.status {
            Status::Interrupted => (RunStatus::Interrupted, "interrupted before it was fetched"),
            _ => (RunStatus::Failed, "the run inside of the cluster ended before it had begun"),
        };
        writer.finish(run, Some(note.to_owned()))?;
    }
    match (came.status, is_clean) {
        (Status::Ok | Status::ExpectationFailed | Status::NotTrustworthy, false) => {
            Ok(Came { status: Status::Deployment, ..came })
        }
        _ => Ok(came),
    }
}

/// Refuses deployments that one Job cannot measure, with their places in the file.
fn fits_together(
    loaded: &Loaded,
    shown: &str,
    deployments: &[&DeploymentPlan],
) -> Result<(), Failure> {
    let Some(first) = deployments.first() else {
        return Err(Failure::usage("there is nothing to measure in this file"));
    };
    let mut problems = Vec::new();
    for d in deployments {
        let of_name = |(_, spec): &(usize, &scalebeam_model::spec::Deploy)| spec.name == d.name;
        let index = loaded.experiment.deployments().find(of_name).map_or(0, |(index, _)| index);
        problems.extend(unfit(index, d).or_else(|| unlike(index, d, first)));
    }
    if problems.is_empty() {
        return Ok(());
    }
    let located = Diagnostics::locate(&loaded.text, shown, problems);
    Err(Failure::usage(format!("this cannot be measured inside of one cluster\n\n{located}")))
}

/// Why `d` cannot be measured from inside of its cluster.
fn unfit(index: usize, d: &DeploymentPlan) -> Option<Problem> {
    let is_there = matches!(
        d.platform,
        Platform::K8s | Platform::Lws | Platform::Kuberay | Platform::Dgd | Platform::InferencePool
    );
    if !is_there {
        return Some(Problem::new(
            format!("deploy[{index}].platform"),
            format!("'{}' is on platform {}, which has no pods", d.name, d.platform.name()),
            "choose others with --deploy, or run this one without --in-cluster",
        ));
    }
    d.text("client_image").is_none().then(|| {
        Problem::new(
            format!("deploy[{index}].params.client_image"),
            format!("'{}' names no image for the pod that measures it", d.name),
            "add client_image = \"REPOSITORY:TAG\" to params: an image with scalebeam and kubectl",
        )
    })
}

/// In what `d` differs from `first` that one Job has once.
fn unlike(index: usize, d: &DeploymentPlan, first: &DeploymentPlan) -> Option<Problem> {
    let key = COMMON.into_iter().find(|key| d.text(key) != first.text(key))?;
    let of = |d: &DeploymentPlan| d.text(key).map_or("none".to_owned(), |text| format!("'{text}'"));
    let (mine, its) = (of(d), of(first));
    Some(Problem::new(
        format!("deploy[{index}].params.{key}"),
        format!(
            "{key} of '{}' is {mine}, of '{}' {its}: one Job measures both",
            d.name, first.name
        ),
        "make them the same, or run one after the other with --deploy",
    ))
}
