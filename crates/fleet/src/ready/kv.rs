//! Whether prefill reaches decode: what decode instances count while prompts are answered.
//!
//! **Invariants.** A split deployment whose decode instances compute the prompts themselves answers well,
//! and would be measured as something that it is not: that is an error. What an engine does not count is
//! a note, never a pass in silence.

use super::answers::{self, Verdict};
use super::{Doing, Question, Wait, base, begin, probe};
use crate::error::FleetError;
use scalebeam_model::engine_metrics::{Snapshot, Word};
use scalebeam_model::plan::EntryPlan;
use scalebeam_model::workload::Api;
use std::sync::Mutex;
use std::time::Duration;

/// Counts may be shown some steps of the engine after the answer.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
/// Engines tell the agent of their node of Ray every few seconds.
const SHOWN_BY_RAY_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A page that is not there within so long is not there.
const PAGE_WITHIN: Duration = Duration::from_secs(5);
/// Each is a token or more, and only whole blocks move: more than the largest block that is usual, 256.
const WORDS: usize = 300;

/// What an instance has counted since it was started; absent where it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Tally {
    /// Its page of metrics could be read.
    is_page: bool,
    bytes: Option<f64>,
    answered: Option<f64>,
}

impl Tally {
    fn of(page: &str) -> Self {
        let page = Snapshot::read(page);
        Self {
            is_page: true,
            bytes: page.number(Word::KvReceivedBytes),
            answered: page.number(Word::RequestsDone),
        }
    }

    /// Of all together: what any of them tells.
    fn sum(all: &[Self]) -> Self {
        let sum = |of: fn(&Self) -> Option<f64>| {
            all.iter().filter_map(of).fold(None, |sum: Option<f64>, n| Some(sum.unwrap_or(0.0) + n))
        };
        Self {
            is_page: all.iter().any(|tally| tally.is_page),
            bytes: sum(|tally| tally.bytes),
            answered: sum(|tally| tally.answered),
        }
    }
}

/// What became of an instance between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It was sent blocks.
    Moved,
    /// It answered, and was sent none.
    Recomputed,
    /// It was asked nothing, as far as it says.
    Idle,
    /// It does not count bytes.
    Untold,
    /// It has no page of metrics.
    Unseen,
}

impl Seen {
    fn between(before: Tally, after: Tally) -> Self {
        let Some(bytes) = after.bytes else {
            return if after.is_page { Self::Untold } else { Self::Unseen };
        };
        // Some counts are shown only once there was something to count.
        let has_grown = |before: Option<f64>, after| after > before.unwrap_or(0.0);
        if has_grown(before.bytes, bytes) {
            return Self::Moved;
        }
        match after.answered {
            Some(answered) if has_grown(before.answered, answered) => Self::Recomputed,
            _ => Self::Idle,
        }
    }
}

/// The instances that computed again; none, where all is well as far as it was told.
fn recomputed(seen: &[Seen]) -> Vec<usize> {
    // The prompts were answered, so somebody worked: where all can tell and nobody was sent anything, all.
    let nobody_was_sent =
        !seen.iter().any(|seen| matches!(seen, Seen::Moved | Seen::Untold | Seen::Unseen));
    let is_wrong = |seen: &Seen| match seen {
        Seen::Recomputed => true,
        Seen::Idle => nobody_was_sent,
        Seen::Moved | Seen::Untold | Seen::Unseen => false,
    };
    (0..seen.len()).filter(|at| is_wrong(&seen[*at])).collect()
}

/// Pages that are told apart: each of an instance by itself, those of the nodes of a cluster together, since any of
/// them may have the instances that decode.
fn told_apart(pages: &[EntryPlan]) -> Vec<&[EntryPlan]> {
    match is_cluster(pages) {
        true => vec![pages],
        false => pages.chunks(1).collect(),
    }
}

fn is_cluster(pages: &[EntryPlan]) -> bool {
    pages.iter().all(|page| page.instance.is_none())
}

