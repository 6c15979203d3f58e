//! Checks of workloads, loads, runs, reports and expectations.

use super::{name, pace, reference, unique};
use crate::metrics::catalogue::{is_known, known_names};
use crate::plan::Mode;
use crate::spec::diagnostic::nearest;
use crate::spec::{Experiment, LoadSpec, Problem, WorkloadKind, WorkloadSpec};
use crate::workload::Api;

pub(super) fn check(experiment: &Experiment, problems: &mut Vec<Problem>) {
    unique("workload", experiment.workload.iter().map(|w| &w.name), problems);
    unique("load", experiment.load.iter().map(|l| &l.name), problems);
    for (i, workload) in experiment.workload.iter().enumerate() {
        name(&format!("workload[{i}].name"), &workload.name, problems);
        workload_keys(i, workload, problems);
        numbers(i, workload, problems);
        family(i, workload, problems);
        if workload.kind == WorkloadKind::Mix {
            mix(i, workload, experiment, problems);
        }
    }
    for (i, load) in experiment.load.iter().enumerate() {
        name(&format!("load[{i}].name"), &load.name, problems);
        let known = experiment.workload.iter().map(|w| w.name.as_str());
        reference(format!("load[{i}].workload"), "workload", &load.workload, known, problems);
        load_keys(i, load, problems);
        pace::check(i, load, problems);
        batch_api(i, load, experiment, problems);
    }
    runs(experiment, problems);
    reports(experiment, problems);
    expects(experiment, problems);
}

fn workload_keys(i: usize, w: &WorkloadSpec, problems: &mut Vec<Problem>) {
    use WorkloadKind::{File, Mix, Prompts, Synthetic};
    let kind = w.kind;
    // An embedding has no length.
    let osl: &[WorkloadKind] =
        if w.api.unwrap_or_default().generates() { &[Synthetic] } else { &[] };
    // Key, whether it is given, kinds that need it, kinds that may have it.
    let rules: [(&str, bool, &[WorkloadKind], &[WorkloadKind]); 11] = [
        ("prompts", !w.prompts.is_empty(), &[Prompts], &[]),
        ("file", w.file.is_some(), &[File], &[]),
        ("max_tokens", w.max_tokens.is_some(), &[File], &[]),
        ("isl", w.isl.is_some(), &[Synthetic], &[]),
        ("osl", w.osl.is_some(), osl, &[Synthetic]),
        ("parts", !w.parts.is_empty(), &[Mix], &[]),
        ("isl_dev", w.isl_dev.is_some(), &[], &[Synthetic]),
        ("osl_dev", w.osl_dev.is_some(), &[], &[Synthetic]),
        ("prefix", w.prefix.is_some(), &[], &[Synthetic]),
        ("entries", w.entries.is_some(), &[], &[Synthetic]),
        ("pick", w.pick.is_some(), &[], &[Prompts, File]),
    ];
    for (key, given, needed_by, allowed_in) in rules {
        let path = format!("workload[{i}].{key}");
        if !given && needed_by.contains(&kind) {
            let message = format!("'{}' of kind {} needs '{key}'", w.name, kind.name());
            problems.push(Problem::new(
                format!("workload[{i}].name"),
                message,
                format!("add {key} = .."),
            ));
        }
        if given && !needed_by.contains(&kind) && !allowed_in.contains(&kind) {
            let message = format!("'{key}' has no meaning in a workload of kind {}", kind.name());
            problems.push(Problem::new(path, message, "leave it out, or change the kind"));
        }
    }
}

fn numbers(i: usize, w: &WorkloadSpec, problems: &mut Vec<Problem>) {
    let lengths =
        [("isl", w.isl), ("osl", w.osl), ("max_tokens", w.max_tokens), ("entries", w.entries)];
    for (key, value) in lengths {
        if value.is_some_and(|n| n == 0 || n > 10_000_000) {
            let path = format!("workload[{i}].{key}");
            problems.push(Problem::new(
                path,
                format!("'{key}' must be between 1 and 10000000"),
                "",
            ));
        }
    }
    for (key, value) in
        [("isl_dev", w.isl_dev), ("osl_dev", w.osl_dev), ("temperature", w.temperature)]
    {
        if value.is_some_and(|n| !n.is_finite() || n < 0.0) {
            let path = format!("workload[{i}].{key}");
            problems.push(Problem::new(path, format!("'{key}' must be zero or above"), ""));
        }
    }
    for (p, prompt) in w.prompts.iter().enumerate() {
        if prompt.max_tokens == 0 || prompt.text.is_empty() {
            let path = format!("workload[{i}].prompts[{p}]");
            problems.push(Problem::new(
                path,
                "a prompt needs a text and max_tokens above zero",
                "",
            ));
        }
    }
}

