//! Plain Kubernetes: a Deployment with its Service; of several instances, StatefulSets.
//!
//! An instance is a pod. A StatefulSet gives each a name, so that all can be attached to one by one. Instances
//! that are placed on hosts with other labels are another set, so that each may have a node selector of its
//! own.

use super::kube::{Pod, Selector, Template};
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

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatefulSetSpec {
    replicas: u32,
    service_name: String,
    pod_management_policy: &'static str,
    selector: Selector,
    template: Template,
}

pub(super) fn render(subject: &Subject<'_>) -> Result<Rendered, RenderError> {
    subject.only_servers()?;
    let groups = groups(subject)?;
    let all = subject.own_labels();
    let mut documents = Vec::new();
    let mut pods = Vec::new();
    if let [only] = groups.as_slice()
        && only.replicas == 1
    {
        documents.push(deployment(subject, only)?);
    } else {
        let service = format!("{}-pods", subject.name);
        for (index, group) in groups.iter().enumerate() {
            let name = subject.numbered(index, groups.len());
            documents.push(stateful_set(subject, group, &name, &service)?);
            pods.extend((0..group.replicas).map(|i| format!("{name}-{i}.{service}")));
        }
        documents.push(yaml::document(subject, &subject.headless(&service, all.clone()))?);
    }
    documents.push(yaml::document(subject, &subject.service(&subject.name, all.clone()))?);
    for service in subject.exposed(&pods, all)? {
        documents.push(yaml::document(subject, &service)?);
    }
    Ok(subject.rendered_yaml(&yaml::joined(&documents), subject.kubectl(&pods)))
}

fn deployment(subject: &Subject<'_>, group: &Group<'_>) -> Result<String, RenderError> {
    let mut template = subject.template(group.pod)?;
    subject.serve(&mut template)?;
    deployment_of(subject, &subject.name, group.replicas, template)
}

/// The Deployment `name` of `replicas` pods like `template`.
pub(super) fn deployment_of(
    subject: &Subject<'_>,
    name: &str,
    replicas: u32,
    mut template: Template,
) -> Result<String, RenderError> {
    let spec = DeploymentSpec {
        replicas,
        // A rolling update would hold twice the GPUs.
        strategy: Strategy { r#type: "Recreate" },
        selector: select(subject, name, &mut template),
        template,
    };
    yaml::document(subject, &subject.object(("apps/v1", "Deployment"), name, spec))
}

fn stateful_set(
    subject: &Subject<'_>,
    group: &Group<'_>,
    name: &str,
    service: &str,
) -> Result<String, RenderError> {
    let mut template = subject.template(group.pod)?;
    subject.serve(&mut template)?;
    let selector = select(subject, name, &mut template);
    let spec = StatefulSetSpec {
        replicas: group.replicas,
        service_name: service.to_owned(),
        // One after the other, each would wait for the model of the one before.
        pod_management_policy: "Parallel",
        selector,
        template,
    };
    yaml::document(subject, &subject.object(("apps/v1", "StatefulSet"), name, spec))
}

/// What finds the pods of the set `name` and no others; they get the labels for it.
fn select(subject: &Subject<'_>, name: &str, template: &mut Template) -> Selector {
    let mut match_labels = subject.own_labels();
    match_labels.insert("app.kubernetes.io/component".to_owned(), name.to_owned());
    template.metadata.labels.extend(match_labels.clone());
    Selector { match_labels }
}

/// Pods that are alike.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) pod: Pod<'a>,
    pub(super) replicas: u32,
}

/// Instances by what their pods are. Only neighbours are together, so that pods are in plan order.
fn groups<'a>(subject: &Subject<'a>) -> Result<Vec<Group<'a>>, RenderError> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for instance in &subject.deployment.instances {
        let pod = pod(subject, instance)?;
        match groups.last_mut().filter(|group| same(subject, group.pod, pod)) {
            Some(group) => group.replicas += 1,
            None => groups.push(Group { pod, replicas: 1 }),
        }
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
    match groups.iter_mut().find(|group| same(subject, group.pod, pod)) {
        Some(group) => group.replicas += 1,
        None => groups.push(Group { pod, replicas: 1 }),
    }
}

/// Whether two pods can have one template: what they run is the same but for where it is, and the same
/// labels pick their nodes.
pub(super) fn same(subject: &Subject<'_>, a: Pod<'_>, b: Pod<'_>) -> bool {
    let is_alike = |a: &ProcessPlan, b: &ProcessPlan| {
        (&a.program, &a.args, &a.env) == (&b.program, &b.args, &b.env)
    };
    is_alike(a.process, b.process)
        && a.gpus == b.gpus
        && subject.selector(a.host) == subject.selector(b.host)
}
