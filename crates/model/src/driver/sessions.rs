//! Sessions: requests that follow each other, each when the one before it has been answered.
//!
//! **Invariants:** how many turns a session has is a function of its number alone; the turns of a session
//! have indices in a row, and sessions have them in the order of their numbers. A request that stands alone
//! is a session of one turn, so that there is one way through the driver.

use super::{Shard, Think};
use crate::workload::{LengthDist, Pick, derive_seed};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How the requests of a phase are turns of sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SessionPlan {
    /// What a user waits between an answer and the next turn; absent = nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think: Option<Think>,
    /// All turns of a session go to one entry.
    pub sticky: bool,
    /// How many turns each session has. It follows from the workload, its files and the phase's seed, and
    /// is never part of a plan's text; one until then.
    #[serde(skip)]
    pub turns: Turns,
}

/// How many turns each session has.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Turns {
    /// One: requests that stand alone.
    #[default]
    One,
    /// The same number for all.
    Fixed(u32),
    /// Drawn for each.
    Drawn {
        /// From this spread.
        dist: LengthDist,
        /// Seed of the draws.
        seed: u64,
    },
    /// As many as the conversation that it takes from a list.
    Listed {
        /// Turns of each conversation.
        counts: Arc<[u32]>,
        /// How sessions take conversations.
        pick: Pick,
        /// Seed of the draws.
        seed: u64,
    },
}

impl Turns {
    /// Turns of `session`, at least one.
    pub fn of(&self, session: u64) -> u32 {
        match self {
            Self::One => 1,
            Self::Fixed(n) => (*n).max(1),
            Self::Drawn { dist, seed } => {
                let mut rng = Xoshiro256PlusPlus::seed_from_u64(derive_seed(&[*seed, session]));
                dist.draw(&mut rng).max(1)
            }
            Self::Listed { counts, .. } => {
                self.conversation(session).and_then(|i| counts.get(i)).map_or(1, |n| (*n).max(1))
            }
        }
    }

    /// The conversation of the list that `session` holds.
    pub fn conversation(&self, session: u64) -> Option<usize> {
        let Self::Listed { counts, pick, seed } = self else { return None };
        conversation_of(session, counts.len(), *pick, *seed)
    }
}

/// Which of so many conversations `session` holds; none where there are none.
pub(crate) fn conversation_of(session: u64, of: usize, pick: Pick, seed: u64) -> Option<usize> {
    let drawn = match pick {
        Pick::InOrder => session,
        Pick::Random => derive_seed(&[seed, session]),
    };
    usize::try_from(drawn.checked_rem(of as u64)?).ok()
}

/// Which turn of which session a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Turn {
    /// The session, over all shards.
    pub session: u64,
    /// From zero.
    pub number: u32,
}

/// A turn on its way through the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step {
    pub(super) index: u64,
    pub(super) turn: Turn,
    /// Turns of the session that come after it.
    pub(super) left: u32,
}

impl Step {
    /// The turn after it.
    pub(super) fn next(self) -> Option<Self> {
        let turn = Turn { number: self.turn.number + 1, ..self.turn };
        let left = self.left.checked_sub(1)?;
        Some(Self { index: self.index + 1, turn, left })
    }

    /// It, and all turns after it.
    pub(super) fn and_rest(self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self), |step| step.next())
    }

    /// All turns after it.
    pub(super) fn rest(self) -> impl Iterator<Item = Self> {
        self.and_rest().skip(1)
    }
}

/// The first turns of one shard's sessions, one after the other.
#[derive(Debug, Clone)]
pub struct Itinerary {
    turns: Turns,
    shard: Shard,
    /// Requests of the phase; the session that reaches beyond ends there.
    requests: u64,
    session: u64,
    /// Index of the session's first turn.
    index: u64,
}

impl Itinerary {
    /// The sessions of `shard`, of a phase of at most `requests`.
    pub fn new(turns: Turns, shard: Shard, requests: Option<u64>) -> Self {
        let requests = requests.unwrap_or(u64::MAX);
        let mut it = Self { turns, shard, requests, session: 0, index: 0 };
        it.pass_over(u64::from(shard.index));
        it
    }

    /// Sessions of the shard that are left; absent where the phase has no number of requests.
    pub fn sessions_left(&self) -> Option<u64> {
        let mut rest = self.clone();
        (self.requests < u64::MAX).then(|| std::iter::from_fn(|| rest.take()).count() as u64)
    }

