//! llm-d's way into a cluster: an InferencePool of the Gateway API's inference extension, with an endpoint picker
//! and a gateway of the deployment's own before its pods.
//!
//! ```text
//! client ─► Gateway ─► HTTPRoute ─► InferencePool ─► pods of the engine
//!                                        │ asks for each request
//!                                        ▼
//!                                  endpoint picker
//! ```
//!
//! A picker that fails closes the pool (`FailClose`): with requests that are spread at random instead, something else
//! would be measured than what the file says.

use super::k8s::{self, Group};
use super::kube::{Container, ContainerPort, Labels, ROLE, Selector, ServicePort, Template};
use super::rbac::{self, Rule, rule};
use super::subject::{Subject, Ways};
use super::{RenderError, Rendered, yaml};
use serde::Serialize;

/// API of the pool.
const POOL_GROUP: &str = "inference.networking.k8s.io";
const POOL_API: &str = "inference.networking.k8s.io/v1";
/// API of gateways and routes.
const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";
/// What the pods of the pool are for, and that of the picker.
const SERVER: &str = "server";
const PICKER: &str = "picker";
/// Ports of the picker: where the gateway asks, its health, its metrics.
const ASK_PORT: u16 = 9002;
const HEALTH_PORT: u16 = 9003;
const METRICS_PORT: u16 = 9090;
/// The name under which the picker tells its health.
const HEALTH_SERVICE: &str = "envoy.service.ext_proc.v3.ExternalProcessor";
/// What the picker weighs where the file does not say: as llm-d's own chart.
const SCORERS: [(&str, u32); 3] =
    [("queue-scorer", 2), ("kv-cache-utilization-scorer", 2), ("prefix-cache-scorer", 3)];

pub(super) fn render(subject: &Subject<'_>) -> Result<Rendered, RenderError> {
    subject.only_servers()?;
    // That the cluster's own network reaches to here is true of a gateway as well.
    if subject.text("expose").is_some_and(|way| way != "ClusterIP") {
        let hint = "remove it: the gateway's class says how a gateway is reached";
        return Err(subject.cannot("it has a gateway, so expose means nothing", hint));
    }
    let mut documents = servers(subject)?;
    documents.extend(picker(subject)?);
    documents.extend(way(subject)?);
    let gateway = gateway_name(subject);
    let ways = Ways {
        up: "kubectl apply -f FILE".to_owned(),
        down: "kubectl delete -f FILE --ignore-not-found".to_owned(),
        // A gateway is given an address of its own; `kubectl get gateway` shows it.
        endpoints: vec![format!("http://ADDRESS-OF-{}:{}", gateway.to_uppercase(), subject.port())],
    };
    Ok(subject.rendered_yaml(&yaml::joined(&documents), ways))
}

fn gateway_name(subject: &Subject<'_>) -> String {
    format!("{}-gateway", subject.name)
}

fn picker_name(subject: &Subject<'_>) -> String {
    format!("{}-picker", subject.name)
}

/// Labels of the pods that are for `role`.
fn labels(subject: &Subject<'_>, role: &str) -> Labels {
    let mut labels = subject.own_labels();
    labels.insert(ROLE.to_owned(), role.to_owned());
    labels
}

/// The engine's pods. Nobody asks one by its name, so a Deployment of as many as there are instances does.
fn servers(subject: &Subject<'_>) -> Result<Vec<String>, RenderError> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for instance in &subject.deployment.instances {
        k8s::add(&mut groups, subject, k8s::pod(subject, instance)?);
    }
    let count = groups.len();
    let mut documents = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let mut template = subject.template(group.pod)?;
        subject.serve(&mut template)?;
        template.metadata.labels.extend(labels(subject, SERVER));
        let name = subject.numbered(index, count);
        documents.push(k8s::deployment_of(subject, &name, group.replicas, template)?);
    }
    Ok(documents)
}

