//! Checks of what single kinds of report need, and of expectations on what only they find.

use crate::analysis::fairness;
use crate::analysis::pareto::Axes;
use crate::metrics::catalogue::is_known;
use crate::metrics::{self, Better};
use crate::spec::{Experiment, Problem, ReportKind, ReportSpec, WorkloadKind};
use crate::stats::percentile::split;

pub(super) fn check(
    r: usize,
    report: &ReportSpec,
    experiment: &Experiment,
    problems: &mut Vec<Problem>,
) {
    let path = |key: &str| format!("report[{r}].{key}");
    if let Some(at) = &report.at {
        if report.kind != ReportKind::Pareto {
            problems.push(Problem::new(
                path("at"),
                "'at' is a target of a pareto report",
                "use kind = \"pareto\", or leave it out",
            ));
        }
        if let Some(at) = at.0.iter().find(|at| !at.is_finite() || **at <= 0.0) {
            let message = format!("{at} is no target");
            problems.push(Problem::new(path("at"), message, "give a number above zero"));
        }
    }
    match report.kind {
        ReportKind::Pareto => axes(&path, report, problems),
        ReportKind::Fairness => classes(&path, report, experiment, problems),
        ReportKind::Scaling => grown(&path, report, problems),
        _ => {}
    }
}

/// A front needs to know which way is better.
fn axes(path: &impl Fn(&str) -> String, report: &ReportSpec, problems: &mut Vec<Problem>) {
    let (x, y) = report.axes();
    for (key, name) in [("x", x), ("y", y)] {
        if is_known(name) && Axes::of(name, name).is_none() {
            problems.push(Problem::new(
                path(key),
                format!("'{name}' has no front: neither more of it nor less is better"),
                "use kind = \"curve\", or a metric as output_tps_per_gpu or ttft.p99",
            ));
        }
    }
}

/// What is divided already, or is a share of something, has no size to be held against.
fn grown(path: &impl Fn(&str) -> String, report: &ReportSpec, problems: &mut Vec<Problem>) {
    for (i, name) in report.metrics.iter().enumerate() {
        let Some(metric) = metrics::find(split(name).0) else { continue };
        let is_divided = metric.name.contains("_per_");
        let is_amount = !metric.unit.is_empty() && metric.better != Better::Neither;
        if is_divided || !is_amount {
            problems.push(Problem::new(
                path(&format!("metrics[{i}]")),
                format!("'{name}' does not grow with size"),
                "use a rate or a time, as output_tps, rps or e2e.p50",
            ));
        }
    }
}

fn classes(
    path: &impl Fn(&str) -> String,
    report: &ReportSpec,
    experiment: &Experiment,
    problems: &mut Vec<Problem>,
) {
    for (key, load, what) in [
        ("alone", &report.alone, "where the class is alone"),
        ("mixed", &report.mixed, "where it is beside others"),
    ] {
        let Some(load) = load else {
            let message = format!("a fairness report needs '{key}'");
            let hint = format!("add {key} = \"..\", the load {what}");
            problems.push(Problem::new(path("kind"), message, hint));
            continue;
        };
        let known = classes_of(experiment, load);
        let Some(by) = report.by.as_ref().filter(|_| !known.is_empty()) else { continue };
        if !known.contains(&by.as_str()) {
            problems.push(Problem::new(
                path("by"),
                format!("load '{load}' asks no class '{by}'"),
                format!("its classes are {}", known.join(", ")),
            ));
        }
    }
}

/// The classes of a load's requests, as records name them; empty where they are not known from the file.
fn classes_of<'a>(experiment: &'a Experiment, load: &str) -> Vec<&'a str> {
    let load = experiment.load.iter().find(|l| l.name == load);
    let workload = |name: &String| experiment.workload.iter().find(|w| w.name == *name);
    let Some(workload) = load.and_then(|l| workload(&l.workload)) else { return Vec::new() };
    match workload.kind {
        WorkloadKind::Mix => workload.parts.iter().map(|p| p.workload.as_str()).collect(),
        WorkloadKind::Prompts => workload.prompts.iter().map(|p| p.id.as_str()).collect(),
        WorkloadKind::Synthetic | WorkloadKind::File => vec![&workload.name],
    }
}

