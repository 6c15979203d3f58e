//! The ratio of two sides on one metric, by the best method that their trials allow.
//!
//! What is drawn as a whole ([`draws`]) is one value where there are enough to tell how such differ: so the interval
//! holds the variance between them. Where there are not, a bootstrap within the runs is widened by what runs usually differ by, and its
//! method says so.

use super::Side;
use super::blocks::{Blocks, blocks};
use super::draws;
use crate::analysis::doubt::FOREIGN_LOAD;
use crate::metrics::{Metric, Of};
use crate::results::{Estimate, PointResult};
use crate::stats::bootstrap::{interval, resample};
use crate::stats::contrast::{Contrast, FOR_WELCH, between, mean_error};
use crate::stats::percentile::percentile_of;
use crate::stats::scaling::Spread;
use crate::stats::student::exceeded_by;
use crate::trust::TrustLevel;
use crate::units::significant;
use rand_xoshiro::Xoshiro256PlusPlus;

/// Trials a side from which whole trials are drawn, where single ones are too small for a statistic of their own.
const TRIALS_FOR_BLOCKS: usize = 10;

/// The ratio of pooled values may lie so far from that of the means, relative, without a word.
const VISIBLE: f64 = 0.03;

/// Half of a 95 % interval in standard errors that are known.
const HALF_OF_NORMAL: f64 = 1.959_964;

/// By how much single runs of one deployment may differ where something else takes time from a machine of theirs: the
/// fastest trial of such a machine was five times as fast as the slowest (the journal, 2026-11-27).
const BESIDE_OTHERS: f64 = 4.0;

/// The same of the time to the first token of runs of fewer than [`ENOUGH_WAVES`]: who comes first in a batch is decided
/// anew by each wave (there too: single waves of a quiet machine differed by 46 % in 95 of 100 cases).
const IN_FEW_WAVES: f64 = 0.5;

/// From so many blocks on they show by themselves what they differ by.
const ENOUGH_WAVES: usize = 4;

/// By how much two single runs of one deployment may differ, which neither of them can show: an
/// assumption, added to intervals over too few trials. Tails vary most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::analysis) struct RunToRun {
    /// As a part of the value.
    pub(in crate::analysis) share: f64,
    /// Why it is so much.
    why: &'static str,
}

impl RunToRun {
    /// Of the statistic `stat` of `metric`, on the machines of `sides`.
    pub(in crate::analysis) fn of(metric: &Metric, stat: &str, sides: &[&Side<'_>]) -> Self {
        if sides.iter().any(|side| is_beside_others(side.result)) {
            let why = " on a machine that something else takes time from";
            return Self { share: BESIDE_OTHERS, why };
        }
        let is_tail = match stat {
            "min" | "max" => true,
            _ => percentile_of(stat).is_some_and(|p| !(10.0..90.0).contains(&p)),
        };
        let share = match metric.of {
            Of::Trial(_) => 0.03,
            _ if is_tail => 0.10,
            _ => 0.05,
        };
        Self { share, why: "" }
    }

    /// The same, where a run is of so few `blocks`: all differs by more then, and the time to the first token by most.
    fn in_few(self, blocks: usize, metric: &Metric) -> Self {
        let share = match metric.name.starts_with("ttft") {
            true => IN_FEW_WAVES,
            false => 2.0 * self.share,
        };
        match blocks < ENOUGH_WAVES && self.share < share.min(BESIDE_OTHERS) {
            true => Self { share, why: " of so few waves of requests" },
            false => self,
        }
    }

    /// What it is, and that `repeats` would tell.
    pub(in crate::analysis) fn in_words(self, repeats: usize) -> String {
        format!(
            "{:.0} % for what differs between runs{} (an assumption; {repeats} repeats measure it)",
            self.share * 100.0,
            self.why
        )
    }
}

/// Something else took time from a machine of this point, and may have taken more, or nothing, a minute later.
pub(in crate::analysis) fn is_beside_others(point: &PointResult) -> bool {
    let mut reasons = point.trust.reasons.iter();
    reasons.any(|r| r.code == FOREIGN_LOAD && r.level >= TrustLevel::Caution)
}

/// The same, and it has too few trials to tell: the next one may be several times as slow, or as fast, however many
/// requests say what this one was.
pub(in crate::analysis) fn may_be_another(point: &PointResult) -> bool {
    is_beside_others(point) && point.trials.len() < FOR_WELCH
}

/// Whether trials of both sides may be taken to spread alike.
pub(super) fn are_alike(side: &Side<'_>, base: &Side<'_>) -> bool {
    !is_beside_others(side.result) && !is_beside_others(base.result)
}

/// A ratio with what follows from it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ratio {
    /// As it is published.
    pub(super) estimate: Estimate,
    /// As it is tested.
    pub(super) contrast: Contrast,
    /// The spread between runs was measured; otherwise it is an assumption.
    pub(super) is_measured: bool,
}

