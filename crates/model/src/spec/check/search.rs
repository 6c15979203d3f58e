//! Checks of a search: what it needs beside it, what it replaces, and that it comes to an end.

use crate::plan::Mode;
use crate::search::number_of_levels;
use crate::spec::{ArrivalSpec, LoadSpec, Problem, SearchEnd};

/// Steps that are read. Below one in a hundred, runs of one deployment differ by more.
const PRECISION: std::ops::RangeInclusive<f64> = 0.01..=1.0;
/// More trials than anybody waits for.
const MOST_PROBES: u32 = 1_000;
/// Each level that may be probed is in the plan.
const MOST_LEVELS: f64 = 1_000.0;

pub(super) fn check(i: usize, load: &LoadSpec, problems: &mut Vec<Problem>) {
    let Some(search) = &load.search else { return };
    let mut add = |key: &str, message: String, hint: &str| {
        problems.push(Problem::new(format!("load[{i}].{key}"), message, hint));
    };
    if load.slo.is_none() {
        let message = "'search' needs 'slo', which says what the highest load must meet".to_owned();
        add("search", message, "add slo = [\"ttft.p99 <= 450ms\", \"tpot.p99 <= 40ms\"]");
    }
    let mode = load.mode.unwrap_or_default();
    let replaced: [(&str, bool, &str); 5] = [
        ("rate", load.rate.is_some(), "leave it out; levels go from 'from' to 'to' of the search"),
        ("profile", load.profile.is_some(), "leave it out; a level has one rate"),
        (
            "concurrency",
            load.concurrency.is_some() && mode == Mode::Closed,
            "leave it out; levels go from 'from' to 'to' of the search",
        ),
        (
            "concurrency_per_replica",
            load.concurrency_per_replica.is_some(),
            "leave it out; levels go from 'from' to 'to' of the search",
        ),
        (
            "repeats",
            load.repeats.is_some(),
            "leave it out; 'tries' of the search says how often a level is measured at most",
        ),
    ];
    for (key, given, hint) in replaced {
        if given {
            add(key, format!("'{key}' is given beside 'search'"), hint);
        }
    }
    if load.arrival == Some(ArrivalSpec::Trace) {
        let message = "a trace has times of its own, and no rate to search".to_owned();
        add("arrival", message, "use poisson, constant or gamma");
    }
    for (key, end) in [("search.from", search.from), ("search.to", search.to)] {
        match (mode, end) {
            (Mode::Open, SearchEnd::Rate(_)) | (Mode::Closed, SearchEnd::Concurrency(_)) => {}
            (Mode::Open, _) => {
                add(key, "an open load searches a rate".to_owned(), "write for example \"5/s\"");
            }
            (Mode::Closed, _) => {
                let message = "a closed load searches a number of requests in flight".to_owned();
                add(key, message, "write for example 8, or set mode = \"open\"");
            }
            _ => {}
        }
    }
    if !matches!(mode, Mode::Open | Mode::Closed) {
        let message = format!("'search' has no meaning in {} mode", mode.name());
        add("search", message, "it belongs to mode closed or open");
    }
    let (from, to) = (search.from.value(), search.to.value());
    if to <= from {
        add("search.to", "'to' must be above 'from'".to_owned(), "raise it, or lower 'from'");
    }
    if !PRECISION.contains(&search.precision()) {
        let message = "'precision' must be between 0.01 and 1".to_owned();
        add("search.precision", message, "0.05 is a step of 5 %");
    } else if number_of_levels(from, to, search.precision()) > MOST_LEVELS {
        let message = "more than 1000 levels lie between 'from' and 'to'".to_owned();
        add("search.precision", message, "raise 'precision', or bring the two together");
    }
    if !(1..=20).contains(&search.tries()) {
        add("search.tries", "'tries' must be between 1 and 20".to_owned(), "3 is usual");
    }
    if !(1..=MOST_PROBES).contains(&search.probes()) {
        let message = format!("'probes' must be between 1 and {MOST_PROBES}");
        add("search.probes", message, "30 is usual");
    }
    if search.time.is_some_and(|t| t.0.0 == 0) {
        add("search.time", "'time' must be above zero".to_owned(), "leave it out for no limit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(keys: &str) -> Vec<String> {
        let text = format!("name = \"l\"\nworkload = \"w\"\n{keys}");
        let load: LoadSpec = toml::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let mut problems = Vec::new();
        check(0, &load, &mut problems);
        assert!(problems.iter().all(|p| !p.hint.is_empty()), "{problems:?}");
        problems.into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect()
    }

    #[test]
    fn sound_searches_have_no_problem() {
        for keys in [
            "mode = \"open\"\nslo = \"ttft <= 1s\"\nsearch = { from = \"1/s\", to = \"100/s\" }",
            "slo = \"ttft <= 1s\"\nsearch = { from = 1, to = 512, precision = 0.1, tries = 5, probes = 40, time = \"1h\" }",
            "mode = \"open\"\nconcurrency = 64\nslo = \"e2e <= 1s\"\nsearch = { from = \"1/s\", to = \"2/s\" }",
        ] {
            assert_eq!(problems(keys), [""; 0], "{keys}");
        }
    }

    #[test]
    fn contradictions_are_found_at_their_key() {
        let open = |keys: &str| format!("mode = \"open\"\nslo = \"ttft <= 1s\"\n{keys}");
        let ends = "from = \"1/s\", to = \"9/s\"";
        for (keys, want) in [
            (
                "search = { from = 1, to = 8 }".to_owned(),
                "load[0].search: 'search' needs 'slo', which says what the highest load must meet",
            ),
            (
                open(&format!("rate = \"5/s\"\nsearch = {{ {ends} }}")),
                "load[0].rate: 'rate' is given beside 'search'",
            ),
            (
                open(&format!("repeats = 3\nsearch = {{ {ends} }}")),
                "load[0].repeats: 'repeats' is given beside 'search'",
            ),
            (
                open(&format!("arrival = \"trace\"\nsearch = {{ {ends} }}")),
                "load[0].arrival: a trace has times of its own, and no rate to search",
            ),
            (
                open("search = { from = 1, to = \"9/s\" }"),
                "load[0].search.from: an open load searches a rate",
            ),
            (
                "slo = \"ttft <= 1s\"\nsearch = { from = 1, to = \"9/s\" }".to_owned(),
                "load[0].search.to: a closed load searches a number of requests in flight",
            ),
            (
                "mode = \"burst\"\nslo = \"ttft <= 1s\"\nsearch = { from = 1, to = 9 }".to_owned(),
                "load[0].search: 'search' has no meaning in burst mode",
            ),
            (
                open("search = { from = \"9/s\", to = \"9/s\" }"),
                "load[0].search.to: 'to' must be above 'from'",
            ),
            (
                open(&format!("search = {{ {ends}, precision = 0.001 }}")),
                "load[0].search.precision: 'precision' must be between 0.01 and 1",
            ),
            (
                open("search = { from = \"0.001/s\", to = \"1000000/s\", precision = 0.01 }"),
                "load[0].search.precision: more than 1000 levels lie between 'from' and 'to'",
            ),
            (
                open(&format!("search = {{ {ends}, tries = 0 }}")),
                "load[0].search.tries: 'tries' must be between 1 and 20",
            ),
            (
                open(&format!("search = {{ {ends}, probes = 0 }}")),
                "load[0].search.probes: 'probes' must be between 1 and 1000",
            ),
            (
                open(&format!("search = {{ {ends}, time = \"0s\" }}")),
                "load[0].search.time: 'time' must be above zero",
            ),
        ] {
            assert_eq!(problems(&keys), [want], "{keys}");
        }
    }
}