fn note(pages: &[EntryPlan], seen: Seen) -> Option<String> {
    let what = match seen {
        Seen::Moved | Seen::Recomputed => return None,
        Seen::Idle => "was sent no prompt",
        Seen::Untold => "does not export vllm:nixl_bytes_transferred",
        Seen::Unseen => "shows no page of metrics",
    };
    let name = named(pages);
    Some(format!("{name} {what}, so whether key-value blocks reach it was not told"))
}

/// `decode instance 1 (http://HOST:PORT)`, or a cluster by the pages of all its nodes.
fn named(pages: &[EntryPlan]) -> String {
    let urls = pages.iter().map(base).collect::<Vec<_>>().join(", ");
    match pages.first().and_then(|page| page.instance) {
        Some(index) => format!("decode instance {index} ({urls})"),
        None => format!("the Ray cluster ({urls})"),
    }
}

/// Prompt `n`. Its first words differ from those of every other, so that no cache has its first block.
fn prompt(n: u32) -> String {
    let words = ["red", "tree", "house", "water", "light", "stone", "paper"].iter().cycle();
    let words: Vec<&str> = words.take(WORDS).copied().collect();
    format!("{n} {}", words.join(" "))
}

impl Wait<'_> {
    /// Sends `prompts` new prompts to each entry, and looks whether `decode` instances were sent blocks.
    pub(super) async fn blocks_moved(
        &self,
        decode: &[EntryPlan],
        prompts: u32,
        doing: &Mutex<Doing>,
    ) -> Result<Vec<String>, FleetError> {
        let decode = told_apart(decode);
        let before = self.tallies(&decode).await;
        for entry in &self.plan.entries {
            let url = format!("{}{}", base(entry), Api::Completions.path(true));
            let what = format!("waiting for key-value blocks to move behind {}", base(entry));
            for n in 1..=prompts {
                let question = Question::Prompt { url: url.clone(), prompt: prompt(n) };
                if let Some(refused) = self.until_pass(&what, &question, doing).await? {
                    return Ok(vec![refused]);
                }
            }
        }
        begin("waiting for decode instances to count", "all prompts were answered", doing);
        let seen = self.seen_since(&before, &decode).await;
        let wrong = recomputed(&seen);
        if wrong.is_empty() {
            return Ok(decode.iter().zip(seen).filter_map(|(of, seen)| note(of, seen)).collect());
        }
        let names: Vec<String> =
            wrong.iter().filter_map(|at| Some(named(decode.get(*at)?))).collect();
        Err(FleetError::NothingMoved {
            deployment: self.plan.name.clone(),
            instances: names.join(" and "),
        })
    }

    /// Looks until all is well, or for as long as counts may take to be shown.
    async fn seen_since(&self, before: &[Tally], decode: &[&[EntryPlan]]) -> Vec<Seen> {
        let begun = self.ctx.clock.now();
        let is_ray = decode.iter().any(|pages| is_cluster(pages));
        let within = if is_ray { SHOWN_BY_RAY_WITHIN } else { SHOWN_WITHIN };
        let mut tick = tokio::time::interval(LOOK_EVERY);
        loop {
            tick.tick().await;
            let after = self.tallies(decode).await;
            let seen: Vec<Seen> = before
                .iter()
                .zip(after)
                .map(|(before, after)| Seen::between(*before, after))
                .collect();
            let is_late = self.ctx.clock.now().since(begun).to_std() >= within;
            // Ray's page has a name only once something was counted under it.
            let is_told = !is_ray || seen.contains(&Seen::Moved);
            if (recomputed(&seen).is_empty() && is_told) || is_late {
                return seen;
            }
        }
    }

    async fn tallies(&self, decode: &[&[EntryPlan]]) -> Vec<Tally> {
        let mut tallies = Vec::new();
        for pages in decode {
            let mut each = Vec::new();
            for page in *pages {
                let url = format!("{}/metrics", base(page));
                let page = tokio::time::timeout(PAGE_WITHIN, self.client.get(&url)).await;
                let page = page.ok().and_then(Result::ok).filter(|a| a.status == 200);
                each.push(page.map_or_else(Tally::default, |page| Tally::of(&page.body)));
            }
            tallies.push(Tally::sum(&each));
        }
        tallies
    }

    /// A text completion. A context that is too short for the prompt is no fault of the deployment.
    pub(super) async fn ask_prompt(&self, url: &str, prompt: &str) -> Verdict {
        let request = probe::asking(Api::Completions, &self.plan.served_model, prompt);
        let answer = self.client.post(Api::Completions, url, &request).await;
        match answer {
            Ok(answer) if answer.status == 400 => Verdict::Pass(Some(format!(
                "whether key-value blocks move was not told: {url} refuses a prompt of {WORDS} words ({})",
                answer.summary()
            ))),
            answer => answers::completion(Api::Completions, url, self.is_ours(), answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(bytes: Option<f64>, answered: Option<f64>) -> Tally {
        Tally { is_page: true, bytes, answered }
    }

    /// Ray's nodes show what all engines on them count, and a node may have none that decodes.
    #[test]
    fn nodes_of_a_cluster_are_told_by_what_grew_on_any_of_them() {
        let sum = |a, b| Tally::sum(&[a, b]);
        let before = sum(tally(None, Some(1.0)), tally(None, None));
        let moved = sum(tally(None, Some(2.0)), tally(Some(4096.0), Some(1.0)));
        assert_eq!(Seen::between(before, moved), Seen::Moved);
        let untold = sum(tally(None, Some(2.0)), tally(None, Some(1.0)));
        assert_eq!(Seen::between(before, untold), Seen::Untold);
        let again = sum(tally(None, Some(3.0)), tally(Some(4096.0), Some(2.0)));
        assert_eq!(Seen::between(moved, again), Seen::Recomputed);
        assert_eq!(Tally::sum(&[Tally::default()]), Tally::default());
    }

    #[test]
    fn instances_are_told_apart_and_nodes_together() {
        let page = |n: u32, instance| EntryPlan { url: format!("http://h{n}:1"), instance };
        let told = |pages: &[EntryPlan]| -> Vec<String> {
            told_apart(pages).into_iter().filter_map(|of| note(of, Seen::Untold)).collect()
        };
        let tail = "does not export vllm:nixl_bytes_transferred, so whether key-value blocks reach it was not told";
        assert_eq!(
            told(&[page(0, Some(2)), page(1, Some(3))]),
            [
                format!("decode instance 2 (http://h0:1) {tail}"),
                format!("decode instance 3 (http://h1:1) {tail}")
            ]
        );
        let nodes = [page(0, None), page(1, None)];
        assert_eq!(told(&nodes), [format!("the Ray cluster (http://h0:1, http://h1:1) {tail}")]);
    }

    #[test]
    fn an_instance_is_told_by_what_grew() {
        let zero = tally(Some(0.0), Some(0.0));
        for (before, after, want) in [
            (zero, tally(Some(5.0), Some(1.0)), Seen::Moved),
            (Tally::default(), tally(Some(5.0), None), Seen::Moved),
            (zero, tally(Some(0.0), Some(1.0)), Seen::Recomputed),
            (tally(Some(5.0), Some(3.0)), tally(Some(5.0), Some(4.0)), Seen::Recomputed),
            (zero, zero, Seen::Idle),
            (zero, tally(Some(0.0), None), Seen::Idle),
            (zero, tally(None, Some(1.0)), Seen::Untold),
            (Tally::default(), Tally::default(), Seen::Unseen),
        ] {
            assert_eq!(Seen::between(before, after), want, "{before:?} {after:?}");
        }
    }

    #[test]
    fn whoever_answered_without_blocks_computed_again() {
        use Seen::{Idle, Moved, Recomputed, Unseen, Untold};
        for (seen, want) in [
            (&[Moved, Moved][..], &[][..]),
            (&[Moved, Idle], &[]),
            (&[Moved, Recomputed], &[1]),
            (&[Idle, Idle], &[0, 1]),
            (&[Idle, Untold], &[]),
            (&[Untold, Unseen], &[]),
            (&[Recomputed, Unseen], &[0]),
        ] {
            assert_eq!(recomputed(seen), want, "{seen:?}");
        }
    }

    #[test]
    fn no_two_prompts_begin_alike() {
        assert_ne!(prompt(1).split(' ').next(), prompt(2).split(' ').next());
        assert_eq!(prompt(1).split(' ').count(), WORDS + 1);
    }
}
