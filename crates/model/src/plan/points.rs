//! From runs and loads to points: one deployment under one load level, `trials` times.

use super::workloads::workload;
use super::{Level, Mode, PointPlan, Role, TrialPlan};
use crate::arrival::{ArrivalKind, ArrivalRate, RateProfile};
use crate::driver::{Cancellation, LoadShape, PhasePlan, SessionPlan, Think, Turns, Window};
use crate::request::Phase;
use crate::search::{SearchPlan, counts, rates};
use crate::slo::Slo;
use crate::spec::{ArrivalSpec, Experiment, LoadSpec, Problem, SearchEnd, SearchSpec, ThinkSpec};
use crate::units::{Nanos, significant};
use crate::workload::{Source, Workload, derive_seed};

/// Time-out of a load that gives none.
pub(crate) const DEFAULT_TIMEOUT: Nanos = Nanos::from_secs(600);

/// A deployment as the points see it.
pub(crate) struct Target<'a> {
    pub(crate) name: &'a str,
    pub(crate) roles: &'a [Role],
    pub(crate) entries: u16,
    pub(crate) balance: crate::driver::Balance,
}

/// One level of one load at one deployment, as `[[run]]` names it.
struct Asked<'a> {
    path: String,
    deploy: &'a str,
    load: &'a LoadSpec,
    concurrency: Option<u32>,
    rate_rps: Option<f64>,
}

/// What is measured: points in the order of execution, by deployment, then as the file has them; and
/// searches in the same order.
#[derive(Default)]
pub(crate) struct Measurements {
    pub(crate) points: Vec<PointPlan>,
    pub(crate) searches: Vec<SearchPlan>,
}

impl Measurements {
    /// Two [[run]] tables may name the same point; it is measured once.
    fn add(&mut self, points: Vec<PointPlan>) {
        for point in points {
            if !self.points.iter().any(|p| p.id == point.id) {
                self.points.push(point);
            }
        }
    }

    fn add_search(&mut self, search: SearchPlan) {
        let same = |s: &SearchPlan| s.deployment == search.deployment && s.load == search.load;
        if !self.searches.iter().any(same) {
            self.searches.push(search);
        }
    }
}

/// Everything that `experiment` asks of `targets`.
pub(crate) fn measurements(
    experiment: &Experiment,
    targets: &[Target<'_>],
) -> Result<Measurements, Vec<Problem>> {
    let mut problems = Vec::new();
    let asked = asked(experiment, &mut problems);
    let mut all = Measurements::default();
    for target in targets {
        for ask in asked.iter().filter(|a| a.deploy == target.name) {
            let added = match ask.load.search {
                Some(search) => {
                    search_of(experiment, ask, target, search).map(|new| all.add_search(new))
                }
                None => points_of(experiment, ask, target).map(|new| all.add(new)),
            };
            if let Err(problem) = added
                && !problems.contains(&problem)
            {
                problems.push(problem);
            }
        }
    }
    if problems.is_empty() { Ok(all) } else { Err(problems) }
}

fn search_of(
    experiment: &Experiment,
    ask: &Asked<'_>,
    target: &Target<'_>,
    search: SearchSpec,
) -> Result<SearchPlan, Problem> {
    if ask.concurrency.is_some() || ask.rate_rps.is_some() {
        return Err(Problem::new(
            ask.path.clone(),
            format!("the point gives a level, but load '{}' searches one", ask.load.name),
            "leave it out, or name a load without 'search'",
        ));
    }
    let slo = ask.load.slo.as_ref().and_then(|texts| Slo::parse(&texts.0).ok());
    let slo = slo.ok_or_else(|| missing(ask, "'slo' to search for", "add slo = \"ttft <= 1s\""))?;
    Ok(SearchPlan {
        deployment: target.name.to_owned(),
        load: ask.load.name.clone(),
        slo,
        precision: search.precision(),
        tries: search.tries(),
        probes: search.probes(),
        time: search.time.map(|t| t.0),
        levels: points_of(experiment, ask, target)?,
    })
}

fn asked<'a>(experiment: &'a Experiment, problems: &mut Vec<Problem>) -> Vec<Asked<'a>> {
    let mut out = Vec::new();
    let load = |name: &str| experiment.load.iter().enumerate().find(|(_, l)| l.name == name);
    if experiment.run.is_empty() {
        for (_, deploy) in experiment.deployments() {
            for (i, load) in experiment.load.iter().enumerate() {
                let path = format!("load[{i}]");
                out.push(Asked {
                    path,
                    deploy: &deploy.name,
                    load,
                    concurrency: None,
                    rate_rps: None,
                });
            }
        }
        return out;
    }
    for (r, run) in experiment.run.iter().enumerate() {
        for deploy in &run.deploy {
            for (i, load) in run.load.iter().filter_map(|name| load(name)) {
                let path = format!("load[{i}]");
                out.push(Asked { path, deploy, load, concurrency: None, rate_rps: None });
            }
        }
        for (a, at) in run.at.iter().enumerate() {
            let path = format!("run[{r}].at[{a}]");
            let name = at.load.as_ref().or(match run.load.as_slice() {
                [only] => Some(only),
                _ => None,
            });
            let Some(name) = name else {
                problems.push(Problem::new(
                    path,
                    "the point does not say which load",
                    "add load = \"..\" to it, or name exactly one load in this [[run]]",
                ));
                continue;
            };
            if let Some((_, load)) = load(name) {
                let rate_rps = at.rate.map(|r| r.0);
                let (deploy, concurrency) = (at.deploy.as_str(), at.concurrency);
                out.push(Asked { path, deploy, load, concurrency, rate_rps });
            }
        }
    }
    out
}

