//! Checks of loads, runs, reports and expectations.

use super::{name, pace, reference, reports, search, slo, unique, workloads};
use crate::analysis::search::SLO_CAPACITY;
use crate::metrics::catalogue::is_known;
use crate::metrics::hint_for;
use crate::plan::Mode;
use crate::spec::{Experiment, LoadSpec, Problem, WorkloadSpec};
use crate::workload::Api;

pub(super) fn check(experiment: &Experiment, problems: &mut Vec<Problem>) {
    unique("load", experiment.load.iter().map(|l| &l.name), problems);
    workloads::check(experiment, problems);
    for (i, load) in experiment.load.iter().enumerate() {
        name(&format!("load[{i}].name"), &load.name, problems);
        let known = experiment.workload.iter().map(|w| w.name.as_str());
        reference(format!("load[{i}].workload"), "workload", &load.workload, known, problems);
        let workload = experiment.workload.iter().find(|w| w.name == load.workload);
        let has_sessions = workload.is_some_and(WorkloadSpec::has_sessions);
        load_keys(i, load, has_sessions, problems);
        pace::check(i, load, workload, problems);
        slo::check(i, load, workload, problems);
        search::check(i, load, problems);
        batch_api(i, load, experiment, problems);
        sessions(i, load, has_sessions, problems);
    }
    runs(experiment, problems);
    every_report(experiment, problems);
    expects(experiment, problems);
}

fn load_keys(i: usize, load: &LoadSpec, has_sessions: bool, problems: &mut Vec<Problem>) {
    let mode = load.mode.unwrap_or_default();
    let thinks: &[Mode] = if has_sessions {
        &[Mode::Closed, Mode::Serial, Mode::Open, Mode::Burst]
    } else {
        &[Mode::Closed, Mode::Serial]
    };
    let rules: [(&str, bool, &[Mode]); 14] = [
        ("concurrency", load.concurrency.is_some(), &[Mode::Closed, Mode::Open]),
        ("concurrency_per_replica", load.concurrency_per_replica.is_some(), &[Mode::Closed]),
        ("rate", load.rate.is_some(), &[Mode::Open]),
        ("profile", load.profile.is_some(), &[Mode::Open]),
        ("arrival", load.arrival.is_some(), &[Mode::Open]),
        ("burstiness", load.burstiness.is_some(), &[Mode::Open]),
        ("speed", load.speed.is_some(), &[Mode::Open]),
        ("window", load.window.is_some(), &[Mode::Open]),
        ("ramp_up", load.ramp_up.is_some(), &[Mode::Closed]),
        ("think", load.think.is_some(), thinks),
        ("max_prefill", load.max_prefill.is_some(), &[Mode::Closed, Mode::Open, Mode::Burst]),
        ("stop_oversaturated", load.stop_oversaturated.is_some(), &[Mode::Open]),
        ("batch", load.batch.is_some(), &[Mode::Batch]),
        (
            "duration",
            load.duration.is_some(),
            &[Mode::Closed, Mode::Open, Mode::Serial, Mode::Batch],
        ),
    ];
    for (key, given, modes) in rules {
        if given && !modes.contains(&mode) {
            let names: Vec<&str> = modes.iter().map(|m| m.name()).collect();
            problems.push(Problem::new(
                format!("load[{i}].{key}"),
                format!("'{key}' has no meaning in {} mode", mode.name()),
                format!("it belongs to mode {}", names.join(" or ")),
            ));
        }
    }
    if load.concurrency.is_some() && load.concurrency_per_replica.is_some() {
        let path = format!("load[{i}].concurrency_per_replica");
        problems.push(Problem::new(path, "'concurrency' is given as well", "keep one of the two"));
    }
    if mode == Mode::Open && load.concurrency.as_ref().is_some_and(|c| c.0.len() > 1) {
        let hint = "in open mode it is a cap on requests in flight; give one number";
        problems.push(Problem::new(format!("load[{i}].concurrency"), "a list of caps", hint));
    }
    let zero: [(&str, bool); 3] = [
        ("repeats", load.repeats == Some(0)),
        ("timeout", load.timeout.is_some_and(|t| t.0.0 == 0)),
        ("duration", load.duration.is_some_and(|t| t.0.0 == 0)),
    ];
    for (key, is_zero) in zero {
        if is_zero {
            problems.push(Problem::new(
                format!("load[{i}].{key}"),
                format!("'{key}' must be above zero"),
                "",
            ));
        }
    }
    if load.repeats.is_some_and(|n| n > MOST_REPEATS) {
        let message = format!("more than {MOST_REPEATS} repeats");
        let hint = "between 3 and 30 decide most questions; requests make one trial longer";
        problems.push(Problem::new(format!("load[{i}].repeats"), message, hint));
    }
    if load.requests.is_some_and(|r| r.of(Some(1)) == Some(0)) {
        problems.push(Problem::new(
            format!("load[{i}].requests"),
            "'requests' must be above zero",
            "",
        ));
    }
}

/// More than anybody waits for; each is in the plan.
const MOST_REPEATS: u32 = 10_000;

fn batch_api(i: usize, load: &LoadSpec, experiment: &Experiment, problems: &mut Vec<Problem>) {
    let workload = experiment.workload.iter().find(|w| w.name == load.workload);
    let api = workload.map_or(Api::Completions, |w| w.api.unwrap_or_default());
    if load.mode == Some(Mode::Batch) && !api.takes_batch() {
        problems.push(Problem::new(
            format!("load[{i}].mode"),
            format!(
                "batch mode sends a list of prompts, which workload '{}' (api {}) cannot",
                load.workload,
                api.name()
            ),
            "set api = \"completions\" in the workload",
        ));
    }
}

