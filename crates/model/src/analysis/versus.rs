//! One deployment of a run against one of the same or another run, on the loads that both met; of several runs a side,
//! their trials taken together.
//!
//! **Invariant:** what differs between the two is found before any number. Sides that were not asked the same are
//! not compared, unless that is forced, and then every number is marked.

use super::MeasuredPoint;
use super::compare::draws::missed;
use super::compare::{Side, family, names};
use crate::plan::{DeploymentPlan, Plan};
use crate::ran::Ran;
use crate::request::RequestRecord;
use crate::results::{Comparison, ComparisonVerdict, Drawn, PointResult, Results};
use crate::trust::TrustLevel;
use serde::Serialize;

pub(super) mod provenance;
mod side;

use side::Pooled;

/// Version of the form of `compare --json`.
pub const COMPARE_FORMAT: u32 = 1;

/// A deployment of a run.
#[derive(Debug, Clone, Copy)]
pub struct Contender<'a> {
    /// Its name.
    pub deployment: &'a str,
    /// The plan of its run.
    pub plan: &'a Plan,
    /// The records of its run.
    pub measured: &'a [MeasuredPoint<'a>],
    /// What is said of its run.
    pub results: &'a Results,
    /// The version of scalebeam that measured it.
    pub tool: &'a str,
}

impl<'a> Contender<'a> {
    pub(super) fn deployed(&self) -> Option<&'a DeploymentPlan> {
        self.plan.deployment(self.deployment)
    }

    /// As it really was: every form that it had in the run.
    fn ran(&self) -> impl Iterator<Item = &'a Ran> {
        let name = self.deployment;
        self.results.ran.iter().filter(move |ran| ran.deployment == name)
    }

    /// Whether both are one deployment of one run, whatever each is called. Runs that two machines began in the same
    /// second may have one name; the requests of two runs are never of the same nanoseconds.
    fn is_same(&self, other: &Contender<'_>) -> bool {
        fn records<'b>(of: &Contender<'b>) -> impl Iterator<Item = &'b RequestRecord> {
            let (name, measured) = (of.deployment, of.measured);
            let own = measured.iter().filter(move |m| m.plan.deployment == name);
            own.flat_map(|m| &m.trials).flat_map(|t| &t.records)
        }
        let is_one_name = self.results.run == other.results.run;
        self.deployment == other.deployment
            && (is_one_name || records(self).next().is_some())
            && records(self).eq(records(other))
    }

    /// What was asked for of it and measured, searches apart.
    fn sides(&self) -> impl Iterator<Item = Side<'a>> {
        let Self { deployment, plan, measured, results, .. } = *self;
        let own = measured.iter().filter(move |m| m.plan.deployment == deployment);
        own.filter_map(move |m| {
            let is_same = |r: &&PointResult| {
                r.deployment == deployment
                    && r.load == m.plan.load
                    && r.level == m.plan.level.label
                    && !r.is_probe
            };
            let result = results.points.iter().find(is_same)?;
            Some(Side { result, trials: &m.trials, point: m.plan, plan, class: None })
        })
    }
}

/// How it is compared.
#[derive(Debug, Clone, Default)]
pub struct Asked<'a> {
    /// Differences below this, relative, do not matter.
    pub margin: Option<f64>,
    /// The metrics; empty for those of every verdict.
    pub metrics: Vec<&'a str>,
    /// Compare what was not asked the same, too.
    pub force: bool,
}

/// Said where there are too few of the larger ones.
const fn not_held(missed: Drawn) -> &'static str {
    match missed {
        Drawn::Runs => {
            "what differs from one run to the next, since a side has only one: two or more runs a side measure it"
        }
        Drawn::BringUps | Drawn::Trials => {
            "what differs from one bring-up to the next, since there are too few of them: interleave = \"bring-ups\" \
             in the file, or several runs a side, measures it"
        }
    }
}

/// Who is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Contestant {
    /// Run id; of several, the first.
    pub run: String,
    /// The others that are taken together with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<String>,
    /// Name of the experiment.
    pub experiment: String,
    /// Deployment name.
    pub deployment: String,
    /// Its run, or one of them, was cut short.
    pub incomplete: bool,
}

