//! Instances of a deployment and the GPUs they sit on.

use super::{DpBalance, HostGpus, InstancePlan, Platform, Role};
use crate::engine::{Engine, ParamSpec, Params};
use crate::spec::place::{find_host, host_names, parse_place};
use crate::spec::{Deploy, Host, Pool, Problem};
use std::collections::{BTreeMap, BTreeSet};

/// The name of this machine in a file without hosts.
pub(crate) const THIS_MACHINE: &str = "localhost";

/// One instance before ports and commands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    pub(crate) role: Role,
    pub(crate) tp: u32,
    pub(crate) pp: u32,
    pub(crate) dp: u32,
    pub(crate) dp_balance: Option<DpBalance>,
    pub(crate) ep: Option<u32>,
    pub(crate) place: Vec<HostGpus>,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
}

impl Shape {
    fn gpus(&self) -> u32 {
        self.tp.saturating_mul(self.pp).saturating_mul(self.dp)
    }

    pub(crate) fn spans_hosts(&self) -> bool {
        self.place.len() > 1
    }

    /// The instance number `index` of a plan, without a port.
    pub(crate) fn instance(&self, index: u32) -> InstancePlan {
        InstancePlan {
            index,
            role: self.role,
            tp: self.tp,
            pp: self.pp,
            dp: self.dp,
            dp_balance: self.dp_balance,
            ep: self.ep,
            place: self.place.clone(),
            port: 0,
        }
    }
}

/// Like instances, from the deployment itself or from one of its pools.
struct Group<'a> {
    path: String,
    count_key: &'static str,
    role: Role,
    count: u32,
    degrees: [Option<u32>; 4],
    dp_balance: Option<DpBalance>,
    place: Option<&'a [String]>,
    args: Vec<String>,
    env: BTreeMap<String, String>,
}

/// All instances of the deployment at `deploy[index]`, or what is wrong with it.
pub(crate) fn shapes(
    index: usize,
    deploy: &Deploy,
    hosts: &BTreeMap<String, Host>,
    engine: &dyn Engine,
    platform: Platform,
) -> Result<Vec<Shape>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut shapes = Vec::new();
    let mut taken = Taken::default();
    for group in groups(index, deploy, &mut problems) {
        expand(&group, hosts, engine, platform, &mut taken, &mut shapes, &mut problems);
    }
    check_spanning(index, deploy, engine, platform, &shapes, &mut problems);
    if problems.is_empty() { Ok(shapes) } else { Err(problems) }
}

fn groups<'a>(index: usize, deploy: &'a Deploy, problems: &mut Vec<Problem>) -> Vec<Group<'a>> {
    let base = deploy.args.clone().unwrap_or_default();
    if deploy.pool.is_empty() {
        return vec![Group {
            path: format!("deploy[{index}]"),
            count_key: "replicas",
            role: Role::Aggregated,
            count: deploy.replicas.unwrap_or(1),
            degrees: [deploy.tp, deploy.pp, deploy.dp, deploy.ep],
            dp_balance: deploy.dp_balance,
            place: deploy.place.as_deref(),
            args: base,
            env: deploy.env.clone(),
        }];
    }
    for (key, given) in [
        ("tp", deploy.tp.is_some()),
        ("pp", deploy.pp.is_some()),
        ("dp", deploy.dp.is_some()),
        ("dp_balance", deploy.dp_balance.is_some()),
        ("replicas", deploy.replicas.is_some()),
        ("place", deploy.place.is_some()),
    ] {
        if given {
            problems.push(Problem::new(
                format!("deploy[{index}].{key}"),
                format!("'{key}' has no meaning beside [[deploy.pool]]"),
                format!("move '{key}' into the pools"),
            ));
        }
    }
    let pool_group = |(i, pool): (usize, &'a Pool)| {
        let mut env = deploy.env.clone();
        env.extend(pool.env.clone());
        Group {
            path: format!("deploy[{index}].pool[{i}]"),
            count_key: "workers",
            role: pool.role,
            count: pool.workers,
            degrees: [pool.tp, pool.pp, pool.dp, pool.ep],
            dp_balance: None,
            place: pool.place.as_deref(),
            args: merge_args(&base, pool.args.as_deref().unwrap_or_default()),
            env,
        }
    };
    deploy.pool.iter().enumerate().map(pool_group).collect()
}

/// `over` after `base`, without those flags of `base` that `over` gives again.
pub(crate) fn merge_args(base: &[String], over: &[String]) -> Vec<String> {
    let given: BTreeSet<&str> = over.iter().filter_map(|a| flag_name(a)).collect();
    let mut out = Vec::new();
    let mut dropping = false;
    for arg in base {
        // A value belongs to the flag before it.
        if let Some(name) = flag_name(arg) {
            dropping = given.contains(name);
        }
        if !dropping {
            out.push(arg.clone());
        }
    }
    out.extend(over.iter().cloned());
    out
}

