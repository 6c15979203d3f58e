//! Laws through the sizes of a study, and what they say of the next one.

use super::{Growth, LoadGrowth, Measured, Step, sizes_of};
use crate::metrics::Better;
use crate::stats::scaling::{Curve, Law, Size, fit, range};
use serde::{Deserialize, Serialize};

/// A number with its 95 % interval, where one can be given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Ranged {
    /// The number.
    pub point: f64,
    /// Its 95 % interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
}

impl Ranged {
    pub(super) fn over(self, by: f64) -> Self {
        Self { point: self.point / by, range: self.range.map(|[low, high]| [low / by, high / by]) }
    }

    pub(super) fn inverse(self) -> Self {
        let range = self.range.map(|[low, high]| [1.0 / high, 1.0 / low]);
        Self { point: 1.0 / self.point, range }
    }
}

/// A law by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LawName {
    /// The same load at every size: part of the work does not shrink.
    Amdahl,
    /// A load that grows with size: part of the work does not grow.
    Gustafson,
    /// The universal scalability law: contention and coherence.
    Usl,
}

/// A law that was fitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Fit {
    /// Which.
    pub law: LawName,
    /// What the sizes have more of, one after the other.
    pub growth: Growth,
    /// Sizes that it goes through, the baseline among them.
    pub sizes: u32,
    /// The serial part, or contention: from 0 to 1.
    pub serial: Ranged,
    /// The cost of each pair, of the universal law.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coherence: Option<Ranged>,
    /// The largest relative distance of a size from the law; 0 by necessity where the law has as many parameters as there
    /// are sizes beside the baseline.
    pub misfit: f64,
    /// The size at which throughput is largest, in multiples of the baseline; absent where it never falls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<f64>,
    /// What one more of the baseline's size would add.
    pub next: NextStep,
}

/// One more of the baseline's size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NextStep {
    /// The size that would be reached, in multiples of the baseline.
    pub size: f64,
    /// What is gained over the largest size that was measured, relative to it.
    pub gain: Ranged,
}

/// Laws through what counts, by what grows. Throughput alone follows them.
pub(super) fn fits(steps: &[Step], measured: &[Measured], better: Better) -> Vec<Fit> {
    let mut out = Vec::new();
    // Without a base that counts there is nothing to grow from.
    if !steps.first().is_some_and(|base| base.counts) {
        return out;
    }
    for growth in [Growth::Copies, Growth::Instance] {
        let sizes = sizes_of(steps, measured, growth);
        // One size beside the baseline is what Karp and Flatt's fraction is for.
        if better != Better::Higher || sizes.len() < 3 {
            continue;
        }
        let of = |s: &&Step| s.counts && s.growth == growth;
        let kinds: Vec<_> = steps.iter().filter(of).map(|s| s.load_growth).collect();
        let is_all = |kind| kinds.iter().all(|k| *k == Some(kind));
        let simple = match () {
            () if is_all(LoadGrowth::Strong) => Some(Law::Amdahl),
            () if is_all(LoadGrowth::Weak) => Some(Law::Gustafson),
            () => None,
        };
        out.extend(simple.and_then(|law| fitted(law, growth, &sizes)));
        out.extend(fitted(Law::Universal, growth, &sizes));
    }
    out
}

fn fitted(law: Law, growth: Growth, sizes: &[Size]) -> Option<Fit> {
    let curve = fit(law, sizes)?;
    let with_range = |of: fn(&Curve) -> f64| Ranged {
        point: of(&curve),
        range: range(law, sizes, of).map(|(low, high)| [low, high]),
    };
    let largest = sizes.iter().map(|s| s.n).fold(1.0, f64::max);
    let gain = move |c: &Curve| c.at(largest + 1.0) / c.at(largest) - 1.0;
    let base = sizes.first()?.value;
    let misfit = |s: &Size| (s.value / base / curve.at(s.n) - 1.0).abs();
    Some(Fit {
        law: match law {
            Law::Amdahl => LawName::Amdahl,
            Law::Gustafson => LawName::Gustafson,
            Law::Universal => LawName::Usl,
        },
        growth,
        sizes: u32::try_from(sizes.len()).unwrap_or(u32::MAX),
        serial: with_range(|c| c.serial),
        coherence: (law == Law::Universal).then(|| with_range(|c| c.coherence)),
        misfit: sizes.iter().map(misfit).fold(0.0, f64::max),
        peak: curve.peak(),
        next: NextStep {
            size: largest + 1.0,
            gain: Ranged {
                point: gain(&curve),
                range: range(law, sizes, gain).map(|(low, high)| [low, high]),
            },
        },
    })
}
