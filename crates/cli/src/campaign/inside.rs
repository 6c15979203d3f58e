//! A run that is measured in a pod of its deployments' own cluster: sent there, waited for, fetched, taken down.
//!
//! **Invariants.** Whatever happens, the Job and all that it made is removed before this returns, or named. A pod that has
//! the only copy of its run is left, and named. A run directory is only that of the pod once all of it came; until then it
//! says what was known here.

use super::{Goal, Place, open, prepare};
use crate::clock::{WallClock, pause};
use crate::exit::{Failure, Status, chain};
use crate::experiment::Loaded;
use crate::interrupt::{self, Asked, reached};
use crate::printer;
use scalebeam_fleet::inside::{
    Client, End, Inside, Job, RUNS, STATE, Unknown, experiment_path, files_read,
};
use scalebeam_fleet::journal::{self, Journal};
use scalebeam_fleet::teardown::TeardownReport;
use scalebeam_model::plan::{DeploymentPlan, Plan, Platform};
use scalebeam_model::spec::{Diagnostics, Problem};
use scalebeam_record::{RunStatus, RunWriter, layout, unpack};
use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// So much text goes with an experiment; a ConfigMap holds 1 MiB.
const CARRIED_BYTES: usize = 900_000;
/// How long the pod stays for its run to be fetched.
const LINGER: &str = "1h";
/// A run directory that did not come in so long, which is less, is left there.
const FETCH_WITHIN: Duration = Duration::from_secs(50 * 60);
/// The shortest and the longest pause between two tries of that.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// What is left of the log once the run has ended takes so long to come at most.
const REST_OF_LOG: Duration = Duration::from_secs(5);
/// Where a run directory lies until all of it came, in the one that it becomes.
const FETCHED: &str = "fetched.tmp";
/// What all deployments of one Job must have in common.
const COMMON: [&str; 6] =
    ["client_image", "context", "env_secret", "hf_secret", "namespace", "results_pvc"];

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
    if let Ok(Ended::Kept(failure)) = came {
        return Err(failed(writer, failure));
    }
    let left = client.remove().await;
    told(&left, writer.dir());
    concluded(writer, came, left.is_clean())
}

/// What the pod does: the same command, and around it what waits until the run is fetched.
fn words(run: &str, more: &[String]) -> Vec<String> {
    let place = experiment_path();
    let around = ["scalebeam", "inside", "run", "--state", STATE, "--linger", LINGER, "--"];
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
    /// It could not be fetched, and is still there.
    Kept(Failure),
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
        end = watched(client, asked) => match end {
            Ok(end) => end,
            Err(Unknown::Over(error)) => return Err(error.into()),
            Err(Unknown::Unreached(error)) => return Ok(Ended::Kept(kept(client, dir, &chain(&error)))),
        },
        () = reached(asked, Asked::Twice) => return Ok(Ended::Interrupted),
    };
    tokio::select! {
        fetched = fetched(client, dir) => Ok(match fetched? {
            Ok(is_fetched) => Ended::Itself(end, is_fetched),
            Err(failure) => Ended::Kept(failure),
        }),
        () = reached(asked, Asked::Twice) => Ok(Ended::Interrupted),
    }
}

/// Shows its log until the run has ended; asked once, has it end.
async fn watched(client: &Client, asked: &watch::Receiver<Asked>) -> Result<End, Unknown> {
    let say = |line: &str| printer::say(&format!("inside: {line}"));
    let mut log = Box::pin(client.follow(&say));
    let mut ended = Box::pin(client.until_ended(&say));
    let mut stopped = Box::pin(async {
        reached(asked, Asked::Once).await;
        until_stopped(client).await;
    });
    let (mut is_told, mut is_read) = (false, false);
    let end = loop {
        tokio::select! {
            end = &mut ended => break end?,
            () = &mut log, if !is_read => is_read = true,
            () = &mut stopped, if !is_told => is_told = true,
        }
    };
    if !is_read {
        let _ = timeout(REST_OF_LOG, log).await;
    }
    Ok(end)
}