fn points_of(
    experiment: &Experiment,
    ask: &Asked<'_>,
    target: &Target<'_>,
) -> Result<Vec<PointPlan>, Problem> {
    let spec = experiment.workload.iter().find(|w| w.name == ask.load.workload);
    let Some(spec) = spec else { return Ok(Vec::new()) };
    let workload = workload(experiment, spec);
    let mut points = Vec::new();
    for (ordinal, level) in levels(ask, target)?.into_iter().enumerate() {
        points.push(point(ask, target, level, ordinal as u64, workload.clone())?);
    }
    Ok(points)
}

fn missing(ask: &Asked<'_>, what: &str, hint: &str) -> Problem {
    let mode = ask.load.mode.unwrap_or_default().name();
    Problem::new(
        ask.path.clone(),
        format!("load '{}' is in {mode} mode and has no {what}", ask.load.name),
        hint,
    )
}

fn levels(ask: &Asked<'_>, target: &Target<'_>) -> Result<Vec<Level>, Problem> {
    let load = ask.load;
    let level = |label: String| Level { label, concurrency: None, rate_rps: None, batch: None };
    let by_concurrency = |c: u32| Level { concurrency: Some(c), ..level(format!("c{c}")) };
    let by_rate = |r: f64| Level { rate_rps: Some(r), ..level(format!("r{}", rate_label(r))) };
    if let Some(search) = load.search {
        let precision = search.precision();
        return Ok(match (search.from, search.to) {
            (SearchEnd::Concurrency(from), SearchEnd::Concurrency(to)) => {
                counts(from, to, precision).into_iter().map(by_concurrency).collect()
            }
            (from, to) => {
                rates(from.value(), to.value(), precision).into_iter().map(by_rate).collect()
            }
        });
    }
    Ok(match load.mode.unwrap_or_default() {
        Mode::Serial => vec![by_concurrency(1)],
        Mode::Burst => {
            let n = load.requests.and_then(|r| r.of(None));
            let n = n.ok_or_else(|| missing(ask, "number of requests", "add requests = 100"))?;
            let concurrency = u32::try_from(n).ok();
            vec![Level { concurrency, ..level(format!("n{n}")) }]
        }
        Mode::Batch => {
            let batches = load.batch.as_ref();
            let batches = batches.ok_or_else(|| missing(ask, "batch", "add batch = 8"))?;
            let of =
                |b: &u32| Level { batch: Some(*b), concurrency: Some(1), ..level(format!("b{b}")) };
            batches.0.iter().map(of).collect()
        }
        Mode::Open => {
            if let Some(label) = label_without_rate(ask)? {
                return Ok(vec![level(label)]);
            }
            let rates = ask.rate_rps.map(|r| vec![r]).or(load.rate.as_ref().map(|r| r.0.clone()));
            let rates =
                rates.ok_or_else(|| missing(ask, "rate", "add rate = \"5/s\", or a 'profile'"))?;
            rates.into_iter().map(by_rate).collect()
        }
        Mode::Closed => closed_levels(ask, target)?.into_iter().map(by_concurrency).collect(),
    })
}