fn sessions(i: usize, load: &LoadSpec, has_sessions: bool, problems: &mut Vec<Problem>) {
    let mut refuse = |key: &str, message: &str, hint: &str| {
        let path = format!("load[{i}].{key}");
        let message = format!("workload '{}' {message}", load.workload);
        problems.push(Problem::new(path, message, hint));
    };
    if load.mode == Some(Mode::Batch) && has_sessions {
        let hint = "use mode = \"closed\"; a turn is a request of its own";
        refuse("mode", "has sessions, which cannot be sent as batches", hint);
    }
    if load.sticky.is_some() && !has_sessions {
        refuse("sticky", "has no sessions", "add turns = 5 to it, or leave 'sticky' out");
    }
}

fn runs(experiment: &Experiment, problems: &mut Vec<Problem>) {
    let deploys = experiment.deployments().map(|(_, d)| d.name.as_str());
    let loads = experiment.load.iter().map(|l| l.name.as_str());
    for (r, run) in experiment.run.iter().enumerate() {
        for (i, name) in run.deploy.iter().enumerate() {
            let path = format!("run[{r}].deploy[{i}]");
            reference(path, "deployment", name, deploys.clone(), problems);
        }
        for (i, name) in run.load.iter().enumerate() {
            reference(format!("run[{r}].load[{i}]"), "load", name, loads.clone(), problems);
        }
        for (i, at) in run.at.iter().enumerate() {
            let path = format!("run[{r}].at[{i}]");
            reference(path.clone(), "deployment", &at.deploy, deploys.clone(), problems);
            if let Some(load) = &at.load {
                reference(path.clone(), "load", load, loads.clone(), problems);
            }
            if at.concurrency == Some(0) {
                problems.push(Problem::new(path, "'concurrency' must be above zero", ""));
            }
        }
        if run.at.is_empty() && (run.deploy.is_empty() || run.load.is_empty()) {
            let hint = "name deploy = [..] and load = [..], or points with at = [..]";
            problems.push(Problem::new(format!("run[{r}]"), "this run names no point", hint));
        }
    }
}

fn metric(path: String, name: &str, problems: &mut Vec<Problem>) {
    if is_known(name) {
        return;
    }
    problems.push(Problem::new(path, format!("unknown metric '{name}'"), hint_for(name)));
}

fn every_report(experiment: &Experiment, problems: &mut Vec<Problem>) {
    let deploys = experiment.deployments().map(|(_, d)| d.name.as_str());
    let loads = experiment.load.iter().map(|l| l.name.as_str());
    for (r, report) in experiment.report.iter().enumerate() {
        let path = |key: &str| format!("report[{r}].{key}");
        if let Some(name) = &report.baseline {
            reference(path("baseline"), "deployment", name, deploys.clone(), problems);
        }
        for (i, name) in report.deploy.iter().enumerate() {
            reference(path(&format!("deploy[{i}]")), "deployment", name, deploys.clone(), problems);
        }
        for (i, name) in report.load.iter().enumerate() {
            reference(path(&format!("load[{i}]")), "load", name, loads.clone(), problems);
        }
        for (key, name) in [("alone", &report.alone), ("mixed", &report.mixed)] {
            if let Some(name) = name {
                reference(path(key), "load", name, loads.clone(), problems);
            }
        }
        for (i, name) in report.metrics.iter().enumerate() {
            metric(path(&format!("metrics[{i}]")), name, problems);
        }
        for (key, name) in [("x", &report.x), ("y", &report.y)] {
            if let Some(name) = name {
                metric(path(key), name, problems);
            }
        }
        reports::check(r, report, experiment, problems);
        if let Some(file) = &report.file {
            name(&path("file"), file, problems);
        }
    }
}

fn expects(experiment: &Experiment, problems: &mut Vec<Problem>) {
    let deploys = experiment.deployments().map(|(_, d)| d.name.as_str());
    let loads = experiment.load.iter().map(|l| l.name.as_str());
    for (e, expect) in experiment.expect.iter().enumerate() {
        if expect.metric != SLO_CAPACITY {
            let path = format!("expect[{e}].metric");
            metric(path.clone(), &expect.metric, problems);
            problems.extend(reports::expectation(path, &expect.metric, experiment));
        }
        if !matches!(expect.op.as_str(), "==" | "!=" | "<" | "<=" | ">" | ">=") {
            let message = format!("'{}' is not a comparison", expect.op);
            problems.push(Problem::new(
                format!("expect[{e}].op"),
                message,
                "use ==, !=, <, <=, > or >=",
            ));
        }
        if !expect.value.is_finite() {
            let message =
                format!("nothing is measured that could be {} {}", expect.op, expect.value);
            let hint = "give a number in the metric's own unit, as 450 for milliseconds";
            problems.push(Problem::new(format!("expect[{e}].value"), message, hint));
        }
        let place = expect.place.clone().unwrap_or_default();
        let path = format!("expect[{e}].where");
        if let Some(name) = &place.deploy {
            reference(path.clone(), "deployment", name, deploys.clone(), problems);
        }
        if let Some(name) = &place.load {
            reference(path, "load", name, loads.clone(), problems);
        }
    }
}
