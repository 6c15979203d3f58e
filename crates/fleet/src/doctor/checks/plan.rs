//! D01 to D06 and D80: what follows from the plan, and from the model's own `config.json`.

use super::{Verdict, fail, flag, flag_of, gib, many, pass, skip, unless};
use crate::doctor::machine::loads_weights;
use crate::doctor::sections::{Known, Unknown, told};
use crate::doctor::seen::Seen;
use scalebeam_model::limit::{Limit, Reached};
use scalebeam_model::plan::{DeploymentPlan, InstancePlan, Mode, Plan, PointPlan, Role};
use scalebeam_model::units::significant;
use scalebeam_model::workload::{LengthDist, Lengths, Source, Workload};
use serde_json::Value;
use std::collections::BTreeSet;

/// vLLM's own, where no flag says otherwise.
const MEMORY_UTILIZATION: f64 = 0.9;
/// Activations and the like, over the weights.
const OVER_WEIGHTS: f64 = 1.1;
/// A closed loop has a beginning and an end; below three rounds there is little between them.
const ROUNDS: u64 = 3;

pub(super) fn can_run(_: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    match &d.cannot_run {
        Some(why) => fail(why, "check, plan and doctor work on it; run refuses it"),
        None => pass(format!(
            "{} on platform {}",
            many(d.processes.len(), "process", "es"),
            d.platform.name()
        )),
    }
}

pub(super) fn shape(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    if d.instances.iter().all(|i| i.place.is_empty()) {
        return skip(format!("platform {} places it", d.platform.name()));
    }
    let mut taken = BTreeSet::new();
    let mut wrong = Vec::new();
    for instance in &d.instances {
        wrong.extend(miscounted(instance));
        for place in &instance.place {
            for id in &place.ids {
                if !taken.insert((&place.host, id)) {
                    wrong.push(format!("GPU {id} of {} is taken twice", place.host));
                }
                if has_too_few(seen.plan, &place.host, *id) {
                    wrong.push(format!("{} has no GPU {id} by the file", place.host));
                }
            }
        }
    }
    let instances = many(d.instances.len(), "instance", "s");
    let seen = format!("{instances} on {}", many(taken.len(), "GPU", "s"));
    unless(wrong, seen, "correct place, tp, pp or dp of the deployment")
}

fn miscounted(instance: &InstancePlan) -> Option<String> {
    let placed: usize = instance.place.iter().map(|p| p.ids.len()).sum();
    let ranks = usize::try_from(instance.gpus()).unwrap_or(usize::MAX);
    (placed > 0 && placed != ranks)
        .then(|| format!("instance {} has {ranks} ranks and {placed} GPUs", instance.index))
}

fn has_too_few(plan: &Plan, host: &str, id: u32) -> bool {
    plan.hosts.iter().any(|h| h.name == host && h.gpus > 0 && id >= h.gpus)
}

/// The model's `config.json`, from whichever machine of the deployment has it.
fn config<'s>(seen: &'s Seen<'_>, d: &'s DeploymentPlan) -> Known<&'s Value> {
    if !loads_weights(d) {
        return Err(Unknown(format!("engine {} loads no weights", d.engine.name())));
    }
    let mut why = Unknown::because("no host of it could be asked for the model's config.json");
    for host in seen.of(d) {
        let config = host.facts().and_then(|f| {
            told(&f.model.place)?;
            told(&f.model.config)
        });
        match config {
            Ok(config) => return Ok(config),
            Err(unknown) => why = unknown,
        }
    }
    Err(why)
}

/// A number of the config; that of a multimodal model has it under `text_config`.
fn number(config: &Value, key: &str) -> Option<u64> {
    let inner = config.get("text_config").and_then(|c| c.get(key));
    config.get(key).or(inner)?.as_u64()
}

pub(super) fn heads(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let config = config(seen, d)?;
    let never = || Unknown::because("config.json has no num_attention_heads");
    let heads = number(config, "num_attention_heads").ok_or_else(never)?;
    let kv = number(config, "num_key_value_heads").unwrap_or(heads);
    let degrees: BTreeSet<u64> = d.instances.iter().map(|i| u64::from(i.tp.max(1))).collect();
    let wrong = degrees.iter().filter_map(|tp| undivided(heads, kv, *tp)).collect();
    let seen = format!("{heads} attention heads, {kv} KV heads, tp {}", listed(&degrees));
    unless(wrong, seen, "choose a tp that divides both, or that the KV heads divide")
}