/// The label of an open load that is not described by one rate.
fn label_without_rate(ask: &Asked<'_>) -> Result<Option<String>, Problem> {
    let load = ask.load;
    let (label, what) = if load.arrival == Some(ArrivalSpec::Trace) {
        let speed = load.speed.unwrap_or(1.0);
        (format!("trace-x{}", rate_label(speed)), "replays a trace")
    } else if let Some(profile) = &load.profile {
        let label = match profile.resolved() {
            RateProfile::Ramp { from_rps, to_rps, .. } => {
                format!("ramp{}-{}", rate_label(from_rps), rate_label(to_rps))
            }
            RateProfile::Steps { steps } => format!("steps{}", steps.len()),
            RateProfile::Sine { mean_rps, .. } => format!("sine{}", rate_label(mean_rps)),
        };
        (label, "has a rate that changes over time ('profile')")
    } else {
        return Ok(None);
    };
    if ask.rate_rps.is_some() {
        return Err(Problem::new(
            ask.path.clone(),
            format!("the point gives a rate, but load '{}' {what}", load.name),
            "leave the point's 'rate' out, or name a load that takes one",
        ));
    }
    Ok(Some(label))
}

fn closed_levels(ask: &Asked<'_>, target: &Target<'_>) -> Result<Vec<u32>, Problem> {
    if let Some(c) = ask.concurrency {
        return Ok(vec![c]);
    }
    if let Some(levels) = &ask.load.concurrency {
        return Ok(levels.0.clone());
    }
    if let Some(each) = ask.load.concurrency_per_replica {
        // Users meet a replica where answers come from; a prefill worker is not one.
        let replicas = target.roles.iter().filter(|r| **r != Role::Prefill).count();
        return Ok(vec![each.saturating_mul(u32::try_from(replicas).unwrap_or(u32::MAX))]);
    }
    Err(missing(
        ask,
        "concurrency",
        "add concurrency = 8, concurrency_per_replica, or points with [[run]] at = [..]",
    ))
}

fn rate_label(rate: f64) -> String {
    if (rate - rate.round()).abs() < 1e-9 { format!("{rate:.0}") } else { significant(rate) }
}

fn point(
    ask: &Asked<'_>,
    target: &Target<'_>,
    level: Level,
    ordinal: u64,
    workload: Workload,
) -> Result<PointPlan, Problem> {
    let load = ask.load;
    let requests =
        match load.requests {
            None => None,
            Some(count) => Some(count.of(level.concurrency).ok_or_else(|| {
                missing(ask, "concurrency to multiply", "give requests as a number")
            })?),
        };
    let duration = load.duration.map(|d| d.0);
    let load_seed = derive_seed(&[workload.seed, ordinal]);
    let think = load.think.map(|think| match think {
        ThinkSpec::Fixed(span) => Think::Fixed { span: span.0 },
        ThinkSpec::Exponential(mean) => {
            Think::Exponential { mean: mean.0, seed: derive_seed(&[load_seed, 4]) }
        }
    });
    // Of sessions it is the user who thinks, between turns; a slot takes the next session at once.
    let sessions = matches!(workload.source, Source::Sessions { .. }).then(|| SessionPlan {
        think,
        sticky: load.sticky.unwrap_or(true),
        turns: Turns::default(),
    });
    let slots_think = think.filter(|_| sessions.is_none());
    let shape = shape(load, &level, load_seed, slots_think);
    if requests.is_none() && duration.is_none() && !ends_by_itself(&shape) {
        return Err(missing(ask, "end", "add requests = 100 or duration = \"60s\""));
    }
    let id = format!("{}/{}/{}", target.name, load.name, level.label);
    let seed = derive_seed(&[workload.seed, ordinal, 3]);
    let measure = PhasePlan {
        phase: Phase::Measure,
        shape,
        requests,
        duration,
        timeout: load.timeout.map_or(DEFAULT_TIMEOUT, |t| t.0),
        targets: target.entries,
        balance: target.balance,
        cancel: load.cancel.map(|c| Cancellation { share: c.share, after: c.after.0, seed }),
        max_prefill: load.max_prefill,
        sessions,
    };
    let repeats = load.search.map_or(load.repeats.unwrap_or(1), |search| search.tries());
    let trial = |number: u32| TrialPlan {
        number,
        warmup_seed: derive_seed(&[ordinal, u64::from(number), 1]),
        measure_seed: derive_seed(&[ordinal, u64::from(number), 2]),
    };
    Ok(PointPlan {
        id,
        deployment: target.name.to_owned(),
        load: load.name.clone(),
        mode: load.mode.unwrap_or_default(),
        batch: level.batch.unwrap_or(1),
        level,
        workload,
        warmup: load.warmup.filter(|n| *n > 0).map(|n| warmup(&measure, n)),
        measure,
        pause: load.pause.map_or(Nanos::ZERO, |p| p.0),
        stop_oversaturated: load.stop_oversaturated.unwrap_or_else(|| searches_rate(load)),
        // Of a checked file; what cannot be read was told there.
        slo: load.slo.as_ref().and_then(|texts| Slo::parse(&texts.0).ok()),
        trials: (1..=repeats).map(trial).collect(),
    })
}

