//! SkyPilot: a task of one node. It is brought up as a cluster named after experiment and deployment.

use super::shell::command;
use super::subject::{Subject, Ways};
use super::{RenderError, Rendered, k8s, yaml};
use scalebeam_model::plan::{EngineKind, EnvValue, ProcessPlan};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Task {
    name: String,
    num_nodes: u32,
    resources: Resources,
    setup: String,
    run: String,
}

#[derive(Debug, Serialize)]
struct Resources {
    #[serde(skip_serializing_if = "Option::is_none")]
    cloud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accelerators: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_id: Option<String>,
    ports: u16,
    disk_size: u64,
}

pub(super) fn render(subject: &Subject<'_>) -> Result<Rendered, RenderError> {
    subject.only_servers()?;
    let [instance] = subject.deployment.instances.as_slice() else {
        let reason = format!("it has {} instances", subject.deployment.instances.len());
        return Err(subject.cannot(reason, "a task is one: set replicas = 1"));
    };
    let server = subject.server_of(instance)?;
    let gpus = k8s::gpus(subject, instance);
    let kind = subject.gpu_kind()?;
    let cluster = &subject.full_name;
    let task = Task {
        name: cluster.clone(),
        num_nodes: 1,
        resources: Resources {
            cloud: subject.text("cloud").map(str::to_owned),
            region: subject.text("region").map(str::to_owned),
            accelerators: kind.map(|kind| format!("{kind}:{gpus}")),
            image_id: subject.deployment.image.as_ref().map(|image| format!("docker:{image}")),
            ports: subject.port(),
            disk_size: subject.integer("disk_size").unwrap_or(512),
        },
        setup: setup(subject)?,
        run: format!("exec {}", command(server)),
    };
    let text = yaml::document(subject, &task)?;
    let ways = Ways {
        up: format!("sky launch -y -d -c {cluster}{} FILE", secrets(server)),
        down: format!("sky down -y {cluster}"),
        endpoints: vec![format!("http://HOST:{}", subject.port())],
    };
    Ok(subject.rendered_yaml(&text, ways))
}

/// The option that passes the token on by name, where the shell has it. Not the other variables: the paths
/// of this machine's caches mean nothing on another.
fn secrets(server: &ProcessPlan) -> String {
    let inherited = server.env.iter().filter(|(_, v)| matches!(v, EnvValue::Inherit { .. }));
    inherited
        .filter(|(n, _)| *n == "HF_TOKEN")
        .map(|(n, _)| format!(" ${{{n}:+--secret {n}}}"))
        .collect()
}

fn setup(subject: &Subject<'_>) -> Result<String, RenderError> {
    let given = subject.list("setup");
    if !given.is_empty() || subject.deployment.image.is_some() {
        return Ok(given.join("\n"));
    }
    let package = match subject.deployment.engine {
        EngineKind::Vllm => "vllm",
        EngineKind::Sglang => "sglang[all]",
        _ => return Err(subject.cannot("it says no setup", "add params = { setup = [\"..\"] }")),
    };
    match &subject.deployment.version {
        Some(version) => Ok(format!("pip install '{package}=={version}'")),
        None => Err(subject.cannot("it names no version of its engine", "add version = \"..\"")),
    }
}