fn undivided(heads: u64, kv: u64, tp: u64) -> Option<String> {
    if !heads.is_multiple_of(tp) {
        return Some(format!("{heads} attention heads are not divided by tp = {tp}"));
    }
    // Beyond their number KV heads are replicated, whole.
    let fits = kv.is_multiple_of(tp) || (kv > 0 && tp.is_multiple_of(kv));
    (!fits).then(|| format!("{kv} KV heads neither divide nor are divided by tp = {tp}"))
}

fn listed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>().join(", ")
}

pub(super) fn weights(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let (bytes, memory) = weights_and_memory(seen, d)?;
    let share = flag(d, "--gpu-memory-utilization").and_then(|v| v.parse().ok());
    let room = memory * share.unwrap_or(MEMORY_UTILIZATION);
    let smallest = d.instances.iter().map(|i| (i.tp * i.pp).max(1)).min().unwrap_or(1);
    #[expect(clippy::cast_precision_loss, reason = "a share of GiB")]
    let each = bytes as f64 * OVER_WEIGHTS / f64::from(smallest) / f64::from(1u32 << 20);
    let words = format!(
        "{} of weights over {smallest} GPUs: {} MiB each with 10 % on top, room for {} MiB",
        gib(bytes),
        significant(each),
        significant(room)
    );
    if each < room {
        return pass(words);
    }
    fail(words, "raise tp or pp, use a smaller dtype, or GPUs with more memory")
}

/// Bytes of weights, and MiB of the smallest GPU of the plan.
fn weights_and_memory(seen: &Seen<'_>, d: &DeploymentPlan) -> Known<(u64, f64)> {
    if !loads_weights(d) {
        return Err(Unknown(format!("engine {} loads no weights", d.engine.name())));
    }
    let mut smallest: Option<f64> = None;
    let mut bytes = Err(Unknown::because("no host of it could be asked for the weights"));
    for host in seen.of(d) {
        let facts = host.facts()?;
        let ids = host.machine.gpu_ids()?;
        bytes = bytes.or_else(|_| facts.model.place.clone().and(facts.model.weight_bytes.clone()));
        for gpu in told(&facts.gpus)? {
            let memory = gpu.memory_total_mib.filter(|_| ids.contains(&gpu.index));
            smallest = memory.map(|m| smallest.map_or(m, |s| s.min(m))).or(smallest);
        }
    }
    let never = || Unknown::because("nvidia-smi told no memory of the GPUs of the plan");
    Ok((bytes?, smallest.ok_or_else(never)?))
}

/// Longest prompt of a workload, and longest prompt with its answer, in tokens; absent where only a
/// file or the server knows. Of a normal spread it is the mean.
fn longest(workload: &Workload) -> Option<(u64, u64)> {
    match &workload.source {
        Source::Synthetic { lengths, .. } => {
            let (isl, osl) = longest_of(lengths);
            let prompt = u64::from(lengths.prefix) + u64::from(isl);
            Some((prompt, prompt + u64::from(osl)))
        }
        Source::Mix { parts } => parts.iter().filter_map(|p| longest(&p.workload)).reduce(wider),
        _ => None,
    }
}

fn wider(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0.max(b.0), a.1.max(b.1))
}

fn longest_of(lengths: &Lengths) -> (u32, u32) {
    let most = |dist: &Option<LengthDist>, mean| match dist {
        Some(LengthDist::Lognormal { max, .. } | LengthDist::Uniform { max, .. }) => *max,
        None => mean,
    };
    (most(&lengths.isl_dist, lengths.isl), most(&lengths.osl_dist, lengths.osl))
}

fn points_of<'s>(seen: &'s Seen<'_>, d: &'s DeploymentPlan) -> impl Iterator<Item = &'s PointPlan> {
    seen.plan.every_point().filter(move |p| p.deployment == d.name)
}

pub(super) fn context(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let needed = points_of(seen, d).filter_map(|p| longest(&p.workload)).reduce(wider);
    let Some((prompt, whole)) = needed else {
        return skip("no workload has lengths that are known before the run");
    };
    let limit = context_limit(seen, d)?;
    let mut wrong = Vec::new();
    if whole > limit {
        wrong.push(format!("prompt and answer have {whole} tokens, the context {limit}"));
    }
    let budget = flag(d, "--max-num-batched-tokens").and_then(|v| v.parse::<u64>().ok());
    if let Some(budget) = budget.filter(|b| *b < prompt && never_chunks(d)) {
        wrong.push(format!("a prompt has {prompt} tokens, a step {budget}, and chunking is off"));
    }
    let seen = format!("at most {whole} tokens of {limit}");
    unless(wrong, seen, "shorten isl or osl, or raise max_len of [model] or the step's tokens")
}

