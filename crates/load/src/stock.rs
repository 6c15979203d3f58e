//! Request bodies, written before they are due.
//!
//! **Invariants:** a body is the same whether it was written ahead or not; what is held is bounded in
//! bytes; the load thread writes a body itself only when nobody has begun it, so that a burst of long
//! prompts does not show up as lateness.

use crate::api::body::{self, Round};
use bytes::Bytes;
use scalebeam_model::driver::{Shard, Turn};
use scalebeam_model::request::RequestRecord;
use scalebeam_model::workload::{Api, Prompt, TurnContent, Workload};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How much memory the bodies of a phase may take before they are sent.
pub(crate) const MEMORY_LIMIT: usize = 256 << 20;

/// What a prepared request takes beside its JSON, roughly.
const OVERHEAD: usize = 256;

/// What each turn of each session says.
pub type Turns<'a> = dyn Fn(Turn) -> TurnContent + Sync + 'a;

/// How requests are made.
pub(crate) struct Recipe<'a> {
    pub(crate) prompts: &'a (dyn Fn(u64) -> Prompt + Sync),
    /// What turns of sessions say, where requests are turns; a stock then holds the first of each.
    pub(crate) turns: Option<&'a Turns<'a>>,
    pub(crate) workload: &'a Workload,
    pub(crate) api: Api,
    pub(crate) model: &'a str,
}

impl fmt::Debug for Recipe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Recipe");
        out.field("model", &self.model).field("api", &self.api).finish_non_exhaustive()
    }
}

impl Recipe<'_> {
    /// Writes request `index`, or the first turn of session `index`.
    pub(crate) fn prepare(&self, index: u64) -> Prepared {
        if self.turns.is_some() {
            return self.prepare_turn(index, Turn { session: index, number: 0 }, &[]);
        }
        self.write(index, &[], (self.prompts)(index), None)
    }

    /// Writes request `index`, which is `turn` of a session in which `past` was said.
    pub(crate) fn prepare_turn(&self, index: u64, turn: Turn, past: &[Round]) -> Prepared {
        match self.content(turn) {
            Some(content) => self.write(index, past, content.prompt, content.system),
            None => self.write(index, past, (self.prompts)(index), None),
        }
    }

    /// What a turn says. A system message goes in front of the first text where the family has no place
    /// for one.
    pub(crate) fn content(&self, turn: Turn) -> Option<TurnContent> {
        let mut content = self.turns?(turn);
        if !self.api.has_system()
            && let Some(system) = content.system.take()
            && turn.number == 0
            && let Some(first) = content.prompt.texts.first_mut()
        {
            *first = format!("{system}\n\n{first}");
        }
        Some(content)
    }

    fn write(
        &self,
        index: u64,
        past: &[Round],
        prompt: Prompt,
        system: Option<String>,
    ) -> Prepared {
        let settings = body::settings_of(self.workload, &prompt);
        let settings = match system {
            Some(_) => Cow::Owned(Workload { system, ..settings.clone() }),
            None => Cow::Borrowed(settings),
        };
        let body = body::build_turn(self.api, self.model, &settings, past, &prompt);
        Prepared {
            index,
            json: Bytes::from(body.json),
            stream: body.stream,
            api: self.api,
            class: prompt.class,
            prompts: body.prompts,
            asked_input_tokens: prompt.asked_input_tokens,
            asked_output_tokens: body.asked_output_tokens,
            forced_length: body.forces_len,
        }
    }
}

/// A request that is ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub(crate) index: u64,
    pub(crate) json: Bytes,
    pub(crate) stream: bool,
    pub(crate) api: Api,
    class: String,
    prompts: u32,
    asked_input_tokens: Option<u32>,
    asked_output_tokens: u32,
    forced_length: bool,
}

impl Prepared {
    /// Writes into `record` what the request asks for.
    pub(crate) fn label(&self, mut record: RequestRecord) -> RequestRecord {
        record.class.clone_from(&self.class);
        record.prompts = self.prompts;
        record.asked_input_tokens = self.asked_input_tokens;
        record.asked_output_tokens = self.asked_output_tokens;
        record.forced_length = self.forced_length;
        record
    }

    fn size(&self) -> usize {
        self.json.len() + self.class.len() + OVERHEAD
    }
}

/// The requests of one shard, written ahead by a thread of their own.
#[derive(Debug)]
pub(crate) struct Stock<'a> {
    recipe: &'a Recipe<'a>,
    shard: Shard,
    /// Requests of the phase; the indices of the shard lie below.
    requests: u64,
    count_limit: usize,
    byte_limit: usize,
    shelf: Mutex<Shelf>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Shelf {
    ready: VecDeque<Prepared>,
    bytes: usize,
    /// This shard's requests that were begun, by whomever.
    begun: u64,
    building: Option<u64>,
    is_complete: bool,
    is_closed: bool,
}