/// Has the run in the pod end; asked again until it was heard.
async fn until_stopped(client: &Client) {
    let mut is_said = false;
    while let Err(error) = client.stop().await {
        if !is_said {
            is_said = true;
            printer::say(&format!(
                "inside: it could not be told yet, asking again: {}",
                chain(&error)
            ));
        }
        pause(PAUSES.0).await;
    }
}

/// Brings the run directory of the pod into `dir`; whether the pod had one, or why it has it still.
///
/// # Errors
/// When the pod is gone, and its run with it.
async fn fetched(client: &Client, dir: &Path) -> Result<Result<bool, Failure>, Failure> {
    let mut why = String::new();
    if let Ok(came) = timeout(FETCH_WITHIN, until_fetched(client, dir, &mut why)).await {
        return came.map(Ok);
    }
    Ok(Err(kept(client, dir, &why)))
}

fn kept(client: &Client, dir: &Path, why: &str) -> Failure {
    let partly = dir.join(FETCHED);
    let came = match partly.exists() {
        true => format!("; what came of it is in {}", partly.display()),
        false => String::new(),
    };
    let text = format!(
        "the run inside of the cluster could not be fetched: {why}; pod {} keeps it, at {}, until \
         {LINGER} after its end{came}",
        client.pod(),
        client.run_place()
    );
    Failure::deployment(text).hint(take_down(dir))
}

/// Tries until the run directory came whole; `why` is what went wrong last.
async fn until_fetched(client: &Client, dir: &Path, why: &mut String) -> Result<bool, Failure> {
    let mut span = PAUSES.0;
    loop {
        match fetch(client, dir).await {
            Ok(has_run) => return Ok(has_run),
            Err(error) => *why = error,
        }
        if let Some(error) = client.lost().await {
            return Err(error.into());
        }
        printer::say(&format!("the run did not come whole, trying again: {why}"));
        pause(span).await;
        span = span.saturating_mul(2).min(PAUSES.1);
    }
}

/// Fetches it once; whether the pod had one, or what went wrong.
async fn fetch(client: &Client, dir: &Path) -> Result<bool, String> {
    let place = dir.join(FETCHED);
    // Of the try before.
    let _ = std::fs::remove_dir_all(&place);
    let to = place.clone();
    let taken = client.fetch(move |stream| unpack(stream, &to)).await;
    let (came, said) = taken.map_err(|error| chain(&error))?;
    let why = match came {
        Some(Ok(0)) => return Ok(false),
        Some(Ok(_)) => {
            let cannot = |e: io::Error| format!("cannot write {}: {e}", dir.display());
            settle(&place, dir).map_err(cannot)?;
            // Only empty folders are left of it.
            let _ = std::fs::remove_dir_all(&place);
            return Ok(true);
        }
        Some(Err(error)) => chain(&error),
        None => "it was not taken".to_owned(),
    };
    Err(match said {
        Some(said) => format!("{why}; kubectl: {said}"),
        None => why,
    })
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

fn told(left: &TeardownReport, dir: &Path) {
    left.problems.iter().for_each(|problem| printer::say(problem));
    match left.is_clean() {
        true => printer::say("inside: the Job and all of it is gone"),
        false => printer::say(&take_down(dir)),
    }
}

fn take_down(dir: &Path) -> String {
    format!("take it down with: scalebeam down {}", dir.display())
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
        Ok(Ended::Kept(failure)) | Err(failure) => return Err(failed(writer, failure)),
    };
    if !came.is_fetched {
        let (run, note) = match came.status {
            Status::Interrupted => (RunStatus::Interrupted, "interrupted before it was fetched"),
            _ => (RunStatus::Failed, "the run inside of the cluster ended before it had begun"),
        };
        writer.finish(run, Some(note.to_owned()))?;
    }
    match (came.status, is_clean) {
        // Something of it is still there, and may cost.
        (
            Status::Ok | Status::ExpectationFailed | Status::NotTrustworthy | Status::Interrupted,
            false,
        ) => Ok(Came { status: Status::Deployment, ..came }),
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
