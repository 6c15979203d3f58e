//! Plain Kubernetes: a Deployment for each kind of pod, and one Service over all of them.
//!
//! An instance is a pod. Instances that are placed on hosts with other labels are another Deployment, so
//! that each may have a node selector of its own.

use super::kube::{Labels, Pod, Selector, Template};
use super::subject::Subject;
use super::{RenderError, Rendered, yaml};
use scalebeam_model::plan::{InstancePlan, ProcessPlan};
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeploymentSpec {
    replicas: u32,
    strategy: Strategy,
    selector: Selector,
    template: Template,
}

#[derive(Debug, Serialize)]
struct Strategy {
    r#type: &'static str,
}

pub(super) fn render(subject: &Subject<'_>) -> Result<Rendered, RenderError> {
    subject.only_servers()?;
    let groups = groups(subject)?;
    let mut documents = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let name = match groups.len() {
            1 => subject.name.clone(),
            _ => format!("{}-{index}", subject.name),
        };
        let spec = spec(subject, group, &name)?;
        let object = subject.object(("apps/v1", "Deployment"), &name, spec);
        documents.push(yaml::document(subject, &object)?);
    }
    documents.push(yaml::document(subject, &subject.service(&subject.name, subject.own_labels()))?);
    Ok(subject.rendered_yaml(&yaml::joined(&documents), subject.kubectl()))
}

fn spec(
    subject: &Subject<'_>,
    group: &Group<'_>,
    name: &str,
) -> Result<DeploymentSpec, RenderError> {
    let mut template = subject.template(group.pod)?;
    subject.serve(&mut template);
    let mut match_labels = subject.own_labels();
    match_labels.insert("app.kubernetes.io/component".to_owned(), name.to_owned());
    template.metadata.labels.extend(match_labels.clone());
    Ok(DeploymentSpec {
        replicas: group.replicas,
        // A rolling update would hold twice the GPUs.
        strategy: Strategy { r#type: "Recreate" },
        selector: Selector { match_labels },
        template,
    })
}

/// Pods that are alike.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) pod: Pod<'a>,
    pub(super) replicas: u32,
}

/// Instances by what their pods are, in plan order.
fn groups<'a>(subject: &Subject<'a>) -> Result<Vec<Group<'a>>, RenderError> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for instance in &subject.deployment.instances {
        add(&mut groups, subject, pod(subject, instance)?);
    }
    Ok(groups)
}

/// The pod of an instance on one node.
pub(super) fn pod<'a>(
    subject: &Subject<'a>,
    instance: &'a InstancePlan,
) -> Result<Pod<'a>, RenderError> {
    let process = subject.server_of(instance)?;
    let host = instance.place.first().map_or("", |p| p.host.as_str());
    Ok(Pod { process, gpus: gpus(subject, instance), host })
}

/// GPUs of an instance; none where the engine takes none.
pub(super) fn gpus(subject: &Subject<'_>, instance: &InstancePlan) -> u64 {
    if subject.deployment.gpus == 0 { 0 } else { u64::from(instance.gpus()) }
}

/// Counts `pod` to the group of pods like it.
pub(super) fn add<'a>(groups: &mut Vec<Group<'a>>, subject: &Subject<'_>, pod: Pod<'a>) {
    let like = |group: &&mut Group<'_>| {
        let selector = |host| -> Labels { subject.selector(host) };
        alike(group.pod.process, pod.process)
            && group.pod.gpus == pod.gpus
            && selector(group.pod.host) == selector(pod.host)
    };
    match groups.iter_mut().find(like) {
        Some(group) => group.replicas += 1,
        None => groups.push(Group { pod, replicas: 1 }),
    }
}

/// Whether two processes are the same but for where they are.
pub(super) fn alike(a: &ProcessPlan, b: &ProcessPlan) -> bool {
    (&a.program, &a.args, &a.env) == (&b.program, &b.args, &b.env)
}