/// Something that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Difference {
    /// What it is: `engine version`.
    pub what: String,
    /// Of the first.
    pub a: String,
    /// Of the second.
    pub b: String,
}

/// Something that is not known of a side, so that nobody can say that it is the same on both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct NotKnown {
    /// What it is.
    pub what: String,
    /// Why.
    pub why: String,
}

/// How many things differ between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// Nothing, and everything that is looked at is known.
    Nothing,
    /// One, as far as is known: a difference of numbers is its effect, or chance.
    Single,
    /// Several: a difference of numbers cannot be laid to one of them.
    Several,
    /// Nothing that is known, but not everything is known.
    Unknown,
}

/// One level of a load that both met.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Matched {
    /// Load name.
    pub load: String,
    /// Level label.
    pub level: String,
    /// Trials of each.
    pub trials: (usize, usize),
    /// Runs that these are of.
    pub runs: (usize, usize),
    /// How far the numbers of each can be relied on.
    pub trust: (TrustLevel, TrustLevel),
    /// Why not wholly, each with its side.
    pub reasons: Vec<String>,
    /// What was not asked the same of both; only where it was forced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlike: Vec<Difference>,
    /// The second against the first, metric by metric: one family.
    pub comparisons: Vec<Comparison>,
    /// What is in no interval although it could be, and how to measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_held: Option<String>,
    /// Metrics that were asked for and of which a side has no value, or no ratio can be made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<String>,
}

/// The second against the first.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Versus {
    /// [`COMPARE_FORMAT`].
    pub format: u32,
    /// The baseline.
    pub a: Contestant,
    /// What is held against it.
    pub b: Contestant,
    /// Differences below this, relative, do not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// How many things differ.
    pub provenance: Provenance,
    /// What differs.
    pub differences: Vec<Difference>,
    /// What may differ.
    pub not_known: Vec<NotKnown>,
    /// Sides that were not asked the same are compared all the same.
    pub forced: bool,
    /// The levels that both met, in the order of the first.
    pub points: Vec<Matched>,
    /// Levels that only one of them met, `load/level`.
    pub unmatched: Vec<String>,
    /// Levels that not every run of a side met, a sentence each: the others are in no number of that level.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

impl Versus {
    /// The JSON schema of the form.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// Every comparison.
    pub fn comparisons(&self) -> impl Iterator<Item = &Comparison> {
        self.points.iter().flat_map(|p| &p.comparisons)
    }

    /// Whether the second is worse in anything.
    pub fn has_regression(&self) -> bool {
        self.comparisons().any(|c| c.verdict == ComparisonVerdict::Worse)
    }

    /// Whether they differ in anything.
    pub fn has_difference(&self) -> bool {
        let is_one = |v| matches!(v, ComparisonVerdict::Worse | ComparisonVerdict::Better);
        self.comparisons().any(|c| is_one(c.verdict))
    }

    /// Whether every number can be relied on.
    pub fn is_trusted(&self) -> bool {
        let is_sure = |level: TrustLevel| level < TrustLevel::Invalid;
        self.points.iter().all(|p| is_sure(p.trust.0) && is_sure(p.trust.1))
    }
}

/// Why two are not compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotComparable {
    /// They were not asked the same.
    #[error("{} and {} were not asked the same: {}", .names.0, .names.1, listed(.unlike))]
    Unlike {
        /// Their names.
        names: (String, String),
        /// In what.
        unlike: Vec<Difference>,
    },
    /// Runs of one side are not repeats of one thing.
    #[error("runs {} and {} of {side} are no repeats of one thing: {}", .runs.0, .runs.1, listed(.unlike))]
    NoRepeats {
        /// Of which side.
        side: &'static str,
        /// Their ids.
        runs: (String, String),
        /// In what they differ.
        unlike: Vec<Difference>,
    },
    /// A run is no repeat of itself.
    #[error("run {run} is there twice on side {side}: every request of it is in another run too")]
    Twice {
        /// Of which side.
        side: &'static str,
        /// Its id.
        run: String,
    },
    /// A run is no other than itself.
    #[error("{deployment} of run {run} is on both sides")]
    Itself {
        /// Its id.
        run: String,
        /// The deployment of it.
        deployment: String,
    },
    /// They met no load in common.
    #[error("{} and {} met no level of a load in common: the first {}, the second {}", .names.0, .names.1, levels(.met, 0), levels(.met, 1))]
    NothingInCommon {
        /// Their names.
        names: (String, String),
        /// `load/level` of each.
        met: [Vec<String>; 2],
    },
}