/// `--flag` of `--flag` or `--flag=value`; nothing for a value. A negative number is a value.
pub(crate) fn flag_name(arg: &str) -> Option<&str> {
    let name = arg.split('=').next()?;
    let is_flag = name.len() > 1 && name.starts_with('-') && name.parse::<f64>().is_err();
    is_flag.then_some(name)
}

#[derive(Default)]
struct Taken(BTreeMap<(String, u32), String>);

impl Taken {
    /// Takes the GPUs of `place`; the first that is taken already, and by what.
    fn take(&mut self, place: &[HostGpus], by: &str) -> Option<(String, u32, String)> {
        let ids = place.iter().flat_map(|p| p.ids.iter().map(|id| (p.host.clone(), *id)));
        for (host, id) in ids {
            if let Some(other) = self.0.insert((host.clone(), id), by.to_owned()) {
                return Some((host, id, other));
            }
        }
        None
    }

    fn is_free(&self, host: &str, id: u32) -> bool {
        !self.0.contains_key(&(host.to_owned(), id))
    }
}

fn expand(
    group: &Group<'_>,
    hosts: &BTreeMap<String, Host>,
    engine: &dyn Engine,
    platform: Platform,
    taken: &mut Taken,
    shapes: &mut Vec<Shape>,
    problems: &mut Vec<Problem>,
) {
    if let Some(problem) = out_of_range(group) {
        problems.push(problem);
        return;
    }
    let degree = |i: usize| group.degrees[i].unwrap_or(1);
    let shape = |place| Shape {
        role: group.role,
        tp: degree(0),
        pp: degree(1),
        dp: degree(2),
        dp_balance: group.dp_balance,
        ep: group.degrees[3],
        place,
        args: group.args.clone(),
        env: group.env.clone(),
    };
    if let Some(places) = group.place {
        if places.len() != group.count as usize {
            problems.push(Problem::new(
                format!("{}.place", group.path),
                format!("{} places for {} {}", places.len(), group.count, group.count_key),
                format!(
                    "give one text per instance, or set {} = {}",
                    group.count_key,
                    places.len()
                ),
            ));
            return;
        }
        for (i, text) in places.iter().enumerate() {
            let path = format!("{}.place[{i}]", group.path);
            match parse_place(text, hosts) {
                Ok(place) => shapes.push(shape(place)),
                Err(why) => {
                    problems.push(Problem::new(path, why, ""));
                    continue;
                }
            }
            let Some(shape) = shapes.last() else { continue };
            check_place(shape, group, path, engine, taken, problems);
        }
        return;
    }
    for _ in 0..group.count {
        let wanted = shape(Vec::new());
        let place = if platform.places_processes() {
            match auto_place(wanted.gpus(), hosts, engine, taken) {
                Some(place) => place,
                None => {
                    problems.push(no_room(group, wanted.gpus()));
                    return;
                }
            }
        } else {
            Vec::new()
        };
        taken.take(&place, &group.path);
        shapes.push(shape(place));
    }
}

fn no_room(group: &Group<'_>, wanted: u32) -> Problem {
    Problem::new(
        group.path.clone(),
        format!(
            "no host has {wanted} free GPUs for each of the {} {}",
            group.count, group.count_key
        ),
        "say where with 'place', add hosts or GPUs, or make the instances smaller",
    )
}

fn out_of_range(group: &Group<'_>) -> Option<Problem> {
    let keys = ["tp", "pp", "dp", "ep"];
    let bad = keys.iter().zip(group.degrees).find(|(_, d)| d.is_some_and(|d| d == 0 || d > 4_096));
    if let Some((key, _)) = bad {
        let path = format!("{}.{key}", group.path);
        return Some(Problem::new(path, format!("'{key}' must be between 1 and 4096"), ""));
    }
    (group.count == 0 || group.count > 4_096).then(|| {
        let path = format!("{}.{}", group.path, group.count_key);
        Problem::new(path, format!("'{}' must be between 1 and 4096", group.count_key), "")
    })
}

fn check_place(
    shape: &Shape,
    group: &Group<'_>,
    path: String,
    engine: &dyn Engine,
    taken: &mut Taken,
    problems: &mut Vec<Problem>,
) {
    let role = shape.role.name();
    let there: usize = shape.place.iter().map(|p| p.ids.len()).sum();
    if engine.takes_gpus() && there != shape.gpus() as usize {
        problems.push(Problem::new(
            path,
            format!(
                "the place has {there} GPUs, the shape needs {} (tp {} x pp {} x dp {})",
                shape.gpus(),
                shape.tp,
                shape.pp,
                shape.dp
            ),
            "change the ids, or tp, pp or dp",
        ));
        return;
    }
    let uneven =
        shape.spans_hosts() && shape.place.iter().any(|p| p.ids.len() != shape.place[0].ids.len());
    if engine.takes_gpus() && uneven {
        problems.push(Problem::new(
            path,
            "an instance that spans hosts needs equally many GPUs on each",
            "ranks are dealt to hosts in equal parts",
        ));
        return;
    }
    if let Some((host, id, other)) = taken.take(&shape.place, role) {
        problems.push(Problem::new(
            path,
            if other == role {
                format!("GPU {id} of {host} taken twice ({role})")
            } else {
                format!("GPU {id} of {host} taken twice ({other} and {role})")
            },
            format!("each GPU holds one instance; see {}", group.path),
        ));
    }
}

