//! A study of scaling in sentences.

use super::{Basis, Fit, Growth, LawName, LoadGrowth, Ranged, Scaling, Step};
use crate::analysis::doubt::percent;
use crate::units::significant;

pub(super) fn text(scaling: &Scaling) -> String {
    let Some((base, rest)) = scaling.steps.split_first() else { return String::new() };
    let mut sentences = vec![head(scaling, base)];
    for step in rest {
        sentences.push(of_step(step, base));
    }
    // Of two laws through the same sizes the universal one holds the other.
    let of = |growth| {
        let mine = scaling.fits.iter().filter(move |f| f.growth == growth);
        mine.max_by_key(|f| f.law == LawName::Usl)
    };
    let fits = [Growth::Copies, Growth::Instance].into_iter().filter_map(of);
    sentences.extend(fits.map(|fit| of_fit(fit, base)));
    let left_out =
        scaling.left_out.iter().map(|l| format!("{} is left out: {}.", l.deployment, l.why));
    sentences.extend(left_out);
    sentences.join(" ")
}

fn head(scaling: &Scaling, base: &Step) -> String {
    let kinds: Vec<LoadGrowth> = scaling.steps[1..].iter().filter_map(|s| s.load_growth).collect();
    let is_all = |kind| kinds.iter().all(|k| *k == kind);
    let what = match &scaling.basis {
        Basis::Slo { slo } => format!("at the highest load that met {slo}"),
        Basis::Interactivity { tps } => {
            format!("where a user gets {} tokens/s", significant(*tps))
        }
        Basis::Load { level } if is_all(LoadGrowth::Strong) => {
            format!("under {} {level}, the same load at every size (strong scaling)", scaling.load)
        }
        Basis::Load { .. } if is_all(LoadGrowth::Weak) => {
            format!("under {}, as much more load as there is size (weak scaling)", scaling.load)
        }
        Basis::Load { level } => format!("under {} {level}", scaling.load),
    };
    let load = match &scaling.basis {
        Basis::Load { .. } => String::new(),
        Basis::Slo { .. } | Basis::Interactivity { .. } => format!(" of {}", scaling.load),
    };
    format!("{}{load}, {what}, against {} ({}).", scaling.metric, base.deployment, gpus(base))
}

fn gpus(step: &Step) -> String {
    match step.shape.gpus {
        Some(1) => "1 GPU".to_owned(),
        Some(n) => format!("{n} GPUs"),
        None => format!("{} of {}", step.shape.replicas, step.shape.instance),
    }
}

/// `0.410 (0.390 to 0.431)`, in percent or as it is.
fn ranged(value: &Ranged, show: fn(f64) -> String) -> String {
    let range = value.range.map(|[low, high]| format!(" ({} to {})", show(low), show(high)));
    format!("{}{}", show(value.point), range.unwrap_or_default())
}

fn of_step(step: &Step, base: &Step) -> String {
    let name = &step.deployment;
    let speedup = ranged(&step.speedup, significant);
    let mut text = match (&step.efficiency, step.growth) {
        (Some(_), _) if step.shape.gpus.is_some() && step.shape.gpus == base.shape.gpus => {
            format!("{name}, of the same GPUs, is {speedup} times as good")
        }
        (Some(efficiency), _) => format!(
            "{name}, {} times the size ({}), is {speedup} times as good: efficiency {}",
            significant(step.size),
            gpus(step),
            ranged(efficiency, percent)
        ),
        (None, _) => format!("{name} ({}) is {speedup} times as good", gpus(step)),
    };
    for mark in &step.marks {
        text.push_str(&format!("; {}", mark.message));
    }
    text.push('.');
    text.push_str(&control(step, base));
    text
}

/// What the same GPUs give as copies, or that nobody looked.
fn control(step: &Step, base: &Step) -> String {
    let is_larger = step.size > 1.0 && matches!(step.growth, Growth::Instance | Growth::Mixed);
    match &step.control {
        Some(control) => format!(
            " The same GPUs as copies of {} ({}) are {} times as good as it.",
            base.deployment,
            control.deployment,
            significant(1.0 / control.ratio)
        ),
        None if is_larger && step.shape.gpus.is_some() => format!(
            " It has no control: whether the same {} as copies of {} would give more was not measured.",
            gpus(step),
            base.deployment
        ),
        None => String::new(),
    }
}

fn of_fit(fit: &Fit, base: &Step) -> String {
    let what = match fit.growth {
        Growth::Instance => "with one growing instance",
        Growth::Same | Growth::Copies | Growth::Mixed => "in copies",
    };
    let law = match fit.law {
        LawName::Amdahl => "Amdahl's law",
        LawName::Gustafson => "Gustafson's law",
        LawName::Usl => "the universal scalability law",
    };
    let peak = fit.peak.map_or_else(String::new, |peak| {
        let at = base.shape.gpus.map_or_else(
            || format!("{} times the baseline", significant(peak)),
            |n| format!("{} GPUs", significant(peak * f64::from(n))),
        );
        format!("; it would fall beyond {at}")
    });
    let misfit = percent(fit.misfit);
    format!(
        "Through {} sizes {what}, {law} finds {} that does not grow, and one more of {} would add {}{peak}; no size lies further than {misfit} from it.",
        fit.sizes,
        ranged(&fit.serial, percent),
        gpus(base),
        ranged(&fit.next.gain, percent),
    )
}
