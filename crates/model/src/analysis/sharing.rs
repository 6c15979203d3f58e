//! How much of its prompts a workload asks for twice, to be held against what a prefix cache answered.

use super::TrialRecords;
use crate::request::RequestRecord;
use crate::workload::{History, Lengths, MixPart, Share, Source, Talk, Workload};
use std::collections::{BTreeMap, BTreeSet};

/// Tokens that a chat template and a system message of nobody's choice put before a given text.
const TEMPLATE_TOKENS: u32 = 64;

/// Prompt tokens that came from a cache, and how many of them nothing in the workload explains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cached {
    pub(super) prompt: u64,
    pub(super) cached: u64,
    pub(super) unexplained: u64,
    /// Prompt tokens that a cache may have had from other requests of the workload.
    shared: u64,
    /// Some answer said what came from the cache.
    is_said: bool,
}

/// What the server took from its cache in `trials`, request by request. Each trial is looked at alone: a
/// repeat is to ask anew. `None` where the server says nothing, or where what is shared is not known from
/// the plan, as of files.
pub(super) fn cached(workload: &Workload, trials: &[TrialRecords]) -> Option<Cached> {
    tally(workload, trials).filter(|sum| sum.is_said)
}

/// The share of the prompt tokens that a prefix cache may have had, by what the workload asks for twice. `None`
/// where prompts are not counted, or what is shared is not known from the plan.
pub(super) fn expected_share(workload: &Workload, trials: &[TrialRecords]) -> Option<f64> {
    let sum = tally(workload, trials)?;
    (sum.prompt > 0).then(|| sum.shared as f64 / sum.prompt as f64)
}

fn tally(workload: &Workload, trials: &[TrialRecords]) -> Option<Cached> {
    let mut sum = Cached::default();
    for trial in trials {
        let mut seen: BTreeMap<&str, Seen> = BTreeMap::new();
        let mut said = Said::new(workload);
        let mut records: Vec<&RequestRecord> = trial.records.iter().collect();
        records.sort_by_key(|r| r.index);
        for record in records {
            let of_class = seen.entry(&record.class).or_default();
            let shared = match said.before(record) {
                Some(tokens) => tokens,
                None => shared(workload, record, of_class)?,
            };
            said.take_in(record);
            of_class.prompts += u64::from(record.prompts);
            let Some(prompt) = record.prompt_tokens.filter(|_| record.is_completed()) else {
                continue;
            };
            sum.is_said |= record.cached_prompt_tokens.is_some();
            let cached = record.cached_prompt_tokens.unwrap_or(0);
            sum.prompt += u64::from(prompt);
            sum.shared += u64::from(shared.min(prompt));
            sum.cached += u64::from(cached);
            sum.unexplained += u64::from(cached.saturating_sub(shared.min(prompt)));
        }
    }
    Some(sum)
}

/// What was asked of one class so far in a trial.
#[derive(Default)]
struct Seen {
    prompts: u64,
}

/// What was said in each session so far, in tokens: the next turn carries it, and may find it in a cache.
struct Said<'a> {
    last: BTreeMap<u64, &'a RequestRecord>,
    /// The next turn carries what the server itself wrote.
    is_real: bool,
}

impl<'a> Said<'a> {
    fn new(workload: &Workload) -> Self {
        let planned = |s: &Source| matches!(s, Source::Sessions { history: History::Planned, .. });
        Self { last: BTreeMap::new(), is_real: !planned(&workload.source) }
    }

    /// Tokens before what `record` adds; absent of a first turn, and of a request that stands alone.
    fn before(&self, record: &RequestRecord) -> Option<u32> {
        record.turn.filter(|turn| *turn > 0)?;
        let last = self.last.get(&record.session?)?;
        let answer = last.output_tokens.filter(|_| self.is_real).unwrap_or(0);
        // A server that does not count its prompts leaves nothing to hold against what it cached.
        Some(last.prompt_tokens.map_or(u32::MAX, |prompt| prompt.saturating_add(answer)))
    }

    fn take_in(&mut self, record: &'a RequestRecord) {
        if let Some(session) = record.session {
            self.last.insert(session, record);
        }
    }
}

/// Prompt tokens of `record` that an earlier request of its trial, or its warm-up, may have had too.
fn shared(workload: &Workload, record: &RequestRecord, seen: &Seen) -> Option<u32> {
    match &workload.source {
        Source::Synthetic { lengths, entries } => synthetic(lengths, *entries, record, seen),
        Source::Prompts { prompts, .. } => {
            let ids: BTreeSet<&str> = prompts.iter().map(|p| p.id.as_str()).collect();
            // By class one text is told from another; a batch bears the class of its first.
            let is_told = ids.len() == prompts.len() && record.prompts == 1;
            is_told.then_some(if seen.prompts == 0 { TEMPLATE_TOKENS } else { u32::MAX })
        }
        Source::Mix { parts } => {
            let part = parts.iter().find(|p| p.workload.name == record.class)?;
            of_part(part, record, seen)
        }
        // Turns but the first are told by what was said before them.
        Source::Sessions { talk: Talk::Synthetic { lengths, .. }, .. } => {
            synthetic(lengths, None, record, seen)
        }
        Source::File { .. } | Source::Sessions { talk: Talk::File { .. }, .. } => None,
    }
}

fn of_part(part: &MixPart, record: &RequestRecord, seen: &Seen) -> Option<u32> {
    match &part.workload.source {
        // Which of its entries a drawn request takes is not told by how many came before.
        Source::Synthetic { entries: Some(_), .. } if matches!(part.share, Share::Weight(_)) => {
            None
        }
        Source::Synthetic { lengths, entries } => synthetic(lengths, *entries, record, seen),
        _ => None,
    }
}

/// All but the unique tokens; everything where the entries have begun from the top again.
fn synthetic(
    lengths: &Lengths,
    entries: Option<u32>,
    record: &RequestRecord,
    seen: &Seen,
) -> Option<u32> {
    if entries.is_some_and(|n| seen.prompts >= u64::from(n)) {
        return Some(u32::MAX);
    }
    let asked = record.asked_input_tokens?;
    let unique = asked.saturating_sub(lengths.prefix.saturating_mul(record.prompts));
    // What the server counts beyond what was asked is its template, which all prompts share.
    Some(record.prompt_tokens.unwrap_or(asked).saturating_sub(unique))
}