/// `side` over `base` on the metric `name`, whose statistic is `stat`; `pooled` is the ratio of their values over
/// all trials. Absent where no interval can be given.
pub(super) fn ratio(
    metric: &Metric,
    (name, stat): (&str, &str),
    side: &Side<'_>,
    base: &Side<'_>,
    pooled: f64,
) -> Option<Ratio> {
    if !pooled.is_finite() || pooled <= 0.0 {
        return None;
    }
    match draws::of_two(side, base) {
        Some(unit) => {
            let (a, b) = (unit.logarithms(name, side)?, unit.logarithms(name, base)?);
            let (contrast, method) = between((&a, &b), unit.name(), are_alike(side, base))?;
            let method = method + &of_means(&contrast, unit.name(), pooled);
            Some(measured(contrast, method))
        }
        None => within_runs(metric, stat, side, base, pooled),
    }
}

/// How well the value of a side by itself is known: by what its runs, bring-ups or trials differ by, or by what runs
/// usually differ by.
pub(super) fn spread(metric: &Metric, (name, stat): (&str, &str), side: &Side<'_>) -> Spread {
    let values = draws::of_one(side, 2).and_then(|unit| unit.logarithms(name, side));
    match values.and_then(|values| mean_error(&values)) {
        Some((error, freedom)) => Spread { error, freedom },
        None => {
            let assumed = RunToRun::of(metric, stat, &[side]).share;
            Spread { error: assumed.ln_1p() / HALF_OF_NORMAL, freedom: f64::INFINITY }
        }
    }
}

/// What the ratio is of, where it is visibly not that of the values beside it.
fn of_means(contrast: &Contrast, units: &str, pooled: f64) -> String {
    if (pooled.ln() - contrast.log_ratio).abs() < VISIBLE.ln_1p() {
        return String::new();
    }
    format!(
        "; the ratio is of the geometric means of these {units}, the values shown are of all trials taken together \
         (their ratio: {})",
        significant(pooled)
    )
}

fn measured(contrast: Contrast, method: String) -> Ratio {
    let estimate = contrast.estimate(method);
    Ratio { estimate, contrast, is_measured: true }
}

/// A bootstrap over blocks of requests or sessions. Where both sides answered the same ones, which one plan gives them,
/// pairs are drawn: what differs between requests is then not taken for a difference between deployments.
fn within_runs(
    metric: &Metric,
    stat: &str,
    side: &Side<'_>,
    base: &Side<'_>,
    point: f64,
) -> Option<Ratio> {
    let (a, b) = (blocks(metric, side)?, blocks(metric, base)?);
    let is_paired = a.are_of_the_same(&b);
    let at_once = a.at_once.max(b.at_once);
    let (a, b) = (a.together(at_once), b.together(at_once));
    let drawn = Bootstrap { a, b, stat, is_paired, point };
    let (low, high, method) = drawn.widened(metric, [side, base], FOR_WELCH)?;
    // The side that faces 1 is the one that is tested.
    let half = if point >= 1.0 { (point / low).ln() } else { (high / point).ln() };
    let error = half / HALF_OF_NORMAL;
    Some(Ratio {
        estimate: Estimate { point, low, high, confidence: 0.95, method },
        contrast: Contrast { log_ratio: point.ln(), error, freedom: f64::INFINITY },
        is_measured: false,
    })
}

/// What is drawn for the ratio of `stat` over the units of `a` to that over the units of `b`, which is `point`.
struct Bootstrap<'a> {
    a: Blocks,
    b: Blocks,
    stat: &'a str,
    is_paired: bool,
    point: f64,
}

