//! Checks of `dp_balance`: that there are ranks to spread over, and an engine that lets them be chosen.

use crate::plan::shape::Shape;
use crate::plan::{DpBalance, EngineKind, Platform};
use crate::spec::{Deploy, Problem};

/// What is wrong with `dp_balance` of deployment `index`, whose instances are `shapes`.
pub(super) fn check(
    index: usize,
    deploy: &Deploy,
    engine: EngineKind,
    platform: Platform,
    shapes: &[Shape],
) -> Option<Problem> {
    let balance = deploy.dp_balance?;
    let (message, hint) = engine_or_platform(balance, engine, platform)
        .or_else(|| shapes.iter().find_map(|shape| of_shape(balance, shape)))?;
    Some(Problem::new(format!("deploy[{index}].dp_balance"), message, hint))
}

fn engine_or_platform(
    balance: DpBalance,
    engine: EngineKind,
    platform: Platform,
) -> Option<(String, &'static str)> {
    if engine != EngineKind::Vllm {
        let message = format!("engine {} does not say what spreads over ranks", engine.name());
        return Some((message, "leave it out; it is vLLM's"));
    }
    let is_elsewhere = balance != DpBalance::Internal && !platform.places_processes();
    is_elsewhere.then(|| {
        let (balance, platform) = (balance.name(), platform.name());
        let message = format!("dp_balance = \"{balance}\" is not planned on platform {platform}");
        (message, "use platform = \"local\" or \"ssh\", or replicas in place of dp")
    })
}

fn of_shape(balance: DpBalance, shape: &Shape) -> Option<(String, &'static str)> {
    if shape.dp < 2 {
        let message = "there is one data-parallel rank, so nothing is spread over ranks".to_owned();
        return Some((message, "say dp too, or leave dp_balance out"));
    }
    if balance != DpBalance::Hybrid {
        return None;
    }
    if !shape.spans_hosts() {
        let message = "hybrid balancing has a server a host, and the instance is on one".to_owned();
        return Some((message, "place it over hosts, as \"a:0-3 + b:0-3\", or say \"internal\""));
    }
    let per_rank = usize::try_from(shape.tp.saturating_mul(shape.pp)).unwrap_or(usize::MAX);
    let is_single = shape.place.iter().any(|place| place.ids.len() <= per_rank);
    is_single.then(|| {
        let message = "a host has one rank, so its server has nothing to choose from".to_owned();
        (message, "vLLM takes that for external balancing: say dp_balance = \"external\"")
    })
}