    fn pass_over(&mut self, sessions: u64) {
        // Where all are alike there is nothing to look at.
        let same = match self.turns {
            Turns::One => Some(1),
            Turns::Fixed(n) => Some(u64::from(n.max(1))),
            Turns::Drawn { .. } | Turns::Listed { .. } => None,
        };
        let of = |session| u64::from(self.turns.of(session));
        let passed = match same {
            Some(each) => each.saturating_mul(sessions),
            None => (0..sessions).map(|n| of(self.session + n)).sum(),
        };
        self.index = self.index.saturating_add(passed);
        self.session += sessions;
    }

    /// Whether no session is left.
    pub(super) fn is_spent(&self) -> bool {
        self.index >= self.requests
    }

    /// Takes the next session, by its first turn.
    pub(super) fn take(&mut self) -> Option<Step> {
        if self.is_spent() {
            return None;
        }
        let (session, index) = (self.session, self.index);
        let most = u32::try_from(self.requests - index).unwrap_or(u32::MAX);
        let left = self.turns.of(session).min(most) - 1;
        self.pass_over(u64::from(self.shard.count.max(1)));
        Some(Step { index, turn: Turn { session, number: 0 }, left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn turns() -> impl Strategy<Value = Turns> {
        let pick = prop_oneof![Just(Pick::InOrder), Just(Pick::Random)];
        let counts = proptest::collection::vec(1u32..9, 1..40);
        prop_oneof![
            Just(Turns::One),
            (1u32..9).prop_map(Turns::Fixed),
            (1u32..5, 0u32..6, any::<u64>()).prop_map(|(min, more, seed)| Turns::Drawn {
                dist: LengthDist::uniform(min, min + more),
                seed
            }),
            (counts, pick, any::<u64>()).prop_map(|(counts, pick, seed)| Turns::Listed {
                counts: counts.into(),
                pick,
                seed
            }),
        ]
    }

    fn walk(turns: &Turns, shard: Shard, requests: u64) -> Vec<Step> {
        let mut it = Itinerary::new(turns.clone(), shard, Some(requests));
        std::iter::from_fn(|| it.take()).flat_map(Step::and_rest).collect()
    }

    proptest! {
        /// However many shards: every index below the number of requests once, in the order of sessions.
        #[test]
        fn shards_share_the_indices_out(turns in turns(), requests in 0u64..300, count in 1u16..5) {
            let whole = walk(&turns, Shard::WHOLE, requests);
            let indices: Vec<u64> = whole.iter().map(|s| s.index).collect();
            prop_assert_eq!(indices, (0..requests).collect::<Vec<_>>());
            let mut parts = Vec::new();
            for index in 0..count {
                let shard = Shard { index, count };
                let part = walk(&turns, shard, requests);
                let of_shard = |s: &Step| s.turn.session % u64::from(count) == u64::from(index);
                prop_assert!(part.iter().all(of_shard));
                let sessions = Itinerary::new(turns.clone(), shard, Some(requests)).sessions_left();
                let first = part.iter().filter(|s| s.turn.number == 0).count() as u64;
                prop_assert_eq!(sessions, Some(first));
                parts.extend(part);
            }
            parts.sort_unstable();
            prop_assert_eq!(&parts, &whole);
            // Only the last session may be cut short.
            let ends = whole.iter().filter(|s| s.left == 0 && s.index + 1 < requests);
            for end in ends {
                prop_assert_eq!(end.turn.number + 1, turns.of(end.turn.session));
            }
        }
    }

    #[test]
    fn conversations_are_taken_in_order_from_the_top_again_or_drawn() {
        let listed = |pick| Turns::Listed { counts: [2, 1, 3].into(), pick, seed: 5 };
        let in_order = listed(Pick::InOrder);
        assert_eq!((0..5).map(|s| in_order.of(s)).collect::<Vec<_>>(), [2, 1, 3, 2, 1]);
        assert_eq!(in_order.conversation(4), Some(1));
        let drawn = listed(Pick::Random);
        let mut seen: Vec<usize> = (0..60).filter_map(|s| drawn.conversation(s)).collect();
        assert_eq!(drawn.conversation(7), Some(seen[7]));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2]);
        assert_eq!(Turns::Fixed(3).conversation(0), None);
        let none = Turns::Listed { counts: [].into(), pick: Pick::Random, seed: 1 };
        assert_eq!((none.of(3), none.conversation(3)), (1, None));
    }
}
