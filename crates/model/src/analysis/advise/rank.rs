//! The order of choices, and whether it stands where something is moved.

use super::choice::Weighed;
use super::{Asked, BreakEven, Demand, Moved, Shift};
use std::cmp::Ordering;

/// How far prices and loads are moved.
const MOVED: [f64; 2] = [0.8, 1.2];

/// How far around what is asked the order is looked at.
const AROUND: (f64, f64) = (0.01, 10.0);

/// A world in which something is other than it was said to be.
#[derive(Clone, Copy)]
struct World<'a> {
    demand: Demand,
    /// Of one deployment, by which factor its price is moved.
    price: Option<(&'a str, f64)>,
    power: f64,
}

impl World<'_> {
    fn cost(&self, of: &Weighed<'_>) -> Option<f64> {
        let price = self.price.filter(|(name, _)| *name == of.choice.name);
        of.cost(self.demand, price.map_or(1.0, |(_, factor)| factor), self.power)
    }

    /// The least cost first; what has none after what has one, by its GPUs.
    fn compare(&self, a: &Weighed<'_>, b: &Weighed<'_>) -> Ordering {
        let by_cost = match (self.cost(a), self.cost(b)) {
            (Some(x), Some(y)) => x.total_cmp(&y),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        let by_gpus = || a.gpus(self.demand).cmp(&b.gpus(self.demand));
        by_cost.then_with(by_gpus).then_with(|| a.choice.name.cmp(&b.choice.name))
    }
}

pub(super) fn sort(weighed: &mut [Weighed<'_>], demand: Demand) {
    let world = World { demand, price: None, power: 1.0 };
    weighed.sort_by(|a, b| world.compare(a, b));
}

/// Those whose cost cannot be told from that of the first.
pub(super) fn alike(weighed: &[Weighed<'_>]) -> Vec<String> {
    let Some((first, rest)) = weighed.split_first() else { return Vec::new() };
    let Some(own) = &first.choice.cost_per_hour else { return Vec::new() };
    let overlaps =
        |w: &&Weighed<'_>| w.choice.cost_per_hour.as_ref().is_some_and(|c| c.low <= own.high);
    rest.iter().filter(overlaps).map(|w| w.choice.name.clone()).collect()
}

/// The first against each other that has a cost.
pub(super) fn break_even(weighed: &[Weighed<'_>], asked: &Asked<'_>) -> Vec<BreakEven> {
    let Some((first, rest)) = weighed.split_first() else { return Vec::new() };
    let Some(own) = first.priced else { return Vec::new() };
    let at = asked.demand.value();
    let around = (at * AROUND.0, at * AROUND.1);
    let against = |w: &Weighed<'_>| {
        let its = w.priced?.bill(w.carries);
        let (below, above) = own.bill(first.carries).break_even(&its, at, around);
        Some(BreakEven { other: w.choice.name.clone(), below, above })
    };
    rest.iter().filter_map(against).collect()
}

/// Whether the first stays the first; nothing where it is alone.
pub(super) fn shifts(weighed: &[Weighed<'_>], asked: &Asked<'_>) -> Vec<Shift> {
    let [first, _, ..] = weighed else { return Vec::new() };
    let as_is = World { demand: asked.demand, price: None, power: 1.0 };
    let mut out = Vec::new();
    let mut see = |moved: Moved, world: World<'_>, factor: f64| {
        let best = weighed.iter().min_by(|a, b| world.compare(a, b));
        let best = best.map_or(&first.choice.name, |w| &w.choice.name);
        let changes = *best != first.choice.name;
        out.push(Shift { moved, factor, best: best.clone(), changes });
    };
    for factor in MOVED {
        if first.priced.is_some() {
            let name = first.choice.name.as_str();
            see(Moved::Price, World { price: Some((name, factor)), ..as_is }, factor);
        }
        if weighed.iter().any(|w| w.priced.is_some_and(|p| p.power > 0.0)) {
            see(Moved::Power, World { power: factor, ..as_is }, factor);
        }
        see(Moved::Load, World { demand: asked.demand.times(factor), ..as_is }, factor);
    }
    out.sort_by_key(|s| s.moved as u8);
    out
}