pub(super) fn listed(unlike: &[Difference]) -> String {
    let one = |d: &Difference| format!("{} ({} and {})", d.what, d.a, d.b);
    unlike.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn levels(met: &[Vec<String>; 2], side: usize) -> String {
    match met[side].as_slice() {
        [] => "met none".to_owned(),
        levels => format!("met {}", levels.join(", ")),
    }
}

/// `b` against `a`, each one run or several that are repeats of one thing. Without a run on a side nothing is met.
///
/// # Errors
/// When a run is on both sides, they met no load in common, or were not asked the same, or the runs of a side are no repeats, and it is not
/// forced.
pub fn versus(
    a: &[Contender<'_>],
    b: &[Contender<'_>],
    asked: &Asked<'_>,
) -> Result<Versus, NotComparable> {
    let within = [side::repeats("A", a, asked)?, side::repeats("B", b, asked)?].concat();
    if let Some(both) = a.iter().find(|x| b.iter().any(|y| x.is_same(y))) {
        let (run, deployment) = (both.results.run.clone(), both.deployment.to_owned());
        return Err(NotComparable::Itself { run, deployment });
    }
    let (of_a, of_b) = (side::pooled(a, asked), side::pooled(b, asked));
    let (Some((first_a, more_a)), Some((first_b, more_b))) = (a.split_first(), b.split_first())
    else {
        return Err(nothing_in_common(("A".to_owned(), "B".to_owned()), &of_a, &of_b));
    };
    let partner = |x: &Pooled<'_>| of_b.iter().find(|y| is_met_by(&x.side(), &y.side()));
    let pairs: Vec<(&Pooled<'_>, &Pooled<'_>)> =
        of_a.iter().filter_map(|x| Some((x, partner(x)?))).collect();
    let names = (first_a.deployment.to_owned(), first_b.deployment.to_owned());
    if pairs.is_empty() {
        return Err(nothing_in_common(names, &of_a, &of_b));
    }
    let mut unlike = provenance::unlike(first_a, first_b);
    unlike.extend(provenance::unlike_currencies(first_a, first_b, &asked.metrics));
    let of_points: Vec<Vec<Difference>> =
        pairs.iter().map(|(x, y)| provenance::unlike_points(&x.side(), &y.side())).collect();
    let is_unlike = !unlike.is_empty() || of_points.iter().any(|d| !d.is_empty());
    if is_unlike && !asked.force {
        unlike.extend(of_points.concat());
        return Err(NotComparable::Unlike { names, unlike });
    }
    let marked = [within.clone(), unlike.clone()].concat();
    let differences =
        [unlike, of_points.concat(), provenance::differences(first_a, first_b)].concat();
    let not_known = provenance::not_known(a, b);
    let of_points = of_points.into_iter().map(|unlike| [marked.clone(), unlike].concat());
    let are_of_one_run = [a, b].concat().iter().all(|c| c.results.run == first_a.results.run);
    let point = |(pair, unlike): (&(&Pooled<'_>, &Pooled<'_>), Vec<Difference>)| {
        matched(*pair, are_of_one_run, unlike, asked)
    };
    Ok(Versus {
        format: COMPARE_FORMAT,
        a: contestant(first_a, more_a),
        b: contestant(first_b, more_b),
        margin: asked.margin,
        provenance: judged(&differences, &not_known),
        differences,
        not_known,
        forced: is_unlike || !within.is_empty(),
        unmatched: unmatched(&of_a, &of_b),
        without: [without("A", a, &of_a), without("B", b, &of_b)].concat(),
        points: pairs.iter().zip(of_points).map(point).collect(),
    })
}

fn nothing_in_common(names: (String, String), a: &[Pooled<'_>], b: &[Pooled<'_>]) -> NotComparable {
    let met = |of: &[Pooled<'_>]| of.iter().map(|x| place(&x.side())).collect();
    NotComparable::NothingInCommon { names, met: [met(a), met(b)] }
}

/// Levels that only one of them met.
fn unmatched(a: &[Pooled<'_>], b: &[Pooled<'_>]) -> Vec<String> {
    let alone = |of: &[Pooled<'_>], others: &[Pooled<'_>]| -> Vec<String> {
        let is_met = |x: &Pooled<'_>| others.iter().any(|y| is_met_by(&x.side(), &y.side()));
        of.iter().filter(|x| !is_met(x)).map(|x| place(&x.side())).collect()
    };
    [alone(a, b), alone(b, a)].concat()
}

/// Which of the `runs` of the side called `name` did not meet which level of it.
fn without(name: &str, runs: &[Contender<'_>], met: &[Pooled<'_>]) -> Vec<String> {
    let of_level = |level: &Pooled<'_>| {
        let level = level.side();
        let has = |run: &&Contender<'_>| run.sides().any(|side| is_met_by(&side, &level));
        let without: Vec<&str> =
            runs.iter().filter(|run| !has(run)).map(|run| run.results.run.as_str()).collect();
        (!without.is_empty())
            .then(|| format!("{name}: {} was not met by {}", place(&level), without.join(", ")))
    };
    met.iter().filter_map(of_level).collect()
}

fn is_met_by(x: &Side<'_>, y: &Side<'_>) -> bool {
    x.result.load == y.result.load && x.result.level == y.result.level
}

fn place(side: &Side<'_>) -> String {
    format!("{}/{}", side.result.load, side.result.level)
}

fn contestant(of: &Contender<'_>, more: &[Contender<'_>]) -> Contestant {
    Contestant {
        run: of.results.run.clone(),
        more: more.iter().map(|c| c.results.run.clone()).collect(),
        experiment: of.results.name.clone(),
        deployment: of.deployment.to_owned(),
        incomplete: of.results.incomplete || more.iter().any(|c| c.results.incomplete),
    }
}

fn judged(differences: &[Difference], not_known: &[NotKnown]) -> Provenance {
    match (differences.len(), not_known.is_empty()) {
        (0, true) => Provenance::Nothing,
        (0, false) => Provenance::Unknown,
        (1, _) => Provenance::Single,
        _ => Provenance::Several,
    }
}

fn matched(
    (x, y): (&Pooled<'_>, &Pooled<'_>),
    are_of_one_run: bool,
    unlike: Vec<Difference>,
    asked: &Asked<'_>,
) -> Matched {
    let (a, b) = (&x.side(), &y.side());
    let metrics = if asked.metrics.is_empty() { names(&[]) } else { asked.metrics.clone() };
    let reasons = |name: &str, side: &Side<'_>| -> Vec<String> {
        let grave = side.result.trust.reasons.iter().filter(|r| r.level > TrustLevel::Sound);
        grave.map(|r| format!("{name}: {} ({}): {}", r.level.name(), r.code, r.message)).collect()
    };
    let comparisons = family(&metrics, b, a, asked.margin);
    let is_there = |name: &str| comparisons.iter().any(|c| c.metric == name);
    let absent = asked.metrics.iter().filter(|name| !is_there(name));
    Matched {
        load: a.result.load.clone(),
        level: a.result.level.clone(),
        trials: (a.trials.len(), b.trials.len()),
        runs: (x.runs, y.runs),
        trust: (a.result.trust.level, b.result.trust.level),
        reasons: [reasons("A", a), reasons("B", b)].concat(),
        unlike,
        not_held: missed(a, b, are_of_one_run).map(|of| not_held(of).to_owned()),
        absent: absent.map(|name| (*name).to_owned()).collect(),
        comparisons,
    }
}
