//! NVIDIA Dynamo by its operator: a DynamoGraphDeployment with a frontend and a component for each kind of
//! worker. How the parts find each other is the operator's.

use super::k8s::{self, Group};
use super::kube::{Pod, ROLE, Template};
use super::subject::Subject;
use super::{RenderError, Rendered, yaml};
use scalebeam_model::plan::{EngineKind, InstancePlan, Role};
use serde::Serialize;

/// What the operator's Service of a frontend listens on.
const FRONTEND_PORT: u16 = 8000;
const FRONTEND: &str = "frontend";

#[derive(Debug, Serialize)]
struct GraphSpec {
    components: Vec<Component>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    name: String,
    r#type: &'static str,
    replicas: u32,
    pod_template: Template,
}

pub(super) fn render(subject: &Subject<'_>) -> Result<Rendered, RenderError> {
    check(subject)?;
    let Some(frontend) = subject.deployment.processes.iter().find(|p| p.instance.is_none()) else {
        return Err(subject.cannot("it has no frontend", "use a Dynamo engine"));
    };
    let pod = Pod { process: frontend, gpus: 0, host: "" };
    let mut components = vec![component(subject, "Frontend".to_owned(), FRONTEND, 1, pod)?];
    for (role, title) in
        [(Role::Aggregated, "Worker"), (Role::Prefill, "Prefill"), (Role::Decode, "Decode")]
    {
        let groups = groups(subject, role)?;
        for (index, group) in groups.iter().enumerate() {
            let name = match groups.len() {
                1 => title.to_owned(),
                _ => format!("{title}{index}"),
            };
            components.push(component(subject, name, kind(role), group.replicas, group.pod)?);
        }
    }
    let api = ("nvidia.com/v1beta1", "DynamoGraphDeployment");
    let object = subject.object(api, &subject.name, GraphSpec { components });
    let mut documents = vec![yaml::document(subject, &object)?];
    let mut selector = subject.own_labels();
    selector.insert(ROLE.to_owned(), FRONTEND.to_owned());
    for service in subject.exposed(&[], selector)? {
        documents.push(yaml::document(subject, &service)?);
    }
    Ok(subject.rendered_yaml(&yaml::joined(&documents), subject.kubectl(&[])))
}

fn check(subject: &Subject<'_>) -> Result<(), RenderError> {
    let d = subject.deployment;
    let dynamo = [EngineKind::DynamoVllm, EngineKind::DynamoSglang, EngineKind::DynamoMocker];
    if !dynamo.contains(&d.engine) {
        let reason = format!("engine {} is not Dynamo's", d.engine.name());
        return Err(subject.cannot(reason, "use engine = \"dynamo-vllm\", or platform = \"k8s\""));
    }
    if subject.port() != FRONTEND_PORT {
        let reason = format!("its port is {}; the operator's frontend has 8000", subject.port());
        return Err(subject.cannot(reason, "set port = 8000"));
    }
    let spans = |instance: &&InstancePlan| instance.place.len() > 1;
    match d.instances.iter().find(spans) {
        Some(instance) => Err(subject.cannot(
            format!("instance {} spans nodes, which is not rendered", instance.index),
            "make the instances as large as a node at most",
        )),
        None => Ok(()),
    }
}

const fn kind(role: Role) -> &'static str {
    match role {
        Role::Aggregated => "worker",
        Role::Prefill => "prefill",
        Role::Decode => "decode",
    }
}

fn groups<'a>(subject: &Subject<'a>, role: Role) -> Result<Vec<Group<'a>>, RenderError> {
    let mut groups = Vec::new();
    for instance in subject.deployment.instances.iter().filter(|i| i.role == role) {
        k8s::add(&mut groups, subject, k8s::pod(subject, instance)?);
    }
    Ok(groups)
}

fn component(
    subject: &Subject<'_>,
    name: String,
    r#type: &'static str,
    replicas: u32,
    pod: Pod<'_>,
) -> Result<Component, RenderError> {
    let mut template = subject.template(pod)?;
    template.metadata.labels.insert(ROLE.to_owned(), r#type.to_owned());
    if pod.gpus == 0 {
        // What is said of an engine's pod is too much for a frontend.
        for container in &mut template.spec.containers {
            container.resources = Default::default();
        }
    }
    Ok(Component { name, r#type, replicas, pod_template: template })
}
