//! Later turns of sessions: written when the turn before them has ended.
//!
//! **Invariants:** a turn is written on a thread of its own and the load thread never waits for it: what is
//! due and not written yet is sent as soon as it is, late on record. What was said in a session is held
//! until its last turn has ended and no longer.

use crate::api::body::Round;
use crate::control::Control;
use crate::phase::unescape;
use crate::stock::{Prepared, Recipe};
use mio::Waker;
use scalebeam_model::driver::Turn;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What is to be done.
#[derive(Debug)]
enum Job {
    /// Write this turn. The one before it was answered with these raw JSON strings.
    Write { index: u64, turn: Turn, answer: Vec<u8> },
    /// The session is over.
    Forget { session: u64 },
}

/// Writes the later turns of one shard's sessions.
#[derive(Debug)]
pub(crate) struct Desk<'a> {
    recipe: &'a Recipe<'a>,
    /// Ends the load thread's wait.
    waker: Arc<Waker>,
    tray: Mutex<Tray>,
    changed: Condvar,
    has_news: AtomicBool,
}

#[derive(Debug, Default)]
struct Tray {
    jobs: VecDeque<Job>,
    written: HashMap<u64, Prepared>,
    /// Requests that were due before they were written.
    awaited: HashSet<u64>,
    /// Of these, the ones that are written by now.
    news: Vec<Prepared>,
    is_closed: bool,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(recipe: &'a Recipe<'a>, waker: Arc<Waker>) -> Self {
        let (tray, changed, has_news) = (Mutex::default(), Condvar::new(), AtomicBool::new(false));
        Self { recipe, waker, tray, changed, has_news }
    }

    fn tray(&self) -> MutexGuard<'_, Tray> {
        // A panic in a prompt source leaves the tray as it was before that prompt.
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, job: Job) {
        self.tray().jobs.push_back(job);
        self.changed.notify_all();
    }

    /// Has `turn` written, which follows one that was answered with `answer`.
    pub(crate) fn order(&self, index: u64, turn: Turn, answer: Vec<u8>) {
        self.add(Job::Write { index, turn, answer });
    }

    /// No turn of `session` follows.
    pub(crate) fn forget(&self, session: u64) {
        self.add(Job::Forget { session });
    }

    /// Takes request `index`, or has it among the next [`Desk::news`].
    pub(crate) fn take(&self, index: u64) -> Option<Prepared> {
        let mut tray = self.tray();
        let found = tray.written.remove(&index);
        if found.is_none() {
            tray.awaited.insert(index);
        }
        found
    }

    /// What was waited for and is written by now. Costs a look at a flag where there is nothing.
    pub(crate) fn news(&self) -> Vec<Prepared> {
        if self.has_news.swap(false, Ordering::Acquire) {
            std::mem::take(&mut self.tray().news)
        } else {
            Vec::new()
        }
    }

    /// What reports call a request, for one that was never written.
    pub(crate) fn class(&self, turn: Turn) -> String {
        self.recipe.content(turn).map(|content| content.prompt.class).unwrap_or_default()
    }

    /// Writes what is ordered, until [`Desk::close`]. For a thread of its own.
    pub(crate) fn write(&self, control: &Control) {
        let _guard = AbortOnPanic(control);
        let mut said: HashMap<u64, Vec<Round>> = HashMap::new();
        while let Some(job) = self.next() {
            match job {
                Job::Forget { session } => {
                    said.remove(&session);
                }
                Job::Write { index, turn, answer } => {
                    let rounds = said.entry(turn.session).or_default();
                    rounds.extend(self.round_before(turn, &answer));
                    self.put(self.recipe.prepare_turn(index, turn, rounds));
                }
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut tray = self.tray();
        loop {
            if tray.is_closed {
                return None;
            }
            if let Some(job) = tray.jobs.pop_front() {
                return Some(job);
            }
            tray = self.changed.wait(tray).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn round_before(&self, turn: Turn, answer: &[u8]) -> Option<Round> {
        let number = turn.number.checked_sub(1)?;
        let content = self.recipe.content(Turn { number, ..turn })?;
        let assistant = content.planned_answer.unwrap_or_else(|| unescape(answer));
        Some(Round { user: content.prompt.texts.join("\n"), assistant })
    }

    fn put(&self, prepared: Prepared) {
        let mut tray = self.tray();
        if !tray.awaited.remove(&prepared.index) {
            tray.written.insert(prepared.index, prepared);
            return;
        }
        tray.news.push(prepared);
        drop(tray);
        self.has_news.store(true, Ordering::Release);
        // Without a wake-up it is sent at the next one: a socket, or an instant.
        let _ = self.waker.wake();
    }

    fn close(&self) {
        self.tray().is_closed = true;
        self.changed.notify_all();
    }
}

/// Closes a desk when the load is over, in whatever way.
#[derive(Debug)]
pub(crate) struct CloseDesk<'s, 'a>(pub(crate) &'s Desk<'a>);

impl Drop for CloseDesk<'_, '_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A prompt source that panics leaves nothing to wait for.
struct AbortOnPanic<'a>(&'a Control);

impl Drop for AbortOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abort();
        }
    }
}
