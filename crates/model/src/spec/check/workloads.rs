//! Checks of workloads: which keys go together, lengths, spreads, mixes.

use super::{name, reference, unique};
use crate::spec::{DistKind, DistSpec, Experiment, Part, Problem, WorkloadKind, WorkloadSpec};
use crate::workload::lengths::{LOGNORMAL_CUT, LONGEST};
use crate::workload::{Api, FileFormat, LengthDist, RangeMeaning};

/// Beyond, a lognormal has next to all of its mass at one token and at its cut.
const MOST_SIGMA: f64 = 3.0;

pub(super) fn check(experiment: &Experiment, problems: &mut Vec<Problem>) {
    unique("workload", experiment.workload.iter().map(|w| &w.name), problems);
    for (i, workload) in experiment.workload.iter().enumerate() {
        name(&format!("workload[{i}].name"), &workload.name, problems);
        keys(i, workload, problems);
        numbers(i, workload, problems);
        family(i, workload, problems);
        prefixes(i, workload, problems);
        spread(i, "isl", workload.isl, workload.isl_dev, workload.isl_dist.as_ref(), problems);
        spread(i, "osl", workload.osl, workload.osl_dev, workload.osl_dist.as_ref(), problems);
        spread(i, "turns", workload.turns, None, workload.turns_dist.as_ref(), problems);
        spread(i, "turn_isl", workload.turn_isl, None, workload.turn_isl_dist.as_ref(), problems);
        if workload.kind == WorkloadKind::Mix {
            mix(i, workload, experiment, problems);
        }
    }
}

/// Tokens of the longest prompt and answer that can be drawn, where they are drawn. A normal spread is
/// taken at its mean, as its tail is a matter of a few requests.
pub(super) fn longest(w: &WorkloadSpec) -> Option<u32> {
    if w.kind != WorkloadKind::Synthetic {
        return None;
    }
    let one = |mean: Option<u32>, dist: Option<&DistSpec>| {
        dist.map_or(mean, |dist| Some(dist.resolve(mean)?.max()))
    };
    let isl = one(w.isl, w.isl_dist.as_ref())?;
    let osl = one(w.osl, w.osl_dist.as_ref())?;
    // The last turn of a session carries all that was said before it.
    let turns = if w.has_sessions() { one(w.turns, w.turns_dist.as_ref())? } else { 1 };
    let more = if turns > 1 { one(w.turn_isl, w.turn_isl_dist.as_ref())? } else { 0 };
    let later = more.saturating_add(osl).saturating_mul(turns.saturating_sub(1));
    Some(w.prefix.unwrap_or(0).saturating_add(isl).saturating_add(osl).saturating_add(later))
}

/// A uniform spread has its mean in its ends; every other length needs to be said.
fn needs_mean(dist: Option<&DistSpec>) -> bool {
    dist.is_none_or(|d| d.kind != DistKind::Uniform)
}

/// What one key may stand with.
struct Rule {
    key: &'static str,
    is_given: bool,
    is_needed: bool,
    is_allowed: bool,
}

