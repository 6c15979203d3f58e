//! What is made of one size beside the baseline.

use super::{Growth, LoadGrowth, Mark, Measured, Ranged, Shape, Step};
use crate::analysis::doubt::percent;
use crate::distinct::distinct;
use crate::metrics::Better;
use crate::stats::scaling::karp_flatt;
use crate::trust::TrustLevel;

/// More than the ideal by this much is not explained by the spread between runs.
const ABOVE_IDEAL: f64 = 1.03;
/// Two loads that differ by less are the same.
const SAME: f64 = 0.01;

pub(super) struct Context<'a> {
    pub(super) better: Better,
    pub(super) is_at_load: bool,
    pub(super) base: &'a Measured,
}

impl Context<'_> {
    pub(super) fn step(&self, of: &Measured) -> Step {
        let (size, growth) = (self.size(of), self.growth(of));
        let load_growth = self.is_at_load.then(|| self.load_growth(of, size));
        let marks = self.marks(of, growth, load_growth);
        let speedup = self.speedup(of);
        let has = |code: &str| marks.iter().any(|m| m.code == code);
        let by = match (self.better, load_growth) {
            // Twice the machines for twice the load answer as fast at best.
            (Better::Lower, Some(LoadGrowth::Weak)) => Some(1.0),
            (_, Some(LoadGrowth::Other)) => None,
            _ => Some(size),
        };
        let by = by.filter(|_| !has("asked_rate") && of.value > 0.0);
        let over = |n: Option<u32>, base: Option<u32>| {
            let by = f64::from(n?) / f64::from(base.filter(|b| *b > 0)?);
            (self.better == Better::Higher && by > 0.0).then(|| speedup.point / by)
        };
        let efficiency = by.map(|by| speedup.over(by));
        let serial = (load_growth == Some(LoadGrowth::Strong) && efficiency.is_some())
            .then(|| karp_flatt(size, speedup.point))
            .flatten();
        let mut step = Step {
            deployment: of.deployment.clone(),
            level: of.level.clone(),
            shape: of.shape.clone(),
            size,
            growth,
            load_growth,
            value: of.value,
            speedup,
            efficiency,
            efficiency_by_nodes: efficiency
                .and_then(|_| over(of.shape.nodes, self.base.shape.nodes)),
            efficiency_by_replicas: efficiency
                .and_then(|_| over(Some(of.shape.replicas), Some(self.base.shape.replicas))),
            serial_fraction: serial,
            control: None,
            counts: efficiency.is_some() && !marks.iter().any(Mark::excludes),
            marks,
            trust: of.trust,
        };
        if self.is_at_load {
            step.mark_above_ideal();
        }
        step
    }

    /// By GPUs where both sides know theirs, by instances else.
    fn size(&self, of: &Measured) -> f64 {
        let gpus = |m: &Measured| m.shape.gpus.filter(|n| *n > 0).map(f64::from);
        match (gpus(of), gpus(self.base)) {
            (Some(n), Some(base)) => n / base,
            _ => f64::from(of.shape.replicas) / f64::from(self.base.shape.replicas.max(1)),
        }
    }

    fn growth(&self, of: &Measured) -> Growth {
        let (a, b) = (&of.shape, &self.base.shape);
        let of = |s: &Shape| (s.serves.clone(), s.instance.clone(), s.hosts_per_instance);
        let is_alike = of(a) == of(b);
        match (is_alike, a.replicas == b.replicas) {
            (true, true) => Growth::Same,
            (true, false) => Growth::Copies,
            (false, true) => Growth::Instance,
            (false, false) => Growth::Mixed,
        }
    }

    fn load_growth(&self, of: &Measured, size: f64) -> LoadGrowth {
        let Some(grown) = of.asked.zip(self.base.asked).map(|(a, b)| a / b) else {
            // Neither has a number: they met the same load.
            return LoadGrowth::Strong;
        };
        let is = |n: f64| (grown / n - 1.0).abs() < SAME;
        match () {
            () if is(1.0) => LoadGrowth::Strong,
            () if is(size) => LoadGrowth::Weak,
            () => LoadGrowth::Other,
        }
    }

    fn speedup(&self, of: &Measured) -> Ranged {
        let ratio = Ranged { point: of.value / self.base.value, range: of.ratio_range };
        if self.better == Better::Lower { ratio.inverse() } else { ratio }
    }

    fn marks(&self, of: &Measured, growth: Growth, load: Option<LoadGrowth>) -> Vec<Mark> {
        let mut marks: Vec<Mark> = of.mark.iter().cloned().collect();
        let mut mark = |code: &str, message: String| {
            marks.push(Mark { code: code.to_owned(), message });
        };
        if of.trust == TrustLevel::Invalid {
            mark("not_trusted", "its numbers are not to be trusted".to_owned());
        }
        if of.failed > 0.0 {
            let share = percent(of.failed);
            mark(
                "censored",
                format!(
                    "{share} of its requests failed: what is left is the rate of the survivors"
                ),
            );
        }
        if of.shape.serves != self.base.shape.serves {
            let (a, b) = (&of.shape.serves, &self.base.shape.serves);
            mark(
                "another_engine",
                format!("it is {a}, and the baseline {b}: one is not the other grown"),
            );
        }
        if let Some(kinds) = self.unlike_kinds(of) {
            mark(
                "heterogeneous",
                format!(
                    "not of one kind of GPU ({kinds}): its size is not a multiple of the baseline's"
                ),
            );
        }
        if of.shape.hosts_per_instance > 1 {
            let n = of.shape.hosts_per_instance;
            let what = &of.shape.instance;
            mark(
                "split",
                format!(
                    "each {what} is cut over {n} hosts, whose ranks wait for the network at every step"
                ),
            );
        }
        if growth == Growth::Mixed {
            mark(
                "another_shape",
                format!(
                    "{} x {} against {} x {}",
                    of.shape.replicas,
                    of.shape.instance,
                    self.base.shape.replicas,
                    self.base.shape.instance
                ),
            );
        }
        if load == Some(LoadGrowth::Other) {
            mark(
                "unlike_load",
                "its load is neither the baseline's nor larger by its size: no efficiency follows"
                    .to_owned(),
            );
        }
        if self.is_at_load && of.is_rate_given && self.better == Better::Higher {
            mark("asked_rate", "requests came at a given rate, which is what is measured below capacity: compare at the SLO".to_owned());
        }
        marks
    }

    /// Kinds of GPU of both, where they are not one and the same.
    fn unlike_kinds(&self, of: &Measured) -> Option<String> {
        let both = self.base.shape.gpu_kinds.iter().chain(&of.shape.gpu_kinds);
        let kinds = distinct(both.map(String::as_str));
        (kinds.len() > 1).then(|| kinds.join(", "))
    }
}

impl Step {
    fn mark_above_ideal(&mut self) {
        let is_above = |e: &Ranged| e.range.map_or(e.point, |[low, _]| low) > ABOVE_IDEAL;
        if self.efficiency.as_ref().is_some_and(is_above) && self.size > 1.0 {
            self.marks.push(Mark {
                code: "above_ideal".to_owned(),
                message: "more than ideal: the baseline was held up by something that this one is not, as memory for its cache".to_owned(),
            });
        }
    }
}

impl Mark {
    /// No law holds what is marked so.
    fn excludes(&self) -> bool {
        [
            "not_trusted",
            "censored",
            "heterogeneous",
            "another_engine",
            "unlike_load",
            "asked_rate",
            "slo_open",
            "slo_coarse",
        ]
        .contains(&self.code.as_str())
    }
}