impl<'a> Stock<'a> {
    /// A stock for `shard` of a phase of at most `requests`, of which `at_once` are due together.
    pub(crate) fn new(
        recipe: &'a Recipe<'a>,
        shard: Shard,
        requests: Option<u64>,
        at_once: usize,
    ) -> Self {
        Self {
            recipe,
            shard,
            requests: requests.unwrap_or(u64::MAX),
            count_limit: if requests.is_some() { usize::MAX } else { (2 * at_once).max(1_024) },
            byte_limit: MEMORY_LIMIT / usize::from(shard.count.max(1)),
            shelf: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The shard that it is for.
    pub(crate) fn shard(&self) -> Shard {
        self.shard
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // A panic in a prompt source leaves the shelf as it was before that prompt.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_of(&self, nth: u64) -> u64 {
        nth.saturating_mul(u64::from(self.shard.count)).saturating_add(self.shard.index.into())
    }

    fn is_full(&self, shelf: &Shelf) -> bool {
        shelf.ready.len() >= self.count_limit || shelf.bytes >= self.byte_limit
    }

    /// Room enough for it to be worth waking the writer.
    fn is_half_empty(&self, shelf: &Shelf) -> bool {
        shelf.ready.len() <= self.count_limit / 2 && shelf.bytes <= self.byte_limit / 2
    }

    /// Writes until nothing is left to write, or [`Stock::close`]. For a thread of its own.
    pub(crate) fn fill(&self) {
        // Also when a prompt source panics: whoever waits for the stock must not wait for ever.
        let _complete = CompleteOnDrop(self);
        let mut shelf = self.shelf();
        while !shelf.is_closed {
            let index = self.index_of(shelf.begun);
            if index >= self.requests {
                break;
            }
            if self.is_full(&shelf) {
                self.changed.notify_all();
                while !shelf.is_closed && !self.is_half_empty(&shelf) {
                    shelf = self.changed.wait(shelf).unwrap_or_else(PoisonError::into_inner);
                }
                continue;
            }
            shelf.begun += 1;
            shelf.building = Some(index);
            drop(shelf);
            let prepared = self.recipe.prepare(index);
            shelf = self.shelf();
            shelf.building = None;
            shelf.bytes += prepared.size();
            shelf.ready.push_back(prepared);
            self.changed.notify_all();
        }
    }

    /// Waits until as much is written as may be held.
    pub(crate) fn wait_until_filled(&self) {
        let mut shelf = self.shelf();
        while !shelf.is_complete && !shelf.is_closed && !self.is_full(&shelf) {
            shelf = self.changed.wait(shelf).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nothing more will be taken.
    pub(crate) fn close(&self) {
        self.shelf().is_closed = true;
        self.changed.notify_all();
    }

    /// Takes request `index`. Indices are taken in ascending order; those left out were dropped.
    pub(crate) fn take(&self, index: u64) -> Prepared {
        let mut shelf = self.shelf();
        loop {
            while shelf.ready.front().is_some_and(|p| p.index <= index) {
                let Some(found) = shelf.ready.pop_front() else { break };
                shelf.bytes -= found.size();
                if found.index == index {
                    if !shelf.is_complete && self.is_half_empty(&shelf) {
                        self.changed.notify_all();
                    }
                    return found;
                }
            }
            if shelf.building == Some(index) {
                shelf = self.changed.wait(shelf).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            shelf.begun = shelf.begun.max(index / u64::from(self.shard.count.max(1)) + 1);
            drop(shelf);
            return self.recipe.prepare(index);
        }
    }
}

/// Closes a stock when the load is over, in whatever way.
#[derive(Debug)]
pub(crate) struct CloseOnDrop<'s, 'a>(pub(crate) &'s Stock<'a>);

impl Drop for CloseOnDrop<'_, '_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct CompleteOnDrop<'s, 'a>(&'s Stock<'a>);

impl Drop for CompleteOnDrop<'_, '_> {
    fn drop(&mut self) {
        let mut shelf = self.0.shelf();
        shelf.is_complete = true;
        shelf.building = None;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::workload::{CachePolicy, Source};
    use std::thread;

    fn workload() -> Workload {
        Workload {
            name: "w".to_owned(),
            api: Api::Chat,
            stream: true,
            temperature: None,
            system: None,
            force_len: true,
            body: serde_json::Map::new(),
            seed: 1,
            cache: CachePolicy::default(),
            source: Source::Mix { parts: Vec::new() },
        }
    }

    fn prompt(index: u64) -> Prompt {
        Prompt {
            class: "w".to_owned(),
            texts: vec![format!("p{index}")],
            asked_input_tokens: None,
            max_tokens: 4,
        }
    }

    fn with_stock(requests: Option<u64>, test: impl FnOnce(&Stock<'_>, &Recipe<'_>)) {
        let workload = workload();
        let recipe = Recipe {
            prompts: &prompt,
            turns: None,
            workload: &workload,
            api: Api::Chat,
            model: "m",
        };
        let stock = Stock::new(&recipe, Shard { index: 1, count: 3 }, requests, 4);
        thread::scope(|scope| {
            let _closing = CloseOnDrop(&stock);
            scope.spawn(|| stock.fill());
            stock.wait_until_filled();
            test(&stock, &recipe);
        });
    }

    #[test]
    fn a_bounded_phase_is_written_whole_before_it_begins() {
        with_stock(Some(100), |stock, recipe| {
            assert_eq!(stock.shelf().ready.len(), 33);
            for index in (1..100).step_by(3) {
                assert_eq!(stock.take(index), recipe.prepare(index));
            }
            assert_eq!(stock.shelf().bytes, 0);
        });
    }

    #[test]
    fn an_unbounded_phase_is_written_ahead_and_refilled() {
        with_stock(None, |stock, recipe| {
            assert_eq!(stock.shelf().ready.len(), 1_024);
            for nth in 0..5_000 {
                let index = nth * 3 + 1;
                assert_eq!(stock.take(index).index, index);
            }
            assert_eq!(stock.take(30_001), recipe.prepare(30_001), "a jump past what is there");
            assert_eq!(stock.take(30_004).index, 30_004);
        });
    }

    #[test]
    fn a_closed_stock_still_gives_what_is_asked() {
        with_stock(Some(10), |stock, recipe| {
            stock.close();
            assert_eq!(stock.take(7), recipe.prepare(7));
        });
    }
}