/// What the endpoint family of a workload cannot do.
fn family(i: usize, w: &WorkloadSpec, problems: &mut Vec<Problem>) {
    let api = w.api.unwrap_or_default();
    let mut refuse = |key: &str, message: String, hint: &str| {
        problems.push(Problem::new(format!("workload[{i}].{key}"), message, hint));
    };
    if w.system.is_some() && !api.has_system() {
        let hint = "use api = \"chat\", or put the text before the prompt";
        refuse("system", format!("api {} has no system message", api.name()), hint);
    }
    if api.generates() {
        return;
    }
    let given = [
        ("osl", w.osl.is_some()),
        ("osl_dev", w.osl_dev.is_some()),
        ("stream", w.stream == Some(true)),
        ("force_len", w.force_len == Some(true)),
        ("temperature", w.temperature.is_some()),
    ];
    for (key, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
        let message = format!("'{key}' has no meaning with api {}: no tokens come", api.name());
        refuse(key, message, "leave it out, or change the api");
    }
}

fn mix(i: usize, w: &WorkloadSpec, experiment: &Experiment, problems: &mut Vec<Problem>) {
    let mut parts = Vec::new();
    for (p, part) in w.parts.iter().enumerate() {
        let path = format!("workload[{i}].parts[{p}]");
        let known = experiment.workload.iter().map(|w| w.name.as_str());
        reference(path.clone(), "workload", &part.workload, known, problems);
        if part.count == 0 {
            problems.push(Problem::new(path.clone(), "'count' must be above zero", ""));
        }
        let of = experiment.workload.iter().find(|x| x.name == part.workload);
        if of.is_some_and(|x| x.kind == WorkloadKind::Mix) {
            problems.push(Problem::new(path, "a mix cannot be part of a mix", "name its parts"));
        } else {
            parts.extend(of);
        }
    }
    let same = |f: fn(&WorkloadSpec) -> String| parts.windows(2).all(|w| f(w[0]) == f(w[1]));
    let checks: [(&str, bool, bool); 5] = [
        ("api", same(|w| format!("{:?}", w.api.unwrap_or_default())), w.api.is_some()),
        ("stream", same(|w| format!("{:?}", w.stream.unwrap_or(true))), w.stream.is_some()),
        (
            "force_len",
            same(|w| format!("{:?}", w.force_len.unwrap_or(false))),
            w.force_len.is_some(),
        ),
        ("temperature", same(|w| format!("{:?}", w.temperature)), w.temperature.is_some()),
        ("system", same(|w| format!("{:?}", w.system)), w.system.is_some()),
    ];
    for (key, agree, given) in checks {
        if !agree && !given {
            problems.push(Problem::new(
                format!("workload[{i}].parts"),
                format!("the parts disagree on '{key}'"),
                format!("give {key} in the mix; it then holds for all parts"),
            ));
        }
    }
}

fn load_keys(i: usize, load: &LoadSpec, problems: &mut Vec<Problem>) {
    let mode = load.mode.unwrap_or_default();
    let rules: [(&str, bool, &[Mode]); 13] = [
        ("concurrency", load.concurrency.is_some(), &[Mode::Closed, Mode::Open]),
        ("concurrency_per_replica", load.concurrency_per_replica.is_some(), &[Mode::Closed]),
        ("rate", load.rate.is_some(), &[Mode::Open]),
        ("profile", load.profile.is_some(), &[Mode::Open]),
        ("arrival", load.arrival.is_some(), &[Mode::Open]),
        ("burstiness", load.burstiness.is_some(), &[Mode::Open]),
        ("speed", load.speed.is_some(), &[Mode::Open]),
        ("window", load.window.is_some(), &[Mode::Open]),
        ("ramp_up", load.ramp_up.is_some(), &[Mode::Closed]),
        ("think", load.think.is_some(), &[Mode::Closed, Mode::Serial]),
        ("max_prefill", load.max_prefill.is_some(), &[Mode::Closed, Mode::Open, Mode::Burst]),
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
    if load.requests.is_some_and(|r| r.of(Some(1)) == Some(0)) {
        problems.push(Problem::new(
            format!("load[{i}].requests"),
            "'requests' must be above zero",
            "",
        ));
    }
}

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
    let names = known_names();
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("known are {}", names.join(", ")),
    };
    problems.push(Problem::new(path, format!("unknown metric '{name}'"), hint));
}

fn reports(experiment: &Experiment, problems: &mut Vec<Problem>) {
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
        if let Some(file) = &report.file {
            name(&path("file"), file, problems);
        }
    }
}

fn expects(experiment: &Experiment, problems: &mut Vec<Problem>) {
    let deploys = experiment.deployments().map(|(_, d)| d.name.as_str());
    let loads = experiment.load.iter().map(|l| l.name.as_str());
    for (e, expect) in experiment.expect.iter().enumerate() {
        metric(format!("expect[{e}].metric"), &expect.metric, problems);
        if !matches!(expect.op.as_str(), "==" | "!=" | "<" | "<=" | ">" | ">=") {
            let message = format!("'{}' is not a comparison", expect.op);
            problems.push(Problem::new(
                format!("expect[{e}].op"),
                message,
                "use ==, !=, <, <=, > or >=",
            ));
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
