//! How the cost of copies of a deployment follows from the rate that they carry.
//!
//! A fleet that is always up has the least whole number of copies that carry the rate. On a platform that starts
//! copies when requests come and ends them when none did for a while, all but the last are taken to be up always, and
//! the last for the share of time that what is left of the rate keeps it up.

/// More copies than this are no plan.
pub const MOST_COPIES: u32 = 100_000;

/// A rate is carried though rounding makes it this much larger, relative.
const ROUNDING: f64 = 1e-9;

/// When a copy is up, and billed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Uptime {
    /// Always.
    Always,
    /// Only when it is asked.
    OnlyWhenAsked(OnlyWhenAsked),
}

/// A copy that is started by the first request and ended when none came for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OnlyWhenAsked {
    /// From nothing to the first answer, in seconds; billed.
    pub cold_start_s: f64,
    /// From when a request is taken until the copy ends, if none follows: the request itself and the wait after it.
    pub lingers_s: f64,
    /// The part of a copy that is up though nobody asks, from 0 to 1.
    pub kept_up: f64,
}

impl OnlyWhenAsked {
    /// The share of time in which it is up where `rate_rps` requests come a second.
    ///
    /// Requests are taken to come as a Poisson process, to take alike long, and to be answered side by side. The copy
    /// is up while any request lingers, as the servers of an M/G/infinity queue are busy: its busy periods last
    /// (e^(rate x lingers) - 1) / rate on average, idle ones 1 / rate (Takacs, *Introduction to the Theory of
    /// Queues*, 1962, chapter 3). A cold start comes before each busy period, and the requests that come in it wait.
    pub fn share_up(&self, rate_rps: f64) -> f64 {
        let asked = 1.0 - 1.0 / self.requests_per_cycle(rate_rps);
        self.kept_up + (1.0 - self.kept_up) * asked
    }

    /// The share of requests that wait for a cold start: the first of each cycle and those that come in it. None does
    /// where a part of a copy is always up.
    pub fn share_cold(&self, rate_rps: f64) -> f64 {
        if self.kept_up > 0.0 {
            return 0.0;
        }
        let cold = 1.0 + rate_rps * self.cold_start_s;
        if cold.is_infinite() { 1.0 } else { cold / self.requests_per_cycle(rate_rps) }
    }

    /// From one start to the next.
    fn requests_per_cycle(&self, rate_rps: f64) -> f64 {
        rate_rps * self.cold_start_s + (rate_rps * self.lingers_s).exp()
    }
}

/// What copies of a deployment cost, by rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bill {
    /// Of one copy that is up, an hour, beside machines that it shares with others.
    pub per_hour: f64,
    /// Of whole machines, which as many copies share as have room on them.
    pub machines: Option<Machines>,
    /// Requests a second that one copy carries; above zero.
    pub carries_rps: f64,
    /// When copies are up.
    pub uptime: Uptime,
}

/// Machines that are paid for whole, whatever of them is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machines {
    /// All machines of one copy, an hour.
    pub per_hour: f64,
    /// So many copies have room on them; at least 1.
    pub fits: u32,
}

impl Machines {
    fn cost_per_hour(self, copies: u32) -> f64 {
        self.per_hour * f64::from(copies.div_ceil(self.fits))
    }
}

impl Bill {
    /// Of one copy where every machine is full.
    pub fn full(self) -> Self {
        let of_machines = self.machines.map_or(0.0, |m| m.per_hour / f64::from(m.fits));
        Self { per_hour: self.per_hour + of_machines, machines: None, ..self }
    }

    /// The least number of copies that carry `rate_rps`; at least one. Absent above [`MOST_COPIES`].
    pub fn copies(&self, rate_rps: f64) -> Option<u32> {
        let copies = (rate_rps / self.carries_rps * (1.0 - ROUNDING)).ceil().max(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 1 to MOST_COPIES"
        )]
        (copies <= f64::from(MOST_COPIES)).then_some(copies as u32)
    }

    /// What they cost an hour, on average. Absent where there is no such number of them.
    pub fn cost_per_hour(&self, rate_rps: f64) -> Option<f64> {
        let whole = self.copies(rate_rps)?;
        let copies = f64::from(whole);
        let of_machines = self.machines.map_or(0.0, |m| m.cost_per_hour(whole));
        Some(
            of_machines
                + self.per_hour
                    * match self.uptime {
                        Uptime::Always => copies,
                        Uptime::OnlyWhenAsked(asked) => {
                            let rest = (rate_rps - (copies - 1.0) * self.carries_rps).max(0.0);
                            copies - 1.0 + asked.share_up(rest)
                        }
                    },
        )
    }

    /// The rates nearest to `rate_rps`, below and above it, beyond which `other` costs less, where this one costs no
    /// more at `rate_rps`; absent where there is none from `from_rps` to `to_rps`. There both cost the same, or the one
    /// needs another copy. Of two that are both up only when asked, rates between which the order changes twice may be
    /// missed.
    pub fn break_even(
        &self,
        other: &Self,
        rate_rps: f64,
        (from_rps, to_rps): (f64, f64),
    ) -> (Option<f64>, Option<f64>) {
        let mut steps = self.steps(from_rps, to_rps);
        steps.extend(other.steps(from_rps, to_rps));
        steps.extend([from_rps, to_rps]);
        steps.sort_by(f64::total_cmp);
        let edges = |from: f64, to: f64| {
            let inner = steps.iter().copied().filter(move |s| *s > from && *s < to);
            [from].into_iter().chain(inner).chain([to]).collect::<Vec<f64>>()
        };
        let below = edges(from_rps, rate_rps);
        let below = below.windows(2).rev().find_map(|w| self.flip(other, w[0], w[1], false));
        let above = edges(rate_rps, to_rps);
        let above = above.windows(2).find_map(|w| self.flip(other, w[0], w[1], true));
        (below, above)
    }

    /// Rates at which another copy is needed.
    fn steps(&self, from_rps: f64, to_rps: f64) -> Vec<f64> {
        let number = |n: u32| f64::from(n) * self.carries_rps;
        (1..=MOST_COPIES)
            .map(number)
            .skip_while(|r| *r <= from_rps)
            .take_while(|r| *r < to_rps)
            .collect()
    }

    /// Where, between two rates at which no further copy is needed, `other` begins to cost less: going up from the
    /// first, or down from the second.
    fn flip(&self, other: &Self, low: f64, high: f64, is_up: bool) -> Option<f64> {
        // Just above a rate at which another copy is needed, it is there.
        let low = low + (high - low).min(low * 1e-6);
        let is_less = |rate: f64| {
            let (own, its) = (self.cost_per_hour(rate)?, other.cost_per_hour(rate)?);
            Some(its < own * (1.0 - ROUNDING))
        };
        let (near, far) = if is_up { (low, high) } else { (high, low) };
        if is_less(near)? {
            return Some(near);
        }
        if !is_less(far)? {
            return None;
        }
        let (mut same, mut less) = (near, far);
        for _ in 0..60 {
            let middle = 0.5 * (same + less);
            if is_less(middle)? { less = middle } else { same = middle }
        }
        Some(less)
    }
}

/// What a million tokens cost: `per_hour` over what is made of them in an hour. Absent where there are none.
pub fn per_mtok(per_hour: f64, rate_rps: f64, tokens_per_request: f64) -> Option<f64> {
    let mtok = rate_rps * 3_600.0 * tokens_per_request / 1e6;
    (mtok > 0.0).then(|| per_hour / mtok)
}