fn never_chunks(d: &DeploymentPlan) -> bool {
    d.processes.iter().any(|p| p.args.iter().any(|a| a == "--no-enable-chunked-prefill"))
}

/// The flag, the file, the model: whichever says it first.
fn context_limit(seen: &Seen<'_>, d: &DeploymentPlan) -> Known<u64> {
    let by_flag = flag(d, "--max-model-len").and_then(|v| v.parse().ok());
    if let Some(limit) = by_flag.or_else(|| seen.plan.model.max_len.map(u64::from)) {
        return Ok(limit);
    }
    if !loads_weights(d) {
        return Err(Unknown::because("neither the file nor a flag says how long the context is"));
    }
    let config = config(seen, d)?;
    let never = || Unknown::because("config.json has no max_position_embeddings");
    number(config, "max_position_embeddings").ok_or_else(never)
}

pub(super) fn load(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let points: Vec<&PointPlan> = points_of(seen, d).collect();
    if points.is_empty() {
        return skip("no point of the plan loads it");
    }
    let slots = slots(d);
    let wrong: Vec<String> = points.iter().filter_map(|p| too_short(p)).collect();
    let queued: Vec<String> = points.iter().filter_map(|p| queues(p, slots?)).collect();
    let words = many(points.len(), "point", "s");
    unless(
        some_of(wrong).into_iter().chain(some_of(queued)).collect(),
        words,
        "send more requests a point, or raise --max-num-seqs; else it is the queue that is measured",
    )
}

/// Sequences that all instances which write answers run at a time, where a flag of each says so.
fn slots(d: &DeploymentPlan) -> Option<u64> {
    let of = |instance: &InstancePlan| -> Option<u64> {
        let ours = d.processes.iter().filter(|p| p.instance == Some(instance.index));
        ours.filter_map(|p| flag_of(&p.args, "--max-num-seqs")).next()?.parse().ok()
    };
    let writing = d.instances.iter().filter(|i| i.role != Role::Prefill);
    writing.map(of).sum::<Option<u64>>().filter(|slots| *slots > 0)
}

fn too_short(point: &PointPlan) -> Option<String> {
    let (users, requests) = (u64::from(point.level.concurrency?), point.measure.requests?);
    (point.mode == Mode::Closed && users > 1 && requests < ROUNDS.saturating_mul(users))
        .then(|| format!("{} has {requests} requests for {users} users", point.id))
}

fn queues(point: &PointPlan, slots: u64) -> Option<String> {
    let users = u64::from(point.level.concurrency?);
    (users > slots).then(|| format!("{} has {users} users for {slots} sequences", point.id))
}

/// The first, and how many more.
fn some_of(mut wrong: Vec<String>) -> Option<String> {
    let more = wrong.len().saturating_sub(1);
    wrong.truncate(1);
    let first = wrong.pop()?;
    Some(if more == 0 { first } else { format!("{first}, and {more} more like it") })
}

/// What the file says that it may take.
fn stopped_at(limit: &Limit) -> String {
    let wall = limit.wall.map(|w| Reached::Wall(w).to_string());
    let spend = limit.spend.map(|s| Reached::Spend(s).to_string());
    let all: Vec<String> = wall.into_iter().chain(spend).collect();
    if all.is_empty() { String::new() } else { format!(", stopped at {}", all.join(" or ")) }
}

pub(super) fn price(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    let down = if d.stop.always { "always taken down" } else { "left running after a failure" };
    let gpus = if d.gpus == 0 { "GPUs not known".to_owned() } else { many(d.gpus, "GPU", "s") };
    let Some(price) = d.price_per_hour else {
        return pass(format!("{gpus}, no price in the file; {down}"));
    };
    let estimate = &seen.plan.estimate;
    let cost = estimate.cost.map_or(String::new(), |c| format!(" and costs {}", significant(c)));
    let price = significant(price);
    let wall = estimate.wall;
    let stopped = stopped_at(&seen.plan.limit);
    pass(format!(
        "{gpus} at {price} an hour; the whole plan takes about {wall}{cost}{stopped}; {down}"
    ))
}
