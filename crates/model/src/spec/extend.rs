//! `extends`: one level, filled in before anything is checked, so that a check sees whole deployments.

use super::{Deploy, Experiment, Problem};
use crate::spec::diagnostic::nearest;

/// Fills every deployment in from the one it extends.
pub(super) fn extend(mut experiment: Experiment) -> (Experiment, Vec<Problem>) {
    let originals = experiment.deploy.clone();
    let mut problems = Vec::new();
    for (i, deploy) in experiment.deploy.iter_mut().enumerate() {
        let Some(base_name) = deploy.extends.clone() else { continue };
        let path = format!("deploy[{i}].extends");
        let base = originals.iter().enumerate().find(|(j, d)| *j != i && d.name == base_name);
        match base {
            Some((_, base)) if base.extends.is_some() => problems.push(Problem::new(
                path,
                format!("'{base_name}' extends another deployment itself"),
                "extend a deployment that says everything; there is one level only",
            )),
            Some((_, base)) => fill(deploy, base),
            None => {
                let names = originals.iter().map(|d| d.name.as_str()).filter(|n| *n != deploy.name);
                let hint = match nearest(&base_name, names) {
                    Some(near) => format!("did you mean '{near}'?"),
                    None => "name another [[deploy]] of this file".to_owned(),
                };
                problems.push(Problem::new(path, format!("no deployment '{base_name}'"), hint));
            }
        }
    }
    (experiment, problems)
}

macro_rules! take {
    ($child:ident, $base:ident: $($field:ident),*) => {
        $( if $child.$field.is_none() { $child.$field = $base.$field.clone(); } )*
    };
}

fn fill(child: &mut Deploy, base: &Deploy) {
    take!(child, base: platform, engine, launcher, version, image, model, gpu, tp, pp, dp,
        dp_balance, ep,
        replicas, place, port, endpoint, api_key_env, ca_file, http, balance, infra, args, ready, stop,
        price_per_hour, optional);
    if child.pool.is_empty() {
        child.pool.clone_from(&base.pool);
    }
    for (k, v) in &base.env {
        child.env.entry(k.clone()).or_insert_with(|| v.clone());
    }
    for (k, v) in &base.headers_env {
        child.headers_env.entry(k.clone()).or_insert_with(|| v.clone());
    }
    for (k, v) in &base.params {
        child.params.entry(k.clone()).or_insert_with(|| v.clone());
    }
}
