//! `run`: plan, deploy, load, record, analyse, report.

use crate::args::{RunArgs, SelectArgs, SelftestArg};
use crate::campaign::outcome::{self, Shown};
use crate::campaign::{self, Doctor, Goal, Place};
use crate::exit::{Failure, Status};
use crate::experiment::{self, Loaded, Selection};
use crate::{printer, settings};
use clap::ValueEnum;
use scalebeam_model::limit::Limit;
use scalebeam_model::spec::{Experiment, SelftestWhen};
use scalebeam_record::RunReader;
use std::path::{Path, PathBuf};

pub(super) fn run(args: RunArgs) -> Result<Status, Failure> {
    let shown = Shown::new(args.json, &args.define)?;
    if args.in_cluster {
        return inside(&args, &shown);
    }
    let (mut loaded, goal) = match (&args.resume, &args.file) {
        (Some(dir), _) => (resumed(dir)?, Goal::Resume(dir.clone())),
        (None, Some(file)) => {
            let SelectArgs { deploy, load } = args.select;
            let mut loaded = experiment::selected(file, &Selection { deploy, load })?;
            let out = out_dir(args.out.as_deref(), &loaded.experiment);
            let place = match args.inside_as {
                Some(id) => {
                    as_in_a_pod(&mut loaded);
                    Place::Inside(id)
                }
                None => Place::Here,
            };
            (loaded, Goal::New { out, place })
        }
        (None, None) => {
            return Err(Failure::usage("name an experiment file, or a run with --resume"));
        }
    };
    // What was measured before its first trial holds for a run that goes on; the command line of then,
    // which may have said never, is not kept.
    let is_resumed = args.resume.is_some();
    ask_for_floor(&mut loaded, args.selftest.or(is_resumed.then_some(SelftestArg::Never)));
    let asked = Limit { wall: args.limit_wall, spend: args.limit_spend };
    limit(&mut loaded, asked, is_resumed)?;
    let doctor = if args.no_doctor { Doctor::NotAsked } else { Doctor::Asked };
    weigh(&loaded, goal, doctor, &shown)
}

/// Has a pod of the deployments' cluster run the file, and says what came of it.
fn inside(args: &RunArgs, shown: &Shown) -> Result<Status, Failure> {
    let Some(file) = &args.file else {
        return Err(Failure::usage("name an experiment file"));
    };
    let SelectArgs { deploy, load } = args.select.clone();
    let loaded = experiment::selected(file, &Selection { deploy, load })?;
    let out = out_dir(args.out.as_deref(), &loaded.experiment);
    let path = file.display().to_string();
    let more = passed_on(args);
    let run = campaign::inside::run(&loaded, &path, out, &more);
    let came = super::runtime(2)?.block_on(run)?;
    if came.is_fetched {
        outcome::conclude(&RunReader::open(&came.dir)?, None, shown)?;
    }
    Ok(came.status)
}

/// What of the command line is for the run in the pod.
fn passed_on(args: &RunArgs) -> Vec<String> {
    let deploy = args.select.deploy.iter().flat_map(|name| ["--deploy".to_owned(), name.clone()]);
    let load = args.select.load.iter().flat_map(|name| ["--load".to_owned(), name.clone()]);
    let mut words: Vec<String> = deploy.chain(load).collect();
    let mut add = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
    if let Some(when) = args.selftest.as_ref().and_then(ValueEnum::to_possible_value) {
        add("--selftest", when.get_name().to_owned());
    }
    if let Some(span) = args.limit_wall {
        add("--limit-wall", format!("{}ns", span.0));
    }
    if let Some(amount) = args.limit_spend {
        add("--limit-spend", amount.to_string());
    }
    words.extend(args.no_doctor.then(|| "--no-doctor".to_owned()));
    words
}

/// A pod is in the cluster that the file's context led to, and has no program that the file names outside.
fn as_in_a_pod(loaded: &mut Loaded) {
    loaded.plan.telemetry.agent = None;
    for deployment in &mut loaded.plan.deployments {
        deployment.params.remove("context");
    }
}

/// What the command line says of the limit goes before what the file says. An estimate above it is told
/// before anything is started; of a run that goes on, the estimate holds what is measured already.
fn limit(loaded: &mut Loaded, asked: Limit, is_resumed: bool) -> Result<(), Failure> {
    let plan = &mut loaded.plan;
    if !asked.is_none() {
        plan.limit.wall = asked.wall.or(plan.limit.wall);
        plan.limit.spend = asked.spend.or(plan.limit.spend);
        let wrong = plan.limit.check().into_iter().next();
        if let Some(problem) = wrong.or_else(|| plan.limit.unpriced(&plan.deployments)) {
            let text = format!("{}: {}", problem.path, problem.message);
            return Err(Failure::usage(text).hint(problem.hint));
        }
        plan.weigh_limit();
    }
    if !is_resumed {
        for note in plan.limit.beyond(&plan.estimate) {
            printer::say(&format!(
                "note: {}: {}\n      hint: {}",
                note.path, note.message, note.hint
            ));
        }
    }
    Ok(())
}

/// What the command line says of the selftest goes before what the file says.
pub(super) fn ask_for_floor(loaded: &mut Loaded, asked: Option<SelftestArg>) {
    let when = asked.map(|asked| match asked {
        SelftestArg::Auto => SelftestWhen::Auto,
        SelftestArg::Always => SelftestWhen::Always,
        SelftestArg::Never => SelftestWhen::Never,
    });
    loaded.experiment.selftest = when.or(loaded.experiment.selftest);
}

/// Runs what was loaded and says what came of it; `bench` ends here too.
pub(super) fn weigh(
    loaded: &Loaded,
    goal: Goal,
    doctor: Doctor,
    shown: &Shown,
) -> Result<Status, Failure> {
    let done = super::runtime(2)?.block_on(campaign::run(loaded, goal, doctor))?;
    let reader = RunReader::open(&done.dir)?;
    let said = outcome::conclude(&reader, None, shown);
    match (done.status, said) {
        (Status::Ok, said) => said,
        // What went wrong on the way weighs more than what the numbers say.
        (status, Ok(_)) => Ok(status),
        (_, Err(failure)) => Err(failure),
    }
}

/// An interrupted run's own experiment and plan; the file that it came from may have changed since.
fn resumed(dir: &Path) -> Result<Loaded, Failure> {
    let reader = RunReader::open(dir)?;
    if campaign::is_inside(reader.manifest()) {
        let text = format!("{} was measured inside of a cluster, and ended there", dir.display());
        return Err(Failure::usage(text).hint("measure it anew: scalebeam run FILE --in-cluster"));
    }
    let shown = dir.join("experiment.toml").display().to_string();
    let mut loaded =
        experiment::from_text(reader.experiment().to_owned(), &shown, base_of(&reader))?;
    loaded.plan = reader.plan().clone();
    Ok(loaded)
}

/// Where the experiment file was, for its relative paths.
fn base_of(reader: &RunReader) -> PathBuf {
    let client = reader.manifest().hosts.iter().find(|h| h.name == campaign::CLIENT);
    client.and_then(|h| h.facts.get(campaign::BASE)).map(PathBuf::from).unwrap_or_default()
}

/// Where run directories go: the command line, the file, `runs`.
pub(super) fn out_dir(asked: Option<&Path>, experiment: &Experiment) -> PathBuf {
    let of_file = experiment.output.as_ref().and_then(|o| o.dir.as_ref()).map(PathBuf::from);
    asked.map(Path::to_path_buf).or(of_file).unwrap_or_else(|| PathBuf::from(settings::RUNS))
}
