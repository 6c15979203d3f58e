//! What copies lose to each other, where another measured deployment is several of one.

use super::MeasuredCopies;
use super::choice::Weighed;
use crate::plan::{DeploymentPlan, EngineKind, Role};

/// One kind of instance: engine, kinds of GPU, and degrees.
type Shape<'a> = (EngineKind, &'a [String], (u32, u32, u32, Option<u32>));

/// Of those that are several of `of` by engine and shape, the one that is nearest to the advised number of copies.
pub(super) fn measured(of: &Weighed<'_>, all: &[Weighed<'_>]) -> Option<MeasuredCopies> {
    let (own, instances) = deployment(of).and_then(shape)?;
    let several = |w: &Weighed<'_>| {
        let (its, n) = deployment(w).and_then(shape)?;
        (its == own && n > instances).then(|| MeasuredCopies {
            name: w.choice.name.clone(),
            times: n as f64 / instances as f64,
            carried: w.carries / of.carries,
            at: [w.level.place(), of.level.place()],
        })
    };
    let distance = |c: &MeasuredCopies| (c.times - f64::from(of.choice.copies)).abs();
    all.iter().filter_map(several).min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

fn deployment<'a>(of: &Weighed<'a>) -> Option<&'a DeploymentPlan> {
    of.level.side.plan.deployment(&of.choice.deployment)
}

/// The shape of its instances and their number, where all are alike.
fn shape(of: &DeploymentPlan) -> Option<(Shape<'_>, usize)> {
    let degrees = |i: &crate::plan::InstancePlan| (i.tp, i.pp, i.dp, i.ep);
    let first = degrees(of.instances.first()?);
    let is_alike =
        |i: &crate::plan::InstancePlan| i.role == Role::Aggregated && degrees(i) == first;
    let all = of.instances.iter().all(is_alike);
    all.then_some(((of.engine, of.gpu_kinds.as_slice(), first), of.instances.len()))
}
