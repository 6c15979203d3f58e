//! KubeRay: a RayService whose application is Ray Serve LLM.
//!
//! A worker group is a host of the file with the GPUs that the deployment takes of it, or, where nothing
//! is placed, one pod an instance. Replicas are fixed: an autoscaler would change what is weighed.

use super::kube::{Container, ContainerPort, Labels, Resources, Template};
use super::subject::Subject;
use super::{RenderError, Rendered, k8s, yaml};
use scalebeam_model::plan::{EngineKind, ProcessPlan, object_name};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const SERVE_PORT: u16 = 8000;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RayServiceSpec {
    #[serde(rename = "serveConfigV2")]
    serve_config_v2: serde_saphyr::LitString,
    ray_cluster_config: RayClusterSpec,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RayClusterSpec {
    ray_version: String,
    head_group_spec: HeadGroup,
    worker_group_specs: Vec<WorkerGroup>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HeadGroup {
    ray_start_params: BTreeMap<&'static str, String>,
    template: Template,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkerGroup {
    group_name: String,
    replicas: u32,
    min_replicas: u32,
    max_replicas: u32,
    ray_start_params: BTreeMap<&'static str, String>,
    template: Template,
}

#[derive(Debug, Serialize)]
struct ServeConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    http_options: Option<HttpOptions>,
    applications: Vec<Application>,
}

#[derive(Debug, Serialize)]
struct HttpOptions {
    host: &'static str,
    port: u16,
}

#[derive(Debug, Serialize)]
struct Application {
    name: &'static str,
    import_path: String,
    route_prefix: &'static str,
    args: Map<String, Value>,
}

pub(super) fn render(subject: &Subject<'_>) -> Result<Rendered, RenderError> {
    if subject.deployment.engine != EngineKind::RayServeLlm {
        let reason =
            format!("engine {} is no application of Ray Serve", subject.deployment.engine.name());
        return Err(subject.cannot(reason, "use engine = \"ray-serve-llm\", or platform = \"k8s\""));
    }
    let Some(app) = subject.deployment.processes.first() else {
        return Err(subject.cannot("it has no application", "set replicas = 1"));
    };
    let config = yaml::document(subject, &serve_config(subject, app)?)?;
    let spec = RayServiceSpec {
        serve_config_v2: serde_saphyr::LitString(config),
        ray_cluster_config: RayClusterSpec {
            ray_version: ray_version(subject)?,
            head_group_spec: head(subject, app)?,
            worker_group_specs: workers(subject, app)?,
        },
    };
    let object = subject.object(("ray.io/v1", "RayService"), &subject.name, spec);
    let mut documents = vec![yaml::document(subject, &object)?];
    let mut selector = subject.own_labels();
    // Its operator's label of pods whose proxy takes requests.
    selector.insert("ray.io/serve".to_owned(), "true".to_owned());
    for service in subject.exposed(&[], selector)? {
        documents.push(yaml::document(subject, &service)?);
    }
    Ok(subject.rendered_yaml(&yaml::joined(&documents), subject.kubectl(&[])))
}

/// The application that the plan's `serve run IMPORT KEY=JSON ..` starts.
fn serve_config(subject: &Subject<'_>, app: &ProcessPlan) -> Result<ServeConfig, RenderError> {
    let unreadable = || {
        let hint = "this is a defect of scalebeam; please report it with the experiment file";
        subject.cannot(format!("the command of {} is not understood", app.id), hint)
    };
    let [_run, import_path, given @ ..] = app.args.as_slice() else { return Err(unreadable()) };
    let mut args = Map::new();
    for word in given {
        let (key, value) = word.split_once('=').ok_or_else(unreadable)?;
        args.insert(key.to_owned(), serde_json::from_str(value).map_err(|_| unreadable())?);
    }
    if let Some(most) = subject.most_in_flight() {
        admit(&mut args, most);
    }
    let port = subject.port();
    Ok(ServeConfig {
        http_options: (port != SERVE_PORT).then_some(HttpOptions { host: "0.0.0.0", port }),
        applications: vec![Application {
            name: "llms",
            import_path: import_path.clone(),
            route_prefix: "/",
            args,
        }],
    })
}

/// Lets a replica hold every request of the load, so that Ray queues none that the engine would take.
fn admit(args: &mut Map<String, Value>, most: u64) {
    let configs = args.get_mut("llm_configs").and_then(Value::as_array_mut);
    for config in configs.into_iter().flatten() {
        if let Some(deployment) = config.get_mut("deployment_config").and_then(Value::as_object_mut)
        {
            deployment.entry("max_ongoing_requests").or_insert_with(|| json!(most));
        }
    }
}

/// The version that the cluster is told must be that of its image, to the patch.
fn ray_version(subject: &Subject<'_>) -> Result<String, RenderError> {
    if let Some(version) = subject.text("ray_version") {
        return Ok(version.to_owned());
    }
    let image = subject.image()?;
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    let version: String = tag.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    if version.split('.').filter(|part| !part.is_empty()).count() == 3 {
        return Ok(version);
    }
    let reason = format!("the tag of image {image} does not begin with Ray's version");
    Err(subject.cannot(reason, "add params = { ray_version = \"2.52.0\" }"))
}

fn head(subject: &Subject<'_>, app: &ProcessPlan) -> Result<HeadGroup, RenderError> {
    let port = |name, container_port| ContainerPort { name, container_port };
    let limits = BTreeMap::from([
        ("cpu", subject.integer("head_cpus").unwrap_or(4).to_string()),
        ("memory", subject.text("head_memory").unwrap_or("16Gi").to_owned()),
    ]);
    let container = Container {
        name: "ray-head",
        image: subject.image()?,
        env: subject.env(app),
        ports: vec![
            port("gcs", 6379),
            port("dashboard", 8265),
            port("client", 10001),
            port("metrics", 8080),
            port("serve", subject.port()),
        ],
        resources: Resources { limits },
        volume_mounts: subject.mounts(),
        ..Container::default()
    };
    let nothing = || "0".to_owned();
    Ok(HeadGroup {
        // No replica on the head: it would take from its CPUs, and has no GPU.
        ray_start_params: BTreeMap::from([("num-cpus", nothing()), ("num-gpus", nothing())]),
        template: subject.template_of(container, Labels::new()),
    })
}

fn workers(subject: &Subject<'_>, app: &ProcessPlan) -> Result<Vec<WorkerGroup>, RenderError> {
    let mut groups = Vec::new();
    for pods in pods(subject) {
        let container = Container {
            name: "ray-worker",
            image: subject.image()?,
            env: subject.env(app),
            resources: subject.resources(pods.gpus),
            volume_mounts: subject.mounts(),
            ..Container::default()
        };
        groups.push(WorkerGroup {
            group_name: object_name(&pods.name),
            replicas: pods.replicas,
            min_replicas: pods.replicas,
            max_replicas: pods.replicas,
            ray_start_params: BTreeMap::from([("num-gpus", pods.gpus.to_string())]),
            template: subject.template_of(container, subject.selector(&pods.name)),
        });
    }
    Ok(groups)
}

/// Worker pods that are alike.
#[derive(Debug)]
struct Pods {
    name: String,
    replicas: u32,
    gpus: u64,
}

fn pods(subject: &Subject<'_>) -> Vec<Pods> {
    let mut pods: Vec<Pods> = Vec::new();
    let mut add = |name: &str, gpus: u64| match pods.iter_mut().find(|p| p.name == name) {
        Some(known) => known.gpus += gpus,
        None => pods.push(Pods { name: name.to_owned(), replicas: 1, gpus }),
    };
    for instance in &subject.deployment.instances {
        for place in &instance.place {
            add(&place.host, place.ids.len() as u64);
        }
    }
    let anywhere = subject.deployment.instances.iter().filter(|i| i.place.is_empty());
    let each = anywhere.clone().next().map(|i| k8s::gpus(subject, i));
    let replicas = u32::try_from(anywhere.count()).unwrap_or(u32::MAX);
    pods.extend(each.map(|gpus| Pods { name: "workers".to_owned(), replicas, gpus }));
    pods
}