impl Bootstrap<'_> {
    fn fewer(&self) -> usize {
        self.a.keys.len().min(self.b.keys.len())
    }

    /// Its 95 % interval. A bootstrap of few units is too narrow: it divides by their number, and takes what they differ
    /// by as known. The side with fewer of them may be all that differs, so it is stretched by these. Absent where a
    /// bound is no ratio.
    fn interval(&self) -> Option<(f64, f64)> {
        let (a, b, stat) = (&self.a, &self.b, self.stat);
        let (mut pick, mut pool) = (Vec::new(), Vec::new());
        let mut draw = |rng: &mut Xoshiro256PlusPlus| {
            resample(a.keys.len(), rng, &mut pick);
            let over = a.of.value(&pick, stat, &mut pool)?;
            if !self.is_paired {
                resample(b.keys.len(), rng, &mut pick);
            }
            Some(over / b.of.value(&pick, stat, &mut pool)?)
        };
        let seed = crate::workload::derive_seed(&[a.keys.len() as u64, b.keys.len() as u64]);
        let (low, high) = interval(seed, |rng| draw(rng))?;
        let fewer = self.fewer() as f64;
        if low < 0.0 || fewer < 2.0 {
            return None;
        }
        let t = exceeded_by(0.025, fewer - 1.0);
        let stretch = t / HALF_OF_NORMAL * (fewer / (fewer - 1.0)).sqrt();
        let point = self.point;
        let apart = |bound: f64| (bound / point).powf(stretch);
        Some((point * apart(low.min(point)), point * apart(high.max(point))))
    }

    /// The interval widened by what runs of `sides` differ by, which `repeats` would tell, and the method.
    fn widened(
        &self,
        metric: &Metric,
        sides: [&Side<'_>; 2],
        repeats: usize,
    ) -> Option<(f64, f64, String)> {
        let (low, high) = self.interval()?;
        let unseen = RunToRun::of(metric, self.stat, &sides).in_few(self.fewer(), metric);
        let most = 1.0 + unseen.share;
        let (of, words) = (self.of(sides[0]), unseen.in_words(repeats));
        Some((low / most, high * most, format!("bootstrap over {of}, widened by {words}")))
    }

    /// What is drawn, in words.
    fn of(&self, side: &Side<'_>) -> String {
        let pairs = if self.is_paired { "pairs of like " } else { "" };
        let one = match side.records().any(|(_, r)| r.session.is_some()) {
            true => "sessions",
            false => "requests",
        };
        match self.a.are_several_together || self.b.are_several_together {
            true => format!("{pairs}blocks of {one} in flight at one time"),
            false => format!("{pairs}{one}"),
        }
    }
}

/// One statistic of the requests of a deployment under two loads.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::analysis) struct OfLoads {
    /// Over all requests of the one.
    pub(in crate::analysis) value: f64,
    /// Over all of the other.
    pub(in crate::analysis) base_value: f64,
    /// The first over the second.
    pub(in crate::analysis) ratio: Estimate,
}

/// `side` over `base`, two loads of one deployment, on samples of their requests pooled over trials. Whole trials are
/// drawn where there are enough to show how they differ; else requests or sessions, and the interval is widened.
/// A trial of such loads may hold two requests, of which no percentile could be taken by itself.
///
/// Absent where either has fewer than two units, no sample, or nothing above zero.
pub(in crate::analysis) fn of_loads(
    metric: &Metric,
    stat: &str,
    side: &Side<'_>,
    base: &Side<'_>,
) -> Option<OfLoads> {
    let (a, b) = (blocks(metric, side)?, blocks(metric, base)?);
    let all = |units: &Blocks| {
        let every: Vec<usize> = (0..units.keys.len()).collect();
        units.of.value(&every, stat, &mut Vec::new()).filter(|v| v.is_finite() && *v > 0.0)
    };
    let (value, base_value) = (all(&a)?, all(&b)?);
    let point = value / base_value;
    let (low, high, method) = match (a.trials(), b.trials()) {
        (n, m) if n.min(m) >= TRIALS_FOR_BLOCKS => {
            let (a, b) = (a.by_trial(), b.by_trial());
            let drawn = Bootstrap { a, b, stat, is_paired: false, point };
            let (low, high) = drawn.interval()?;
            (low, high, format!("bootstrap over {n} and {m} whole trials"))
        }
        _ => {
            let of_their_own = (a.at_once, b.at_once);
            let (a, b) = (a.together(of_their_own.0), b.together(of_their_own.1));
            let drawn = Bootstrap { a, b, stat, is_paired: false, point };
            drawn.widened(metric, [side, base], TRIALS_FOR_BLOCKS)?
        }
    };
    let ratio = Estimate { point, low, high, confidence: 0.95, method };
    Some(OfLoads { value, base_value, ratio })
}
