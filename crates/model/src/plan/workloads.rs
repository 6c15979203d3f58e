//! From a workload of the file to a workload of the plan.

use crate::spec::{DistSpec, Experiment, WorkloadKind, WorkloadSpec};
use crate::workload::{
    LengthDist, Lengths, MixPart, PrefixGroups, Share, Source, Spread, Talk, Workload,
};

/// The workload that `spec` describes, parts of a mix included.
pub(crate) fn workload(experiment: &Experiment, spec: &WorkloadSpec) -> Workload {
    let source = match spec.kind {
        WorkloadKind::Synthetic | WorkloadKind::File if spec.has_sessions() => {
            Source::Sessions { history: spec.history.unwrap_or_default(), talk: talk(spec) }
        }
        WorkloadKind::Prompts => {
            Source::Prompts { pick: spec.pick.unwrap_or_default(), prompts: spec.prompts.clone() }
        }
        WorkloadKind::File => Source::File {
            file: spec.file.clone().unwrap_or_default(),
            format: spec.format.unwrap_or_default(),
            pick: spec.pick.unwrap_or_default(),
            max_tokens: spec.max_tokens,
        },
        WorkloadKind::Synthetic => {
            Source::Synthetic { lengths: lengths(spec), entries: spec.entries }
        }
        WorkloadKind::Mix => Source::Mix { parts: parts(experiment, spec) },
    };
    // How requests are written is a matter of the whole mix; the check refuses parts that disagree.
    let first_part = spec.parts.first().and_then(|p| {
        experiment.workload.iter().find(|w| w.name == p.workload && w.kind != WorkloadKind::Mix)
    });
    let api = spec.api.or(first_part.and_then(|p| p.api)).unwrap_or_default();
    Workload {
        name: spec.name.clone(),
        api,
        stream: spec.stream.or(first_part.and_then(|p| p.stream)).unwrap_or(api.generates()),
        temperature: spec.temperature.or(first_part.and_then(|p| p.temperature)),
        system: spec.system.clone().or_else(|| first_part.and_then(|p| p.system.clone())),
        force_len: spec.force_len.or(first_part.and_then(|p| p.force_len)).unwrap_or(false),
        body: spec.body.clone(),
        seed: spec.seed.unwrap_or(0),
        cache: spec.cache.or(first_part.and_then(|p| p.cache)).unwrap_or_default(),
        source,
    }
}

fn talk(spec: &WorkloadSpec) -> Talk {
    if spec.kind == WorkloadKind::File {
        return Talk::File {
            file: spec.file.clone().unwrap_or_default(),
            format: spec.format.unwrap_or_default(),
            pick: spec.pick.unwrap_or_default(),
            max_tokens: spec.max_tokens,
            turns: spec.turns.unwrap_or(u32::MAX),
        };
    }
    let spread = |of: Option<u32>, dist: Option<&DistSpec>| {
        let dist = dist.and_then(|d| d.resolve(of));
        Spread { mean: mean(of, dist.as_ref()), dist }
    };
    Talk::Synthetic {
        lengths: lengths(spec),
        turns: spread(spec.turns, spec.turns_dist.as_ref()),
        turn_isl: spread(spec.turn_isl, spec.turn_isl_dist.as_ref()),
    }
}

fn lengths(spec: &WorkloadSpec) -> Lengths {
    let isl_dist = spec.isl_dist.as_ref().and_then(|d| d.resolve(spec.isl));
    let osl_dist = spec.osl_dist.as_ref().and_then(|d| d.resolve(spec.osl));
    Lengths {
        isl: mean(spec.isl, isl_dist.as_ref()),
        isl_dev: spec.isl_dev.unwrap_or_default(),
        prefix: spec.prefix.unwrap_or_default(),
        osl: mean(spec.osl, osl_dist.as_ref()),
        osl_dev: spec.osl_dev.unwrap_or_default(),
        isl_dist,
        osl_dist,
        prefix_groups: spec
            .prefix_groups
            .map(|count| PrefixGroups { count, pick: spec.pick.unwrap_or_default() }),
    }
}

/// The mean of what is drawn, in whole tokens: a range ratio of 0.8 of 1024 may mean 922.
fn mean(asked: Option<u32>, dist: Option<&LengthDist>) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a mean of lengths, which are u32; `as` saturates"
    )]
    dist.map_or(asked.unwrap_or_default(), |d| d.mean().round() as u32)
}

fn parts(experiment: &Experiment, mix: &WorkloadSpec) -> Vec<MixPart> {
    let part = |part: &crate::spec::Part| {
        let of = experiment.workload.iter().find(|w| w.name == part.workload)?;
        // A mix of a mix is refused by the check; cut the knot here all the same.
        (of.kind != WorkloadKind::Mix).then(|| MixPart {
            share: part.weight.map_or(Share::Count(part.count.unwrap_or(0)), Share::Weight),
            workload: workload(experiment, of),
        })
    };
    mix.parts.iter().filter_map(part).collect()
}
