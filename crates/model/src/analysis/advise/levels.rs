//! The levels of a deployment, each judged against the objective.

use super::{Asked, Candidate, Ceiling, Demand, Met, NoAdvice, NotTrusted};
use crate::analysis::compare::{RunToRun, Side, draws, may_be_another};
use crate::analysis::{slo, versus::Contender};
use crate::metrics;
use crate::results::{Estimate, PointResult};
use crate::slo::{Judgement, Slo};
use crate::stats::contrast::mean_error;
use crate::stats::student::t_975;
use crate::trust::TrustLevel;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Trials from which their spread tells how runs differ.
const TRIALS_FOR_SPREAD: usize = 3;

/// A level of a load that was measured.
pub(super) struct Level<'a> {
    pub(super) side: Side<'a>,
    judged: Judgement,
    demand: Demand,
}

/// All of a deployment.
pub(super) struct Ladder<'a> {
    pub(super) name: String,
    pub(super) candidate: &'a Candidate<'a>,
    /// By load, ascending.
    pub(super) levels: Vec<Level<'a>>,
}

impl<'a> Ladder<'a> {
    pub(super) fn of(
        candidate: &'a Candidate<'a>,
        name: String,
        asked: &Asked<'_>,
    ) -> Result<Self, NoAdvice> {
        let Contender { deployment, plan, measured, results, .. } = candidate.contender;
        let is_wanted = |load: &String| asked.loads.is_empty() || asked.loads.contains(load);
        let own = measured.iter().filter(|m| m.plan.deployment == deployment);
        let own = own.filter(|m| is_wanted(&m.plan.load) && !m.trials.is_empty());
        let mut levels: Vec<Level<'a>> = own
            .filter_map(|m| {
                let is_its = |r: &&PointResult| {
                    r.deployment == deployment
                        && r.load == m.plan.load
                        && r.level == m.plan.level.label
                };
                let result = results.points.iter().find(is_its)?;
                let side = Side { result, trials: &m.trials, point: m.plan, plan, class: None };
                Some(Level { judged: judge(asked.slo, &side), side, demand: asked.demand })
            })
            .collect();
        let workloads: BTreeMap<&str, &str> = levels
            .iter()
            .map(|l| (l.side.point.workload.name.as_str(), l.side.result.load.as_str()))
            .collect();
        if workloads.len() > 1 {
            let loads = workloads.iter().map(|(w, load)| format!("{load} ({w})")).collect();
            return Err(NoAdvice::SeveralWorkloads { name, loads });
        }
        let key = |l: &Level<'_>| (l.side.result.load.clone(), l.asked());
        levels.sort_by(|a, b| {
            let ((load_a, at_a), (load_b, at_b)) = (key(a), key(b));
            load_a.cmp(&load_b).then(at_a.total_cmp(&at_b))
        });
        Ok(Self { name, candidate, levels })
    }

