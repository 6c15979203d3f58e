//! Checks of what a load must meet.

use crate::slo::{Latency, Slo};
use crate::spec::{LoadSpec, Problem, WorkloadSpec};

pub(super) fn check(
    i: usize,
    load: &LoadSpec,
    workload: Option<&WorkloadSpec>,
    problems: &mut Vec<Problem>,
) {
    let Some(texts) = &load.slo else { return };
    let path = |index: usize| match texts.0.len() {
        1 => format!("load[{i}].slo"),
        _ => format!("load[{i}].slo[{index}]"),
    };
    match Slo::parse(&texts.0) {
        Err(wrong) => {
            problems.push(Problem::new(path(wrong.index), wrong.message, wrong.hint));
        }
        Ok(slo) => {
            let is_whole = |w: &WorkloadSpec| {
                w.stream == Some(false) || !w.api.unwrap_or_default().generates()
            };
            let of_tokens = slo.bounds.iter().find(|b| b.of != Latency::E2e);
            if let (Some(bound), Some(workload)) = (of_tokens, workload.filter(|w| is_whole(w))) {
                problems.push(Problem::new(
                    path(0),
                    format!(
                        "'{bound}' can never hold: answers of workload '{}' come whole",
                        workload.name
                    ),
                    "bound e2e, or let the workload stream",
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(slo: &str, stream: bool) -> Vec<String> {
        let load = format!("name = \"l\"\nworkload = \"w\"\nslo = {slo}");
        let load: LoadSpec = toml::from_str(&load).unwrap();
        let workload = format!("name = \"w\"\nkind = \"synthetic\"\nstream = {stream}");
        let workload: WorkloadSpec = toml::from_str(&workload).unwrap();
        let mut problems = Vec::new();
        check(0, &load, Some(&workload), &mut problems);
        assert!(problems.iter().all(|p| !p.hint.is_empty()), "{problems:?}");
        problems.into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect()
    }

    #[test]
    fn problems_are_found_at_their_bound() {
        for (slo, stream, want) in [
            ("\"mlperf-llama2-70b\"", true, ""),
            ("[\"ttft.p99 <= 1s\", \"tpot.p95 <= 40ms\"]", true, ""),
            ("\"e2e <= 9s\"", false, ""),
            (
                "[\"ttft.p99 <= 1s\", \"tpot.p95\"]",
                true,
                "load[0].slo[1]: 'tpot.p95' is no bound and no preset of an SLO",
            ),
            ("\"ttft <= fast\"", true, "load[0].slo: 'fast' does not begin with a number"),
            (
                "\"ttft <= 1s\"",
                false,
                "load[0].slo: 'ttft.p99 <= 1.00 s' can never hold: answers of workload 'w' come whole",
            ),
        ] {
            let want: Vec<&str> = Some(want).filter(|w| !w.is_empty()).into_iter().collect();
            assert_eq!(problems(slo, stream), want, "{slo}");
        }
    }
}
