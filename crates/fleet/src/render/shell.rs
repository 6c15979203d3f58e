//! Words of a POSIX shell. Job scripts and tasks are run by one, so each word is quoted here.

use scalebeam_model::plan::{EnvValue, ProcessPlan};

/// `word` as the shell gives it back.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The process as one command. Variables that are passed on by name are there already.
pub(super) fn command(process: &ProcessPlan) -> String {
    let set = process.env.iter().filter_map(|(name, value)| match value {
        EnvValue::Set(value) => Some(format!("{name}={value}")),
        EnvValue::Inherit { .. } => None,
    });
    let mut words: Vec<String> = set.map(|w| quoted(&w)).collect();
    if !words.is_empty() {
        words.insert(0, "env".to_owned());
    }
    words.push(quoted(&process.program));
    words.extend(process.args.iter().map(|a| quoted(a)));
    words.join(" ")
}