    pub(super) fn contender(&self) -> &Contender<'a> {
        &self.candidate.contender
    }

    /// The level that carries the most of those that met the objective and can be trusted.
    pub(super) fn best(&self) -> Option<&Level<'a>> {
        let met = self.levels.iter().filter(|l| l.judged.holds && l.is_trusted());
        let met = met.filter_map(|l| Some((l.carries()?, l)));
        met.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, level)| level)
    }

    /// Levels of the same load above `level`, or below it, that did not meet the objective.
    fn missed(&self, level: &Level<'_>, way: Ordering) -> Vec<&Level<'a>> {
        let (load, asked) = (&level.side.result.load, level.asked());
        let is_there =
            |l: &&Level<'a>| l.side.result.load == *load && l.asked().total_cmp(&asked) == way;
        self.levels.iter().filter(is_there).filter(|l| !l.judged.holds).collect()
    }

    /// The next one above `level` that did not meet it.
    pub(super) fn ceiling(&self, level: &Level<'a>) -> Option<&Level<'a>> {
        self.missed(level, Ordering::Greater).into_iter().next()
    }

    pub(super) fn missed_below(&self, level: &Level<'a>) -> Vec<String> {
        let below = self.missed(level, Ordering::Less).into_iter();
        below.map(|l| l.side.result.level.clone()).collect()
    }

    /// Why none of its levels can be built on.
    pub(super) fn why_none(&self, asked: &Slo) -> String {
        let Some(lowest) = self.levels.first() else {
            return "nothing was measured of it".to_owned();
        };
        if self.levels.iter().any(|l| l.judged.holds) {
            return "what meets the SLO of it is not to be trusted".to_owned();
        }
        if lowest.is_damaged() {
            return format!("the records of {} cannot be read", lowest.place());
        }
        let told = slo::result(asked, lowest.side.trials);
        let failed = told.bounds.iter().filter(|b| !b.holds);
        let words = failed.map(|b| match b.value_ms {
            Some(ms) => format!("{} (is {ms:.0} ms)", b.bound),
            None => format!("{} (not reached: too many were not completed)", b.bound),
        });
        let words = words.collect::<Vec<_>>().join(", ");
        let chance = if told.sure { "" } else { "; chance may explain it" };
        format!("misses the SLO even at {}: {words}{chance}", lowest.place())
    }

    /// Points that are left out; `might_win` says whether the deployment would come first if a copy carried so much.
    pub(super) fn not_trusted(&self, might_win: impl Fn(f64) -> bool) -> Vec<NotTrusted> {
        let carries = self.best().and_then(Level::carries).unwrap_or(0.0);
        let invalid = self.levels.iter().filter(|l| !l.is_trusted());
        let told = invalid.map(|l| NotTrusted {
            name: self.name.clone(),
            point: l.place(),
            codes: l.codes(TrustLevel::Invalid),
            // Of records that cannot be read nobody knows what they would say.
            would_count: l.is_damaged()
                || (l.judged.holds && l.carries().is_some_and(|c| c > carries && might_win(c))),
        });
        told.collect()
    }
}

impl Level<'_> {
    fn is_damaged(&self) -> bool {
        self.side.trials.iter().any(|t| t.damaged.is_some())
    }

    fn is_trusted(&self) -> bool {
        self.side.result.trust.level < TrustLevel::Invalid
    }

    /// Codes of the reasons that are as grave.
    fn codes(&self, least: TrustLevel) -> Vec<String> {
        let reasons = self.side.result.trust.reasons.iter();
        reasons.filter(|r| r.level >= least).map(|r| r.code.clone()).collect()
    }

    /// What the level asked of the deployment, by the kind of its load.
    pub(super) fn asked(&self) -> f64 {
        self.side.result.level_value().unwrap_or(0.0)
    }

    pub(super) fn place(&self) -> String {
        format!("{}/{}", self.side.result.load, self.side.result.level)
    }

    fn users(&self) -> Option<f64> {
        let asked = self.side.result.concurrency.map(f64::from);
        asked.or_else(|| self.side.result.value("concurrency_reached"))
    }

    /// In the unit of the demand.
    fn carries(&self) -> Option<f64> {
        let carried = match self.demand {
            Demand::Rps(_) => self.side.result.value("rps"),
            Demand::Users(_) => self.users(),
        };
        carried.filter(|c| *c > 0.0)
    }

    /// The same with its interval; users are as many as were asked for.
    pub(super) fn carried(&self) -> Option<Estimate> {
        let carries = self.carries()?;
        match self.demand {
            Demand::Rps(_) => sustained(&self.side),
            Demand::Users(_) => Some(Estimate {
                point: carries,
                low: carries,
                high: carries,
                confidence: 0.95,
                method: "as asked".to_owned(),
            }),
        }
    }

    pub(super) fn met(&self) -> Option<Met> {
        Some(Met {
            load: self.side.result.load.clone(),
            level: self.side.result.level.clone(),
            rps: sustained(&self.side)?,
            users: self.users()?,
            sure: self.judged.is_sure,
            trust: self.side.result.trust.level,
            codes: self.codes(TrustLevel::Caution),
            trials: self.side.trials.len(),
        })
    }

    pub(super) fn as_ceiling(&self) -> Ceiling {
        Ceiling {
            load: self.side.result.load.clone(),
            level: self.side.result.level.clone(),
            sure: self.judged.is_sure,
        }
    }
}

/// Over the requests of all trials. One that was ended because its queue grew without end met nothing that would last.
fn judge(slo: &Slo, side: &Side<'_>) -> Judgement {
    if side.trials.iter().any(|t| t.facts.oversaturated_at.is_some()) {
        return Judgement { holds: false, is_sure: true };
    }
    let records = || side.trials.iter().flat_map(|t| &t.records);
    let judged = slo.judge(&slo.bounds.iter().map(|b| b.tally(records())).collect::<Vec<_>>());
    Judgement { is_sure: judged.is_sure && !may_be_another(side.result), ..judged }
}

/// Completed requests a second: by the spread of the bring-ups or trials where there are enough, else by what runs
/// usually differ by, which is an assumption.
fn sustained(side: &Side<'_>) -> Option<Estimate> {
    let point = side.result.value("rps").filter(|r| *r > 0.0)?;
    let told = draws::of_one(side, TRIALS_FOR_SPREAD).and_then(|unit| {
        let values = unit.means("rps", side, Some)?;
        Some((mean_error(&values)?, values.len(), unit.name()))
    });
    let (low, high, method) = if let Some(((error, freedom), n, units)) = told {
        let half = t_975(freedom) * error;
        // What half of it would be is no rate at all, and no copies carry that.
        let low = (point - half).max(point * 0.5);
        (low, point + half, format!("Student over {n} {units}"))
    } else {
        let unseen = RunToRun::of(metrics::find("rps")?, "mean", &[side]);
        let most = 1.0 + unseen.share;
        (point / most, point * most, unseen.in_words(TRIALS_FOR_SPREAD))
    };
    Some(Estimate { point, low, high, confidence: 0.95, method })
}