/// Beyond capacity a search learns nothing from a longer queue. A cap would hide it from the rule.
fn searches_rate(load: &LoadSpec) -> bool {
    load.search.is_some() && load.mode == Some(Mode::Open) && load.concurrency.is_none()
}

fn shape(load: &LoadSpec, level: &Level, seed: u64, think: Option<Think>) -> LoadShape {
    let max_in_flight = || load.concurrency.as_ref().and_then(|c| c.0.first().copied());
    match (load.mode.unwrap_or_default(), load.arrival.unwrap_or_default()) {
        (Mode::Burst, _) => LoadShape::Burst,
        (Mode::Open, ArrivalSpec::Trace) => LoadShape::Replay {
            speed: load.speed.unwrap_or(1.0),
            window: load.window.map_or_else(Window::default, Window::from),
            due: std::sync::Arc::default(),
            max_in_flight: max_in_flight(),
        },
        (Mode::Open, arrival) => LoadShape::Open {
            arrival: match arrival {
                ArrivalSpec::Constant => ArrivalKind::Constant,
                ArrivalSpec::Gamma => {
                    ArrivalKind::Gamma { burstiness: load.burstiness.unwrap_or(1.0) }
                }
                ArrivalSpec::Poisson | ArrivalSpec::Trace => ArrivalKind::Poisson,
            },
            rate_rps: match &load.profile {
                Some(profile) => ArrivalRate::Profile(profile.resolved()),
                None => ArrivalRate::Constant(level.rate_rps.unwrap_or(1.0)),
            },
            seed,
            max_in_flight: max_in_flight(),
        },
        (Mode::Closed | Mode::Serial | Mode::Batch, _) => LoadShape::Closed {
            concurrency: level.concurrency.unwrap_or(1),
            ramp_up: load.ramp_up.map(|d| d.0),
            think,
        },
    }
}

/// Whether a load comes to its end without being told how much or how long.
fn ends_by_itself(shape: &LoadShape) -> bool {
    match shape {
        LoadShape::Open { rate_rps, .. } => rate_rps.ends_at().is_some(),
        LoadShape::Replay { .. } => true,
        LoadShape::Burst | LoadShape::Closed { .. } => false,
    }
}

/// The warm-up meets the deployment as the load will, but in a closed loop where the load is a
/// schedule, and without pauses: it is there to fill caches, neither to queue nor to wait.
fn warmup(measure: &PhasePlan, requests: u64) -> PhasePlan {
    let shape = match &measure.shape {
        LoadShape::Open { .. } | LoadShape::Replay { .. } => {
            LoadShape::closed(u32::try_from(requests.min(8)).unwrap_or(8))
        }
        LoadShape::Closed { concurrency, .. } => LoadShape::closed(*concurrency),
        LoadShape::Burst => LoadShape::Burst,
    };
    PhasePlan {
        phase: Phase::Warmup,
        shape,
        requests: Some(requests),
        duration: None,
        cancel: None,
        sessions: measure.sessions.clone().map(|s| SessionPlan { think: None, ..s }),
        ..measure.clone()
    }
}
