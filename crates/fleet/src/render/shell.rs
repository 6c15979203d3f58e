//! Words of a POSIX shell. Job scripts and tasks are run by one, so each word is quoted here.

use crate::host::quote;
use scalebeam_model::plan::ProcessPlan;

/// The process as one command. Variables that are passed on by name are there already.
pub(super) fn command(process: &ProcessPlan) -> String {
    let set = process.env.iter().filter_map(|(name, value)| Some((name, value.given()?)));
    let mut words: Vec<String> = set.map(|(name, v)| quote(&format!("{name}={v}"))).collect();
    if !words.is_empty() {
        words.insert(0, "env".to_owned());
    }
    words.push(quote(&process.program));
    words.extend(process.args.iter().map(|a| quote(a)));
    words.join(" ")
}