/// What the picker may see: the pods of its namespace, and the pool that it picks for.
pub(super) fn picker_rules() -> Vec<Rule> {
    const SEE: &[&str] = &["get", "watch", "list"];
    let objectives = ["inferencepools", "inferenceobjectives", "inferencemodelrewrites"];
    vec![
        rule("", &["pods"], SEE),
        rule(POOL_GROUP, &["inferencepools"], SEE),
        rule("inference.networking.x-k8s.io", &objectives, SEE),
    ]
}

/// The endpoint picker with its account, its rights and its Service.
fn picker(subject: &Subject<'_>) -> Result<Vec<String>, RenderError> {
    let name = picker_name(subject);
    let port = |name, port| ServicePort { name, port, target_port: port, app_protocol: None };
    let ask = ServicePort { app_protocol: Some("http2"), ..port("grpc", ASK_PORT) };
    let service = subject.service_with(
        &name,
        labels(subject, PICKER),
        vec![ask, port("metrics", METRICS_PORT)],
    );
    let mut documents = rbac::account(subject, &name, picker_rules())?.to_vec();
    documents.push(k8s::deployment_of(subject, &name, 1, picker_pod(subject, &name)?)?);
    documents.push(yaml::document(subject, &service)?);
    Ok(documents)
}

fn picker_pod(subject: &Subject<'_>, account: &str) -> Result<Template, RenderError> {
    let Some(image) = subject.text("picker_image") else {
        let hint = "add params = { picker_image = \"REPOSITORY:TAG\" }: that of the endpoint picker of your llm-d";
        return Err(subject.cannot("it names no image of its endpoint picker", hint));
    };
    let mut args = vec![
        "--pool-group".to_owned(),
        POOL_GROUP.to_owned(),
        "--pool-name".to_owned(),
        subject.name.clone(),
        "--pool-namespace".to_owned(),
        "$(NAMESPACE)".to_owned(),
        "--grpc-port".to_owned(),
        ASK_PORT.to_string(),
        "--grpc-health-port".to_owned(),
        HEALTH_PORT.to_string(),
        "--metrics-port".to_owned(),
        METRICS_PORT.to_string(),
        // Its counts say whether it picked at all; reading them must not need a token.
        "--metrics-endpoint-auth=false".to_owned(),
        "--config-text".to_owned(),
        config(subject)?,
    ];
    args.extend(subject.list("picker_args").iter().map(|arg| super::kube::literal(arg)));
    let port = |name, container_port| ContainerPort { name, container_port };
    let container = Container {
        name: "picker",
        image: image.to_owned(),
        args,
        env: vec![super::kube::of_field("NAMESPACE", "metadata.namespace")],
        ports: vec![
            port("grpc", ASK_PORT),
            port("grpc-health", HEALTH_PORT),
            port("metrics", METRICS_PORT),
        ],
        readiness_probe: Some(super::kube::grpc_probe(HEALTH_PORT, HEALTH_SERVICE)),
        ..Container::default()
    };
    let mut template = subject.template_of(container, Labels::new());
    template.spec.service_account_name = Some(account.to_owned());
    template.spec.volumes.clear();
    template.metadata.labels.extend(labels(subject, PICKER));
    Ok(template)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PickerConfig<'a> {
    api_version: &'static str,
    kind: &'static str,
    plugins: Vec<Plugin<'a>>,
    scheduling_profiles: [Profile<'a>; 1],
}

#[derive(Debug, Serialize)]
struct Plugin<'a> {
    r#type: &'a str,
}

#[derive(Debug, Serialize)]
struct Profile<'a> {
    name: &'static str,
    plugins: Vec<Weighed<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Weighed<'a> {
    plugin_ref: &'a str,
    weight: u32,
}