fn rules(w: &WorkloadSpec) -> [Rule; 21] {
    use WorkloadKind::{File, Mix, Prompts, Synthetic};
    let is = |kind: WorkloadKind| w.kind == kind;
    let format = w.format.unwrap_or_default();
    let needed =
        |key, is_given, is_needed| Rule { key, is_given, is_needed, is_allowed: is_needed };
    let allowed = |key, is_given, is_allowed| Rule { key, is_given, is_needed: false, is_allowed };
    let generates = w.api.unwrap_or_default().generates();
    let lines = is(File) && format == FileFormat::Jsonl;
    let talks = is(Synthetic) || is(File) && !format.is_trace();
    let sessions = talks && w.has_sessions();
    [
        needed("prompts", !w.prompts.is_empty(), is(Prompts)),
        needed("file", w.file.is_some(), is(File)),
        allowed("format", w.format.is_some(), is(File)),
        Rule {
            key: "max_tokens",
            is_given: w.max_tokens.is_some(),
            is_needed: lines,
            is_allowed: is(File) && !format.is_trace(),
        },
        needed("isl", w.isl.is_some(), is(Synthetic) && needs_mean(w.isl_dist.as_ref())),
        Rule {
            key: "osl",
            is_given: w.osl.is_some(),
            // An embedding has no length; that it is given all the same is told elsewhere.
            is_needed: is(Synthetic) && generates && needs_mean(w.osl_dist.as_ref()),
            is_allowed: is(Synthetic) && !generates,
        },
        needed("parts", !w.parts.is_empty(), is(Mix)),
        allowed("isl_dev", w.isl_dev.is_some(), is(Synthetic)),
        allowed("osl_dev", w.osl_dev.is_some(), is(Synthetic)),
        allowed("isl_dist", w.isl_dist.is_some(), is(Synthetic)),
        allowed("osl_dist", w.osl_dist.is_some(), is(Synthetic)),
        allowed("prefix", w.prefix.is_some(), is(Synthetic)),
        allowed("prefix_groups", w.prefix_groups.is_some(), is(Synthetic)),
        allowed("entries", w.entries.is_some(), is(Synthetic) && !sessions),
        Rule {
            key: "turns",
            is_given: w.turns.is_some(),
            is_needed: w.turns_dist.is_some() && needs_mean(w.turns_dist.as_ref()),
            is_allowed: talks && needs_mean(w.turns_dist.as_ref()),
        },
        allowed("turns_dist", w.turns_dist.is_some(), is(Synthetic)),
        needed(
            "turn_isl",
            w.turn_isl.is_some(),
            sessions && is(Synthetic) && needs_mean(w.turn_isl_dist.as_ref()),
        ),
        allowed("turn_isl_dist", w.turn_isl_dist.is_some(), sessions && is(Synthetic)),
        allowed("history", w.history.is_some(), sessions),
        allowed(
            "pick",
            w.pick.is_some(),
            is(Prompts)
                || is(File) && !format.is_trace()
                || is(Synthetic) && w.prefix_groups.is_some(),
        ),
        // What a mix needs of it is asked of its parts.
        allowed("cache", w.cache.is_some(), true),
    ]
}

fn keys(i: usize, w: &WorkloadSpec, problems: &mut Vec<Problem>) {
    let what = match (w.kind, w.format) {
        (WorkloadKind::File, Some(format)) => format!("kind file and format {}", format.name()),
        (kind, _) => format!("kind {}", kind.name()),
    };
    for rule in rules(w) {
        let key = rule.key;
        if !rule.is_given && rule.is_needed {
            problems.push(Problem::new(
                format!("workload[{i}].name"),
                format!("'{}' of {what} needs '{key}'", w.name),
                format!("add {key} = .."),
            ));
        }
        if rule.is_given && !rule.is_needed && !rule.is_allowed {
            problems.push(Problem::new(
                format!("workload[{i}].{key}"),
                format!("'{key}' has no meaning in a workload of {what}"),
                no_meaning_hint(w, key),
            ));
        }
    }
}

fn no_meaning_hint(w: &WorkloadSpec, key: &str) -> &'static str {
    let is_trace = w.format.is_some_and(FileFormat::is_trace);
    match key {
        "turns" | "turn_isl" if w.kind == WorkloadKind::Synthetic && w.has_sessions() => {
            "a uniform spread follows from its min and max alone; leave it out"
        }
        "turn_isl" | "turn_isl_dist" | "history" if !w.has_sessions() => {
            "it belongs to sessions; add turns = 5, or leave it out"
        }
        "turn_isl" | "turn_isl_dist" | "turns_dist" if w.kind == WorkloadKind::File => {
            "a file's conversations have turns and texts of their own; leave it out"
        }
        "turns" if is_trace => "a trace has no conversations; leave it out",
        "entries" if w.has_sessions() => "every session has texts of its own; leave it out",
        "isl" | "osl" if w.kind == WorkloadKind::Synthetic => {
            "a uniform length follows from its min and max alone; leave it out"
        }
        "pick" if w.kind == WorkloadKind::Synthetic => {
            "it says how prefix groups are taken; add prefix_groups, or leave it out"
        }
        "pick" if is_trace => "a trace is taken in its own order; leave it out",
        "max_tokens" if is_trace => "each request of a trace has its own length; leave it out",
        _ => "leave it out, or change the kind",
    }
}

