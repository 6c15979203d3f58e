//! What really ran, in words that every page shares.

use crate::number;
use scalebeam_model::distinct::distinct;
use scalebeam_model::fingerprint::Fact;
use scalebeam_model::ran::{Ran, RanHost, RanProcess};
use scalebeam_model::results::Results;
use std::collections::BTreeMap;

/// A deployment, as it really was.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name; of one that was not the same throughout, with its bring-ups.
    pub(crate) name: String,
    /// Version of its engine.
    pub(crate) engine: String,
    /// Hosts, and what they are.
    pub(crate) hosts: Vec<(String, String)>,
    /// Processes with their hosts, and their command lines.
    pub(crate) processes: Vec<(String, String)>,
}

/// A row for everything that was brought up, as far as that was kept.
pub(crate) fn rows(results: &Results) -> Vec<Row> {
    let row = |ran: &Ran| Row {
        name: match is_changed(results, ran) {
            true => format!("{} ({})", ran.deployment, bring_ups(ran)),
            false => ran.deployment.clone(),
        },
        engine: word(&ran.engine),
        hosts: ran.hosts.iter().map(|host| (host.host.clone(), of_host(host))).collect(),
        processes: ran.processes.iter().map(of_process).collect(),
    };
    results.ran.iter().map(row).collect()
}

fn is_changed(results: &Results, ran: &Ran) -> bool {
    results.ran.iter().filter(|r| r.deployment == ran.deployment).count() > 1
}

/// A sentence for each deployment that was not the same each time that it was brought up.
pub(crate) fn changed(results: &Results) -> Vec<String> {
    let several = results.ran.iter().filter(|ran| is_changed(results, ran));
    let names = distinct(several.map(|ran| ran.deployment.as_str()));
    let sentence = |name: &str| {
        let forms: Vec<&Ran> = results.ran.iter().filter(|r| r.deployment == name).collect();
        let all: Vec<String> = forms.iter().map(|ran| bring_ups(ran)).collect();
        let parts: Vec<&str> = PARTS
            .iter()
            .filter(|(_, differ)| forms.iter().any(|ran| differ(ran, forms[0])))
            .map(|(part, _)| *part)
            .collect();
        format!(
            "{name} was not the same each time that it was brought up: {} differ between {}. Its trials are of \
             different things",
            parts.join(" and "),
            all.join(" and ")
        )
    };
    names.into_iter().map(sentence).collect()
}

/// What of a deployment may differ, in words: all that two bring-ups are told apart by.
type Part = (&'static str, fn(&Ran, &Ran) -> bool);

const PARTS: [Part; 3] = [
    ("engine versions", |a, b| a.engine != b.engine),
    ("machines or packages", |a, b| a.hosts != b.hosts),
    ("processes or command lines", |a, b| a.processes != b.processes),
];

/// `bring-ups 1, 3`
fn bring_ups(ran: &Ran) -> String {
    let numbers: Vec<String> = ran.bring_ups.iter().map(u32::to_string).collect();
    let plural = if numbers.len() == 1 { "" } else { "s" };
    format!("bring-up{plural} {}", numbers.join(", "))
}

fn of_host(host: &RanHost) -> String {
    let mut words = vec![word(&host.kernel)];
    match &host.gpus {
        Fact::Known(gpus) => words.push(format!(
            "{gpus}, driver {}, CUDA {}",
            word(&host.gpu_driver),
            word(&host.cuda)
        )),
        Fact::Absent { absent } => words.push(format!("no GPU told: {absent}")),
    }
    let packages = host.packages.iter();
    words.extend(packages.map(|(program, p)| format!("{program}: {}", told(p, listed))));
    words.join("; ")
}

/// `python 3.12.3, vllm 0.11.0`
fn listed(packages: &BTreeMap<String, String>) -> String {
    let words: Vec<String> = packages.iter().map(|(name, v)| format!("{name} {v}")).collect();
    words.join(", ")
}

fn of_process(process: &RanProcess) -> (String, String) {
    let command = told(&process.command, |words| {
        words.iter().map(|w| quoted(w)).collect::<Vec<_>>().join(" ")
    });
    (format!("{} on {}", process.process, process.host), command)
}

/// A word of a command line as a shell would need it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+*".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

fn word(fact: &Fact<String>) -> String {
    told(fact, String::clone)
}

/// What is known, in words; else why it is not.
fn told<T>(fact: &Fact<T>, words: impl Fn(&T) -> String) -> String {
    match fact {
        Fact::Known(known) => words(known),
        Fact::Absent { absent } => format!("{} ({absent})", number::ABSENT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn what_is_known_and_what_is_not_is_said_of_each_host() {
        let (results, _) = testing::run();
        let rows = rows(&results);
        let row = &rows[0];
        assert_eq!((row.name.as_str(), row.engine.as_str()), ("single-4gpu", "0.11.0"));
        assert_eq!(
            row.hosts[0].1,
            "Linux 6.1.0; 4 x NVIDIA H100 80GB HBM3, driver 550.54.15, CUDA n/a (nvidia-smi is old); \
             vllm: python 3.12.3, vllm 0.11.0"
        );
        let command = "vllm serve --kv-transfer-config '{\"kv_role\":\"kv_both\"}'";
        assert_eq!(row.processes[0], ("single-4gpu/0/serve on a".to_owned(), command.to_owned()));
        assert_eq!(rows[1].hosts[0].1, "Linux 6.1.0; no GPU told: it computes on no GPU");
    }

    #[test]
    fn a_deployment_that_changed_between_bring_ups_is_told_with_them() {
        let (mut results, plan) = testing::run();
        assert_eq!(changed(&results), Vec::<String>::new());
        let mut later = results.ran[0].clone();
        later.bring_ups = vec![2, 3];
        later.engine = Fact::Known("0.12.0".to_owned());
        results.ran.push(later);
        let names: Vec<String> = rows(&results).into_iter().map(|row| row.name).collect();
        assert_eq!(names[0], "single-4gpu (bring-up 1)");
        assert_eq!(names.last().unwrap(), "single-4gpu (bring-ups 2, 3)");
        let sentence = "single-4gpu was not the same each time that it was brought up: engine versions differ \
                        between bring-up 1 and bring-ups 2, 3. Its trials are of different things";
        assert_eq!(changed(&results), [sentence]);
        results.ran.last_mut().unwrap().engine = results.ran[0].engine.clone();
        results.ran.last_mut().unwrap().hosts[0].host = "another-node".to_owned();
        let by_node = sentence.replace("engine versions", "machines or packages");
        assert_eq!(changed(&results), [by_node], "a row shows no name of a node");
        results.ran.last_mut().unwrap().engine = Fact::Known("0.12.0".to_owned());
        results.ran.last_mut().unwrap().hosts = results.ran[0].hosts.clone();
        let text = crate::terminal(&results, &plan, 400, false);
        assert!(text.contains(sentence), "{text}");
    }
}