/// The picker's configuration: what it weighs, and how much. JSON, which is YAML too, and stays on one line.
fn config(subject: &Subject<'_>) -> Result<String, RenderError> {
    let scorers = scorers(subject)?;
    let config = PickerConfig {
        api_version: "llm-d.ai/v1alpha1",
        kind: "EndpointPickerConfig",
        plugins: scorers.iter().map(|(r#type, _)| Plugin { r#type }).collect(),
        scheduling_profiles: [Profile {
            name: "default",
            plugins: scorers
                .iter()
                .map(|(plugin_ref, weight)| Weighed { plugin_ref, weight: *weight })
                .collect(),
        }],
    };
    let text = serde_json::to_string(&config).map_err(|error| {
        subject.cannot(format!("its picker's configuration cannot be written: {error}"), "")
    })?;
    Ok(super::kube::literal(&text))
}

/// Names and weights, by `picker = ["prefix-cache-scorer=3", ..]`.
fn scorers<'a>(subject: &Subject<'a>) -> Result<Vec<(&'a str, u32)>, RenderError> {
    let asked = subject.list("picker");
    if asked.is_empty() {
        return Ok(SCORERS.to_vec());
    }
    let read = |text: &'a String| -> Option<(&'a str, u32)> {
        let (name, weight) = text.split_once('=')?;
        Some((name.trim(), weight.trim().parse().ok()?))
    };
    let named = |text: &'a String| {
        read(text).filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
            subject.cannot(
                format!("picker has '{text}', which is no scorer with a weight"),
                "write it as \"prefix-cache-scorer=3\"",
            )
        })
    };
    asked.iter().map(named).collect()
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolSpec {
    selector: Selector,
    target_ports: [Number; 1],
    endpoint_picker_ref: PickerRef,
}

#[derive(Debug, Serialize)]
struct Number {
    number: u16,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PickerRef {
    name: String,
    port: Number,
    failure_mode: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GatewaySpec<'a> {
    gateway_class_name: &'a str,
    listeners: [Listener; 1],
}

#[derive(Debug, Serialize)]
struct Listener {
    name: &'static str,
    port: u16,
    protocol: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RouteSpec {
    parent_refs: [Parent; 1],
    rules: [RouteRule; 1],
}

#[derive(Debug, Serialize)]
struct Parent {
    name: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RouteRule {
    backend_refs: [Backend; 1],
    timeouts: Timeouts,
}

#[derive(Debug, Serialize)]
struct Backend {
    group: &'static str,
    kind: &'static str,
    name: String,
}

#[derive(Debug, Serialize)]
struct Timeouts {
    request: &'static str,
}

/// The way of a request: gateway, route and pool.
fn way(subject: &Subject<'_>) -> Result<Vec<String>, RenderError> {
    let Some(class) = subject.text("gateway_class") else {
        let hint =
            "add params = { gateway_class = \"..\" }: `kubectl get gatewayclasses` lists them";
        return Err(subject.cannot("it names no class of its gateway", hint));
    };
    let pool = PoolSpec {
        selector: Selector { match_labels: labels(subject, SERVER) },
        target_ports: [Number { number: subject.port() }],
        endpoint_picker_ref: PickerRef {
            name: picker_name(subject),
            port: Number { number: ASK_PORT },
            failure_mode: "FailClose",
        },
    };
    let listener = Listener { name: "http", port: subject.port(), protocol: "HTTP" };
    let gateway = GatewaySpec { gateway_class_name: class, listeners: [listener] };
    let backend = Backend { group: POOL_GROUP, kind: "InferencePool", name: subject.name.clone() };
    let route = RouteSpec {
        parent_refs: [Parent { name: gateway_name(subject) }],
        // How long a request may take is the load's to say.
        rules: [RouteRule { backend_refs: [backend], timeouts: Timeouts { request: "0s" } }],
    };
    Ok(vec![
        yaml::document(subject, &subject.object((POOL_API, "InferencePool"), &subject.name, pool))?,
        yaml::document(
            subject,
            &subject.object((GATEWAY_API, "Gateway"), &gateway_name(subject), gateway),
        )?,
        yaml::document(subject, &subject.object((GATEWAY_API, "HTTPRoute"), &subject.name, route))?,
    ])
}