fn auto_place(
    gpus: u32,
    hosts: &BTreeMap<String, Host>,
    engine: &dyn Engine,
    taken: &Taken,
) -> Option<Vec<HostGpus>> {
    let on = |host: &str, ids| Some(vec![HostGpus { host: host.to_owned(), ids }]);
    if !engine.takes_gpus() {
        let name = host_names(hosts).into_iter().next();
        return on(name.as_deref().unwrap_or(THIS_MACHINE), Vec::new());
    }
    if hosts.is_empty() {
        let free = (0..).filter(|id| taken.is_free(THIS_MACHINE, *id));
        return on(THIS_MACHINE, free.take(gpus as usize).collect());
    }
    host_names(hosts).iter().find_map(|name| {
        let (_, host) = find_host(name, hosts)?;
        let free = (0..host.gpus).filter(|id| taken.is_free(name, *id));
        let ids: Vec<u32> = free.take(gpus as usize).collect();
        (ids.len() == gpus as usize).then(|| on(name, ids)).flatten()
    })
}

fn check_spanning(
    index: usize,
    deploy: &Deploy,
    engine: &dyn Engine,
    platform: Platform,
    shapes: &[Shape],
    problems: &mut Vec<Problem>,
) {
    let spans = shapes.iter().any(Shape::spans_hosts);
    let must_say = engine.kind() == super::EngineKind::Vllm && platform.places_processes();
    if spans && must_say && deploy.launcher.is_none() {
        problems.push(Problem::new(
            format!("deploy[{index}].launcher"),
            "an instance spans hosts, say launcher",
            "launcher = \"mp\" (--nnodes, --node-rank) or \"ray\" (a Ray cluster)",
        ));
    }
}

/// What a count or a number in `params` may be at most: beyond it is a slip, and what is computed from it is nothing.
const MOST: i64 = 1_000_000_000;
/// What a number may be at least.
const LEAST: f64 = 1e-6;

fn number(value: &toml::Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|n| n as f64))
}

/// Checks `params` against what the platform and the engine understand.
pub(crate) fn check_params(
    index: usize,
    params: &Params,
    engine: &dyn Engine,
    platform: Platform,
) -> Vec<Problem> {
    use crate::engine::ParamKind;
    // The platform's first: of a name that both have, its meaning counts.
    let known: Vec<_> = super::platform::params(platform).chain(engine.params()).copied().collect();
    let of = match platform.renders() {
        true => format!("{} on {}", engine.kind().name(), platform.name()),
        false => engine.kind().name().to_owned(),
    };
    let mut problems = Vec::new();
    for (key, value) in params {
        let path = format!("deploy[{index}].params.{key}");
        let Some(spec) = known.iter().find(|p| p.name == key) else {
            let message = format!("unknown parameter '{key}' of {of}");
            problems.push(Problem::new(path, message, unknown_param(key, &known)));
            continue;
        };
        let whole = value.as_integer();
        let (fits, want) = match spec.kind {
            ParamKind::Text => (value.is_str(), "a text"),
            ParamKind::Integer => (whole.is_some_and(|n| n >= 0), "a whole number"),
            ParamKind::Count => (
                whole.is_some_and(|n| (1..=MOST).contains(&n)),
                "a whole number from 1 to 1000000000",
            ),
            ParamKind::Number => (
                number(value).is_some_and(|n| (LEAST..=MOST as f64).contains(&n)),
                "a number from 0.000001 to 1000000000",
            ),
            ParamKind::Flag => (value.is_bool(), "true or false"),
            ParamKind::Duration => (
                value.as_str().is_some_and(|t| crate::units::parse_duration(t).is_ok()),
                "a span with its unit, as \"50ms\"",
            ),
            ParamKind::TextList => (
                value.as_array().is_some_and(|a| a.iter().all(toml::Value::is_str)),
                "a list of texts",
            ),
        };
        if !fits {
            problems.push(Problem::new(path, format!("'{key}' must be {want}"), spec.doc));
        }
    }
    problems
}

fn unknown_param(key: &str, known: &[ParamSpec]) -> String {
    let names: Vec<&str> = known.iter().map(|p| p.name).collect();
    match crate::spec::diagnostic::nearest(key, names.iter().copied()) {
        Some(near) => format!("did you mean '{near}'?"),
        None if names.is_empty() => "this engine has none".to_owned(),
        None => format!("known here are {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_s_flag_replaces_the_deployment_s_with_its_value() {
        let text = |s: &str| s.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let merged = merge_args(
            &text("--block-size 128 --max-num-seqs 2 --x=1 --seed -1"),
            &text("--max-num-seqs 8 --x 2"),
        );
        assert_eq!(merged, text("--block-size 128 --seed -1 --max-num-seqs 8 --x 2"));
    }
}