/// An expectation on what nothing in the file could find would never be held against anything.
pub(super) fn expectation(path: String, metric: &str, experiment: &Experiment) -> Option<Problem> {
    let has_report = experiment.report.iter().any(|r| r.kind == ReportKind::Fairness);
    let has_mix = experiment.workload.iter().any(|w| w.kind == WorkloadKind::Mix);
    let (message, hint) = match () {
        () if fairness::slowdown_of(metric).is_some() && !has_report => (
            format!("'{metric}' needs a load where the class is alone and one where it is not"),
            "add a [[report]] with kind = \"fairness\", alone = \"..\", mixed = \"..\" and by = \"..\"",
        ),
        () if metric == fairness::JAIN && !has_report && !has_mix => (
            "'jain' is found of mixed loads, and there is none".to_owned(),
            "add a workload of kind = \"mix\", or a [[report]] of kind = \"fairness\"",
        ),
        () => return None,
    };
    Some(Problem::new(path, message, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
schema = 1
name = "n"
model = { id = "m" }
[[workload]]
name = "short"
kind = "synthetic"
[[workload]]
name = "both"
kind = "mix"
parts = [ { workload = "long", count = 2 }, { workload = "short", count = 2 } ]
[[load]]
name = "a"
workload = "short"
[[load]]
name = "m"
workload = "both"
[[report]]
"#;

    fn problems(report: &str) -> Vec<String> {
        let experiment: Experiment = toml::from_str(&format!("{FILE}{report}")).unwrap();
        let mut problems = Vec::new();
        check(0, &experiment.report[0], &experiment, &mut problems);
        assert!(problems.iter().all(|p| !p.hint.is_empty()), "{problems:?}");
        problems.into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect()
    }

    #[test]
    fn what_a_report_needs_is_told_at_its_key() {
        for (report, want) in [
            ("kind = \"fairness\"\nalone = \"a\"\nmixed = \"m\"\nby = \"short\"", ""),
            (
                "kind = \"fairness\"\nmixed = \"m\"",
                "report[0].kind: a fairness report needs 'alone'",
            ),
            (
                "kind = \"fairness\"\nalone = \"a\"\nmixed = \"m\"\nby = \"long\"",
                "report[0].by: load 'a' asks no class 'long'",
            ),
            ("kind = \"pareto\"\nat = [20, 30.5]", ""),
            ("kind = \"pareto\"\nx = \"ttft.p99\"\nat = 450", ""),
            ("kind = \"pareto\"\nat = -1", "report[0].at: -1 is no target"),
            ("kind = \"curve\"\nat = 30", "report[0].at: 'at' is a target of a pareto report"),
            (
                "kind = \"pareto\"\nx = \"requests\"",
                "report[0].x: 'requests' has no front: neither more of it nor less is better",
            ),
        ] {
            let want: Vec<&str> = Some(want).filter(|w| !w.is_empty()).into_iter().collect();
            assert_eq!(problems(report), want, "{report}");
        }
    }

    #[test]
    fn a_target_is_a_number() {
        let text = format!("{FILE}kind = \"pareto\"\nat = [\"fast\"]");
        let error = toml::from_str::<Experiment>(&text).unwrap_err().to_string();
        assert!(error.contains("\"fast\" is not a number"), "{error}");
    }

    #[test]
    fn an_expectation_that_nothing_could_find_a_value_for_is_refused() {
        let told = |report: &str, metric: &str| {
            let experiment: Experiment = toml::from_str(&format!("{FILE}{report}")).unwrap();
            expectation("p".to_owned(), metric, &experiment).is_some()
        };
        let fair = "kind = \"fairness\"\nalone = \"a\"\nmixed = \"m\"";
        assert!(told("kind = \"table\"", "slowdown.ttft.p95") && !told(fair, "slowdown.ttft.p95"));
        assert!(!told("kind = \"table\"", "jain"), "there is a mix");
        assert!(!told("kind = \"table\"", "ttft.p95"));
    }
}