fn numbers(i: usize, w: &WorkloadSpec, problems: &mut Vec<Problem>) {
    let lengths = [
        ("isl", w.isl),
        ("osl", w.osl),
        ("max_tokens", w.max_tokens),
        ("entries", w.entries),
        ("prefix_groups", w.prefix_groups),
        ("turns", w.turns),
        ("turn_isl", w.turn_isl),
    ];
    for (key, value) in lengths {
        if value.is_some_and(|n| n == 0 || n > LONGEST) {
            let path = format!("workload[{i}].{key}");
            problems.push(Problem::new(
                path,
                format!("'{key}' must be between 1 and {LONGEST}"),
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
    if w.has_sessions() && !api.takes_history() {
        let key = if w.turns.is_some() { "turns" } else { "turns_dist" };
        let message = format!("api {} has no place for what was said before", api.name());
        let hint = match api {
            Api::OllamaGenerate => "use api = \"ollama_chat\"",
            _ => "leave it out, or use api = \"chat\"",
        };
        refuse(key, message, hint);
    }
    if api.generates() {
        return;
    }
    let given = [
        ("osl", w.osl.is_some()),
        ("osl_dev", w.osl_dev.is_some()),
        ("osl_dist", w.osl_dist.is_some()),
        ("stream", w.stream == Some(true)),
        ("force_len", w.force_len == Some(true)),
        ("temperature", w.temperature.is_some()),
    ];
    for (key, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
        let message = format!("'{key}' has no meaning with api {}: no tokens come", api.name());
        refuse(key, message, "leave it out, or change the api");
    }
}

fn prefixes(i: usize, w: &WorkloadSpec, problems: &mut Vec<Problem>) {
    let path = |key: &str| format!("workload[{i}].{key}");
    if w.prefix.is_some_and(|n| n > LONGEST) {
        let message = format!("'prefix' must be at most {LONGEST}");
        problems.push(Problem::new(path("prefix"), message, ""));
    }
    if w.prefix_groups.is_some() && w.prefix.unwrap_or(0) == 0 {
        problems.push(Problem::new(
            path("prefix_groups"),
            "groups of prefixes need a prefix",
            "add prefix = 512, its length in tokens",
        ));
    }
}

/// One of the two lengths of a synthetic workload and how it is spread.
fn spread(
    i: usize,
    key: &str,
    mean: Option<u32>,
    dev: Option<f64>,
    dist: Option<&DistSpec>,
    problems: &mut Vec<Problem>,
) {
    let Some(dist) = dist else { return };
    let path = |part: &str| format!("workload[{i}].{key}_dist{part}");
    if dev.is_some() {
        problems.push(Problem::new(
            path(""),
            format!("'{key}_dev' is given as well"),
            format!("keep one of the two; {key}_dev is a normal spread"),
        ));
    }
    let needed: (&[&str], &[&str]) = match dist.kind {
        DistKind::Lognormal => (&["sigma"], &["max"]),
        DistKind::Uniform => (&["min", "max"], &[]),
        DistKind::RangeRatio => (&["ratio", "as"], &[]),
    };
    let given = [
        ("sigma", dist.sigma.is_some()),
        ("min", dist.min.is_some()),
        ("max", dist.max.is_some()),
        ("ratio", dist.ratio.is_some()),
        ("as", dist.meaning.is_some()),
    ];
    let kind = dist.kind.name();
    for (part, is_given) in given {
        if !is_given && needed.0.contains(&part) {
            let message = format!("a spread of kind {kind} needs '{part}'");
            problems.push(Problem::new(path(""), message, missing_hint(part, mean, dist)));
        }
        if is_given && !needed.0.contains(&part) && !needed.1.contains(&part) {
            let message = format!("'{part}' has no meaning in a spread of kind {kind}");
            problems.push(Problem::new(path(&format!(".{part}")), message, "leave it out"));
        }
    }
    ends(&path, mean, dist, problems);
}

/// What to add. Of a range ratio both meanings, since they are what the choice is between.
fn missing_hint(part: &str, mean: Option<u32>, dist: &DistSpec) -> String {
    if part != "as" {
        return format!("add {part} = ..");
    }
    let length = mean.unwrap_or(1_024);
    let ratio = dist.ratio.filter(|r| (0.0..=1.0).contains(r)).unwrap_or(0.5);
    let of = |meaning| match LengthDist::range_ratio(length, ratio, meaning) {
        LengthDist::Uniform { min, max, .. } => format!("{min} to {max}"),
        LengthDist::Lognormal { .. } => String::new(),
    };
    format!(
        "as = \"vllm\" is [L(1-r), L(1+r)], here {}; as = \"sglang\" is [rL, L], here {}",
        of(RangeMeaning::Vllm),
        of(RangeMeaning::Sglang)
    )
}

fn ends(
    path: &impl Fn(&str) -> String,
    mean: Option<u32>,
    dist: &DistSpec,
    problems: &mut Vec<Problem>,
) {
    if dist.sigma.is_some_and(|s| !(s > 0.0 && s <= MOST_SIGMA)) {
        let message = format!("'sigma' must be above zero and at most {MOST_SIGMA}");
        problems.push(Problem::new(path(".sigma"), message, "0.5 is a usual spread of prompts"));
    }
    for (part, value) in [("min", dist.min), ("max", dist.max)] {
        if value.is_some_and(|n| n == 0 || n > LONGEST) {
            let message = format!("'{part}' must be between 1 and {LONGEST}");
            problems.push(Problem::new(path(&format!(".{part}")), message, ""));
        }
    }
    if let (Some(min), Some(max)) = (dist.min, dist.max)
        && min > max
    {
        let message = format!("'min' = {min} is above 'max' = {max}");
        problems.push(Problem::new(path(".min"), message, ""));
    }
    let cut = dist.max.filter(|_| dist.kind == DistKind::Lognormal).zip(mean);
    if let Some((max, mean)) = cut.filter(|(max, mean)| max < mean) {
        let message = format!("the cut at {max} tokens is below the mean of {mean}");
        let hint = format!("leave max out (it is {LOGNORMAL_CUT} times the mean), or raise it");
        problems.push(Problem::new(path(".max"), message, hint));
    }
    // vLLM refuses a ratio of 1: its shortest prompt would be empty.
    let is_ratio = |r: f64| match dist.meaning {
        Some(RangeMeaning::Vllm) => (0.0..1.0).contains(&r),
        _ => (0.0..=1.0).contains(&r),
    };
    if dist.ratio.is_some_and(|r| !is_ratio(r)) {
        let message = "'ratio' must be between 0 and 1";
        problems.push(Problem::new(path(".ratio"), message, "as = \"vllm\" excludes 1 itself"));
    }
}

fn mix(i: usize, w: &WorkloadSpec, experiment: &Experiment, problems: &mut Vec<Problem>) {
    let mut parts = Vec::new();
    for (p, part) in w.parts.iter().enumerate() {
        let path = format!("workload[{i}].parts[{p}]");
        let known = experiment.workload.iter().map(|w| w.name.as_str());
        reference(path.clone(), "workload", &part.workload, known, problems);
        share(&path, part, w.parts.first(), problems);
        let of = experiment.workload.iter().find(|x| x.name == part.workload);
        if of.is_some_and(|x| x.kind == WorkloadKind::Mix) {
            problems.push(Problem::new(path, "a mix cannot be part of a mix", "name its parts"));
        } else {
            if of.is_some_and(WorkloadSpec::has_sessions) {
                let message =
                    format!("'{}' has sessions, which cannot be part of a mix", part.workload);
                problems.push(Problem::new(path, message, "give them a [[load]] of their own"));
            }
            parts.extend(of);
        }
    }
    let same = |f: fn(&WorkloadSpec) -> String| parts.windows(2).all(|w| f(w[0]) == f(w[1]));
    let checks: [(&str, bool, bool); 6] = [
        ("api", same(|w| format!("{:?}", w.api.unwrap_or_default())), w.api.is_some()),
        ("stream", same(|w| format!("{:?}", w.stream.unwrap_or(true))), w.stream.is_some()),
        (
            "force_len",
            same(|w| format!("{:?}", w.force_len.unwrap_or(false))),
            w.force_len.is_some(),
        ),
        ("temperature", same(|w| format!("{:?}", w.temperature)), w.temperature.is_some()),
        ("system", same(|w| format!("{:?}", w.system)), w.system.is_some()),
        ("cache", same(|w| format!("{:?}", w.cache.unwrap_or_default())), w.cache.is_some()),
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

/// All parts by count, or all by weight: between a round and a draw there is no order.
fn share(path: &str, part: &Part, first: Option<&Part>, problems: &mut Vec<Problem>) {
    let by_weight = first.is_some_and(|p| p.weight.is_some());
    let (message, hint) = match (part.count, part.weight) {
        (None, None) => ("a part needs 'count' or 'weight'", "add count = 1, or weight = 0.5"),
        (Some(_), Some(_)) => ("'count' and 'weight' are both given", "keep one of the two"),
        (Some(0), None) => ("'count' must be above zero", ""),
        (None, Some(w)) if !w.is_finite() || w <= 0.0 || w > 1e9 => {
            ("'weight' must be above zero and at most 1e9", "")
        }
        (count, _) if count.is_none() != by_weight => (
            "some parts have 'count', others 'weight'",
            "count is a fixed order, weight a draw per request; give all parts the same",
        ),
        _ => return,
    };
    problems.push(Problem::new(path, message, hint));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Diagnostics;
    use crate::workload::{Source, Workload};

    fn experiment(workloads: &str) -> (String, Experiment) {
        let text = format!("schema = 1\nname = \"t\"\n[model]\nid = \"m\"\n{workloads}");
        let parsed = toml::from_str(&text).unwrap();
        (text, parsed)
    }

    /// `line:column: message (hint)` of everything that is wrong with one synthetic workload, whose first
    /// key is in line 8.
    fn said(keys: &str) -> Vec<String> {
        said_of(&format!("[[workload]]\nname = \"w\"\nkind = \"synthetic\"\n{keys}\n"))
    }

    fn said_of(workloads: &str) -> Vec<String> {
        let (text, experiment) = experiment(workloads);
        let mut problems = Vec::new();
        check(&experiment, &mut problems);
        let located = Diagnostics::locate(&text, "f", problems).0;
        let of = |d: &crate::spec::Diagnostic| {
            format!("{}:{}: {} ({})", d.line, d.column, d.message, d.hint)
        };
        located.iter().map(of).collect()
    }

    fn planned(keys: &str) -> Workload {
        let text = format!("[[workload]]\nname = \"w\"\nkind = \"synthetic\"\n{keys}\n");
        let (_, experiment) = experiment(&text);
        crate::plan::workloads::workload(&experiment, &experiment.workload[0])
    }

    #[test]
    fn every_spread_is_planned_with_the_mean_of_what_is_drawn() {
        for (keys, isl, shown) in [
            ("isl = 1024\nosl = 8", 1024, ""),
            (
                "isl_dist = { kind = \"uniform\", min = 10, max = 21 }\nosl = 8",
                16,
                "10 to 21, mean 15.5",
            ),
            (
                "isl = 1024\nisl_dist = { kind = \"range-ratio\", ratio = 0.8, as = \"sglang\" }\nosl = 8",
                922,
                "819 to 1024, mean 921.5",
            ),
            (
                "isl = 1024\nisl_dist = { kind = \"range-ratio\", ratio = 0.8, as = \"vllm\" }\nosl = 8",
                1024,
                "204 to 1844, mean 1024.0",
            ),
            (
                "isl = 1000\nisl_dist = { kind = \"lognormal\", sigma = 0.5 }\nosl = 8",
                1000,
                "lognormal (sigma 0.5) up to 10000, mean 1000.0",
            ),
        ] {
            assert_eq!(said(keys), [""; 0], "{keys}");
            let Source::Synthetic { lengths, .. } = planned(keys).source else { panic!("{keys}") };
            let dist = lengths.isl_dist.as_ref().map(ToString::to_string).unwrap_or_default();
            assert_eq!((lengths.isl, dist.as_str()), (isl, shown), "{keys}");
        }
    }

    #[test]
    fn a_range_ratio_has_to_say_whose() {
        let keys = "isl = 1024\nosl = 8\nisl_dist = { kind = \"range-ratio\", ratio = 0.8 }";
        assert_eq!(
            said(keys),
            [
                "10:1: a spread of kind range-ratio needs 'as' (as = \"vllm\" is [L(1-r), L(1+r)], here \
              204 to 1844; as = \"sglang\" is [rL, L], here 819 to 1024)"
            ]
        );
    }

    #[test]
    fn what_is_wrong_with_a_spread_is_told_at_its_place() {
        let with = |dist: &str| said(&format!("isl = 64\nosl = 8\nisl_dist = {{ {dist} }}"));
        for (dist, want) in [
            ("kind = \"lognormal\"", "10:1: a spread of kind lognormal needs 'sigma'"),
            ("kind = \"lognormal\", sigma = 0.0", "10:34: 'sigma' must be above zero"),
            ("kind = \"lognormal\", sigma = nan", "10:34: 'sigma' must be above zero"),
            ("kind = \"lognormal\", sigma = 1, max = 63", "10:45: the cut at 63 tokens is below"),
            ("kind = \"lognormal\", sigma = 1, min = 1", "10:45: 'min' has no meaning in a spread"),
            (
                "kind = \"range-ratio\", ratio = 1.0, as = \"vllm\"",
                "10:36: 'ratio' must be between",
            ),
            ("kind = \"range-ratio\", ratio = -0.1, as = \"sglang\"", "10:36: 'ratio' must be"),
            ("kind = \"uniform\", min = 9, max = 8", "8:1: 'isl' has no meaning in a workload"),
        ] {
            let all = with(dist);
            assert!(all.first().is_some_and(|d| d.starts_with(want)), "{dist}: {all:?}");
        }
        let both =
            said("isl = 64\nisl_dev = 3\nisl_dist = { kind = \"lognormal\", sigma = 1 }\nosl = 8");
        assert_eq!(
            both,
            ["10:1: 'isl_dev' is given as well (keep one of the two; isl_dev is a normal spread)"]
        );
        let turned = said("isl_dist = { kind = \"uniform\", min = 9, max = 8 }\nosl = 8");
        assert_eq!(turned, ["8:32: 'min' = 9 is above 'max' = 8 ()"]);
    }

    #[test]
    fn groups_need_a_prefix_and_pick_says_how_they_are_taken() {
        assert_eq!(
            said("isl = 8\nosl = 8\nprefix = 64\nprefix_groups = 4\npick = \"random\""),
            [""; 0]
        );
        let alone = said("isl = 8\nosl = 8\nprefix_groups = 4");
        assert_eq!(
            alone,
            ["10:1: groups of prefixes need a prefix (add prefix = 512, its length in tokens)"]
        );
        let pick = said("isl = 8\nosl = 8\npick = \"random\"");
        assert!(
            pick[0].starts_with(
                "10:1: 'pick' has no meaning in a workload of kind synthetic (it says"
            )
        );
    }

    #[test]
    fn a_file_has_the_keys_of_its_format() {
        let of = |keys: &str| {
            said_of(&format!("[[workload]]\nname = \"w\"\nkind = \"file\"\nfile = \"f\"\n{keys}\n"))
        };
        assert_eq!(of("format = \"mooncake\""), [""; 0]);
        assert_eq!(of("format = \"sharegpt\"\nmax_tokens = 9\npick = \"random\""), [""; 0]);
        assert!(of("")[0].contains("'w' of kind file needs 'max_tokens'"));
        assert!(of("format = \"azure\"\nmax_tokens = 9")[0].starts_with(
            "10:1: 'max_tokens' has no meaning in a workload of kind file and format azure (each request"
        ));
        assert!(of("format = \"azure\"\npick = \"random\"")[0].contains("taken in its own order"));
    }

    #[test]
    fn parts_of_a_mix_have_all_counts_or_all_weights_and_one_cache_policy() {
        let of = |parts: &str, more: &str| {
            let part = |name: &str, more: &str| {
                format!(
                    "[[workload]]\nname = \"{name}\"\nkind = \"synthetic\"\nisl = 8\nosl = 8\n{more}\n"
                )
            };
            let (a, b) = (part("a", "cache = \"keep\""), part("b", more));
            said_of(&format!(
                "{a}{b}[[workload]]\nname = \"m\"\nkind = \"mix\"\nparts = [\n{parts}\n]\n"
            ))
        };
        let keep = "cache = \"keep\"";
        let weights = "{ workload = \"a\", weight = 0.3 },\n{ workload = \"b\", weight = 0.7 },";
        assert_eq!(of(weights, keep), [""; 0]);
        assert!(of(weights, "")[0].contains("the parts disagree on 'cache'"));
        for (b, want) in [
            ("count = 1", "some parts have 'count', others 'weight'"),
            ("weight = 0.0", "'weight' must be above zero"),
            ("weight = 1, count = 1", "'count' and 'weight' are both given"),
        ] {
            let parts =
                format!("{{ workload = \"a\", weight = 0.3 }},\n{{ workload = \"b\", {b} }},");
            let all = of(&parts, keep);
            assert!(all[0].starts_with("22:1: ") && all[0].contains(want), "{all:?}");
        }
    }
    #[test]
    fn sessions_have_the_keys_of_their_kind_and_a_family_that_carries_them() {
        let sound = "isl = 64\nosl = 8\nturn_isl = 16\n";
        for keys in [
            "turns = 5",
            "turns = 5\nhistory = \"planned\"",
            "turns_dist = { kind = \"uniform\", min = 2, max = 8 }",
            "turns = 5\nturns_dist = { kind = \"lognormal\", sigma = 0.5, max = 20 }",
            "turns = 5\napi = \"tgi\"",
        ] {
            assert_eq!(said(&format!("{sound}{keys}")), [""; 0], "{keys}");
        }
        for (keys, want) in [
            (
                "",
                "'turn_isl' has no meaning in a workload of kind synthetic (it belongs to sessions",
            ),
            ("turns = 0", "'turns' must be between 1"),
            ("turns = 5\nentries = 3", "'entries' has no meaning"),
            (
                "turns = 5\napi = \"embeddings\"\nosl = 8",
                "embeddings has no place for what was said before",
            ),
            (
                "turns = 5\napi = \"ollama_generate\"",
                "ollama_generate has no place for what was said before (use api = \"ollama_chat\")",
            ),
            ("turns_dist = { kind = \"lognormal\", sigma = 0.5 }", "needs 'turns'"),
        ] {
            let sound =
                if keys.contains("embeddings") { "isl = 64\nturn_isl = 16\n" } else { sound };
            let all = said(&format!("{sound}{keys}"));
            assert!(all.iter().any(|text| text.contains(want)), "{keys}: {all:?}");
        }
        assert!(said("isl = 64\nosl = 8\nturns = 5")[0].contains("needs 'turn_isl'"));
        let file = |keys: &str| {
            said_of(&format!("[[workload]]\nname = \"w\"\nkind = \"file\"\nfile = \"f\"\n{keys}\n"))
        };
        assert_eq!(file("format = \"sharegpt\"\nturns = 9\nhistory = \"real\""), [""; 0]);
        assert_eq!(file("turns = 9\nmax_tokens = 64"), [""; 0]);
        assert!(file("format = \"azure\"\nturns = 9")[0].contains("a trace has no conversations"));
        let of_file = file("format = \"sharegpt\"\nturns = 9\nturn_isl = 5");
        assert!(of_file[0].contains("have turns and texts of their own"), "{of_file:?}");
        let mix = said_of(&format!(
            "[[workload]]\nname = \"w\"\nkind = \"synthetic\"\n{sound}turns = 3\n[[workload]]\nname = \"m\"\nkind = \"mix\"\nparts = [{{ workload = \"w\", count = 1 }}]\n"
        ));
        assert!(mix[0].contains("'w' has sessions, which cannot be part of a mix"), "{mix:?}");
    }

    #[test]
    fn the_longest_request_of_a_session_is_its_last_turn() {
        let of = |keys: &str| {
            let (_, e) = experiment(&format!(
                "[[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 100\nosl = 10\nprefix = 50\n{keys}\n"
            ));
            longest(&e.workload[0])
        };
        assert_eq!(of(""), Some(160));
        // By hand: 160 and three times the 20 more and the 10 of another answer.
        assert_eq!(of("turns = 4\nturn_isl = 20"), Some(250));
        let spread = "turns_dist = { kind = \"uniform\", min = 1, max = 4 }\nturn_isl = 20";
        assert_eq!(of(spread), Some(250));
    }
}
