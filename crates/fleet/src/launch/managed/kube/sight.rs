//! What became of the objects of a deployment: pure, from what `kubectl get` printed.
//!
//! **Invariant:** a deployment is up only when its object says so and as many pods of each kind are ready as
//! were asked for: an operator's word alone may be of the time before.

use super::super::End;
use super::objects::{Application, Object, Pod, ServeStatus};
use super::pods::{self, Standing, Trouble};
use crate::render::kube::ROLE;
use std::collections::BTreeMap;

/// What is seen of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sight {
    /// Nothing of it exists.
    Absent,
    /// It is not ready, in words.
    Pending(String),
    /// The same, over what a person can do something about.
    Blocked(End),
    /// All of it is ready, in words.
    Ready(String),
    /// A pod of it will never be ready.
    Doomed(Trouble),
    /// Its operator gave it up, in its words.
    GivenUp(End),
}

/// Kinds whose status tells whether a deployment is ready.
pub(super) const WORKLOADS: [&str; 5] =
    ["Deployment", "StatefulSet", "LeaderWorkerSet", "RayService", "DynamoGraphDeployment"];

/// What is seen in `objects` and `pods`, all of one deployment.
pub(super) fn sight(objects: &[Object], pods: &[Pod]) -> Sight {
    let workloads: Vec<&Object> =
        objects.iter().filter(|o| WORKLOADS.contains(&o.kind.as_str())).collect();
    if workloads.is_empty() {
        return if objects.is_empty() && pods.is_empty() {
            Sight::Absent
        } else {
            Sight::Pending("its objects are not all there".to_owned())
        };
    }
    let standings: Vec<(&Pod, Standing)> = pods.iter().map(|p| (p, pods::standing(p))).collect();
    for (_, standing) in &standings {
        if let Standing::Doomed(trouble) = standing {
            return Sight::Doomed(trouble.clone());
        }
    }
    if let Some(reason) = workloads.iter().find_map(|o| given_up(o)) {
        return Sight::GivenUp(End::new(reason));
    }
    let counts = counts(&workloads, &standings);
    let waiting = standings.iter().find_map(|(pod, standing)| match standing {
        Standing::Waiting(what) => Some(format!("{}: {what}", pod.metadata.name)),
        _ => None,
    });
    let objects = workloads.iter().find_map(|o| not_ready(o));
    match (missing(&workloads, &standings), waiting, objects) {
        (false, _, None) => Sight::Ready(counts),
        (_, Some(pod), _) => Sight::Pending(format!("{counts}; {pod}")),
        (_, None, Some(object)) => Sight::Pending(format!("{counts}; {object}")),
        (true, None, None) => Sight::Pending(counts),
    }
}

/// Pods that `object` asks for, by what they are for.
fn asked(object: &Object) -> Vec<(String, u32)> {
    let spec = &object.spec;
    match object.kind.as_str() {
        "LeaderWorkerSet" => {
            let groups = spec.replicas.unwrap_or(1);
            let size = spec.leader_worker_template.as_ref().map_or(1, |t| t.size);
            let workers = groups.saturating_mul(size.saturating_sub(1));
            vec![("leader".to_owned(), groups), ("worker".to_owned(), workers)]
        }
        "RayService" => {
            let groups = spec.ray_cluster_config.iter().flat_map(|c| &c.worker_group_specs);
            vec![("head".to_owned(), 1), ("worker".to_owned(), groups.map(|g| g.replicas).sum())]
        }
        "DynamoGraphDeployment" => {
            spec.components.iter().map(|c| (c.r#type.clone(), c.replicas)).collect()
        }
        _ => {
            let role = spec.template.metadata.labels.get(ROLE).cloned();
            vec![(role.unwrap_or_default(), spec.replicas.unwrap_or(1))]
        }
    }
}

/// Asked and ready pods, by what they are for.
fn by_role(workloads: &[&Object], pods: &[(&Pod, Standing)]) -> BTreeMap<String, (u32, u32)> {
    let mut roles: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for (role, count) in workloads.iter().flat_map(|o| asked(o)) {
        roles.entry(role).or_default().0 += count;
    }
    for (pod, _) in pods.iter().filter(|(_, standing)| *standing == Standing::Ready) {
        if let Some((_, ready)) = roles.get_mut(pods::role(pod)) {
            *ready += 1;
        }
    }
    roles
}

fn missing(workloads: &[&Object], pods: &[(&Pod, Standing)]) -> bool {
    by_role(workloads, pods).values().any(|(asked, ready)| ready < asked)
}

/// `3 of 7 prefill pods and 1 of 1 decode pods ready`.
fn counts(workloads: &[&Object], pods: &[(&Pod, Standing)]) -> String {
    let roles = by_role(workloads, pods);
    let parts: Vec<String> = roles
        .iter()
        .filter(|(_, (asked, _))| *asked > 0)
        .map(|(role, (asked, ready))| {
            let space = if role.is_empty() { "" } else { " " };
            format!("{ready} of {asked} {role}{space}pods")
        })
        .collect();
    format!("{} ready", parts.join(" and "))
}

/// Why `object` is not ready yet, by its own status.
fn not_ready(object: &Object) -> Option<String> {
    if !object.is_current() {
        return Some(format!("{} was not looked at by its controller yet", object.kind));
    }
    let name = &object.kind;
    match name.as_str() {
        "RayService" => not_serving(object),
        "DynamoGraphDeployment" => match object.status.state.as_deref() {
            Some("successful") => None,
            state => {
                let message = object.condition("Ready").map_or("", |c| c.message.as_str());
                Some(format!("{name} is {}: {message}", state.unwrap_or("not looked at yet")))
            }
        },
        _ => {
            let asked = object.spec.replicas.unwrap_or(1);
            let ready = object.status.ready_replicas;
            let called = &object.metadata.name;
            (ready < asked).then(|| format!("{name} {called} has {ready} of {asked} ready"))
        }
    }
}

/// Why a RayService does not serve. Before KubeRay 1.3 it has a word for its state instead of conditions.
fn not_serving(object: &Object) -> Option<String> {
    let serves = match object.condition("Ready") {
        Some(condition) => condition.is_true(),
        None => object.status.service_status.as_deref() == Some("Running"),
    };
    if serves {
        return None;
    }
    let said = serving(object).find_map(|(name, app)| {
        (app.status != "RUNNING").then(|| format!("{name} is {}: {}", app.status, told(app)))
    });
    let condition = object.condition("Ready").map(|c| c.message.clone());
    let text = said.or(condition).unwrap_or_else(|| "its cluster comes up".to_owned());
    Some(format!("RayService: {text}"))
}

fn serving(object: &Object) -> impl Iterator<Item = (&String, &Application)> {
    let ServeStatus { application_statuses: active } = &object.status.active_service_status;
    let ServeStatus { application_statuses: pending } = &object.status.pending_service_status;
    active.iter().chain(pending)
}

/// What an application says, or the first of its deployments that says something.
fn told(app: &Application) -> &str {
    let deployments = app.serve_deployment_statuses.values().map(|d| d.message.as_str());
    std::iter::once(app.message.as_str())
        .chain(deployments)
        .map(str::trim)
        .find(|m| !m.is_empty())
        .unwrap_or("no reason given yet")
}

/// What Ray Serve does not try again.
fn given_up(object: &Object) -> Option<String> {
    serving(object).find_map(|(name, app)| {
        (app.status == "DEPLOY_FAILED")
            .then(|| format!("application {name} of Ray Serve is DEPLOY_FAILED: {}", told(app)))
    })
}
