//! Objects of Kubernetes: the fields that are used here, spelled once, and the pod that an engine runs in.

use super::RenderError;
use super::subject::{Subject, Ways, seconds};
use scalebeam_model::plan::{EnvValue, Platform, ProcessPlan, entry_host, object_name};
use serde::Serialize;
use std::collections::BTreeMap;

pub(super) type Labels = BTreeMap<String, String>;

/// Variables of the platform that a command may refer to; Kubernetes puts their values in.
const OURS: [&str; 3] = ["$(POD_IP)", "$(LWS_LEADER_ADDRESS)", "$(LWS_WORKER_INDEX)"];
/// Label of everything that is one deployment's. Its value is a name that no other run has, where a run
/// brings it up.
pub(crate) const INSTANCE: &str = "app.kubernetes.io/instance";
/// Label of what a pod is for, where a deployment has several kinds.
pub(crate) const ROLE: &str = "scalebeam/role";
/// Label of a Service for clients outside of the cluster: the number of its entry.
pub(crate) const ENTRY: &str = "scalebeam/entry";
/// Label that a StatefulSet gives to each pod: its name.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const DEFAULT_SHM: &str = "16Gi";
const DEFAULT_ENV_SECRET: &str = "scalebeam-env";
/// Where a volume claim with models is mounted.
const MODELS: &str = "/models";
const PROBE_SECONDS: u64 = 10;

/// Anything with an API version.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Object<S> {
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
    pub(super) metadata: Meta,
    pub(super) spec: S,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    pub(super) labels: Labels,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Template {
    pub(super) metadata: Meta,
    pub(super) spec: PodSpec,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service_account_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) restart_policy: Option<&'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) node_selector: Labels,
    /// Else a Service that is called as the engine would set the engine's variables: of `vllm`, VLLM_PORT.
    enable_service_links: bool,
    pub(super) termination_grace_period_seconds: u64,
    pub(super) containers: Vec<Container>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) volumes: Vec<Volume>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    pub(super) name: &'static str,
    pub(super) image: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) command: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) args: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) env: Vec<EnvVar>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ports: Vec<ContainerPort>,
    #[serde(skip_serializing_if = "Resources::is_empty")]
    pub(super) resources: Resources,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) startup_probe: Option<Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) readiness_probe: Option<Probe>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) volume_mounts: Vec<Mount>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EnvVar {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value_from: Option<ValueFrom>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ValueFrom {
    /// A key of a Secret.
    SecretKeyRef { name: String, key: String, optional: bool },
    /// A field of the pod.
    FieldRef {
        #[serde(rename = "fieldPath")]
        field_path: &'static str,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerPort {
    pub(super) name: &'static str,
    pub(super) container_port: u16,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Resources {
    pub(super) limits: BTreeMap<&'static str, String>,
}

impl Resources {
    fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Probe {
    #[serde(flatten)]
    ask: ProbeKind,
    period_seconds: u64,
    failure_threshold: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum ProbeKind {
    HttpGet { path: String, port: u16 },
    Grpc { port: u16, service: &'static str },
}

/// Asks the health service of gRPC at `port` for `service`, every few seconds.
pub(super) const fn grpc_probe(port: u16, service: &'static str) -> Probe {
    Probe { ask: ProbeKind::Grpc { port, service }, period_seconds: 5, failure_threshold: 3 }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mount {
    name: &'static str,
    mount_path: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Volume {
    name: &'static str,
    #[serde(flatten)]
    source: VolumeSource,
}

impl Volume {
    /// A folder that goes with its pod.
    pub(super) fn scratch(name: &'static str) -> Self {
        Self { name, source: VolumeSource::EmptyDir { medium: None, size_limit: None } }
    }

    /// What is in the claim.
    pub(super) fn of_claim(name: &'static str, claim: &str) -> Self {
        let claim_name = claim.to_owned();
        Self { name, source: VolumeSource::PersistentVolumeClaim { claim_name } }
    }

    /// A file for each entry of the ConfigMap: its key, and where it is below the mount.
    pub(super) fn of_config(
        name: &'static str,
        config: &str,
        places: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let items = places.into_iter().map(|(key, path)| KeyToPath { key, path }).collect();
        Self { name, source: VolumeSource::ConfigMap { name: config.to_owned(), items } }
    }
}

/// Where in a container the volume `name` is.
pub(super) const fn mount(name: &'static str, mount_path: &'static str) -> Mount {
    Mount { name, mount_path }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum VolumeSource {
    #[serde(rename_all = "camelCase")]
    EmptyDir {
        #[serde(skip_serializing_if = "Option::is_none")]
        medium: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        size_limit: Option<String>,
    },
    ConfigMap {
        name: String,
        items: Vec<KeyToPath>,
    },
    #[serde(rename_all = "camelCase")]
    PersistentVolumeClaim {
        claim_name: String,
    },
}

#[derive(Debug, Serialize)]
struct KeyToPath {
    key: String,
    path: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Selector {
    pub(super) match_labels: Labels,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct ServiceSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) r#type: Option<&'static str>,
    #[serde(rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    pub(super) cluster_ip: Option<&'static str>,
    pub(super) selector: Labels,
    pub(super) ports: Vec<ServicePort>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServicePort {
    pub(super) name: &'static str,
    pub(super) port: u16,
    pub(super) target_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) app_protocol: Option<&'static str>,
}

/// What a pod of the deployment has beside its command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pod<'a> {
    /// What runs in it.
    pub(super) process: &'a ProcessPlan,
    /// GPUs that it gets.
    pub(super) gpus: u64,
    /// The host whose labels pick its node; empty where any will do.
    pub(super) host: &'a str,
}

impl Subject<'_> {
    /// What finds the pods of this deployment.
    pub(super) fn own_labels(&self) -> Labels {
        Labels::from([(INSTANCE.to_owned(), self.name.clone())])
    }

    /// What finds everything that scalebeam rendered of this experiment, too.
    pub(super) fn labels(&self) -> Labels {
        let mut labels = self.own_labels();
        labels.insert("app.kubernetes.io/managed-by".to_owned(), "scalebeam".to_owned());
        labels.insert("scalebeam/run".to_owned(), object_name(&self.plan.name));
        labels
    }

    /// An object of this deployment.
    pub(super) fn object<S>(
        &self,
        (api_version, kind): (&'static str, &'static str),
        name: &str,
        spec: S,
    ) -> Object<S> {
        let metadata = Meta {
            name: Some(name.to_owned()),
            namespace: self.text("namespace").map(str::to_owned),
            labels: self.labels(),
        };
        Object { api_version, kind, metadata, spec }
    }

    /// The Service `name`, which spreads connections over the pods with `selector`.
    pub(super) fn service(&self, name: &str, selector: Labels) -> Object<ServiceSpec> {
        self.service_of(name, ServiceSpec { selector, ..ServiceSpec::default() })
    }

    /// The Service `name`, which gives each pod with `selector` a name and spreads nothing.
    pub(super) fn headless(&self, name: &str, selector: Labels) -> Object<ServiceSpec> {
        let cluster_ip = Some("None");
        self.service_of(name, ServiceSpec { cluster_ip, selector, ..ServiceSpec::default() })
    }

    /// Services for clients outside of the cluster, where the file asks for them: one for all pods with
    /// `selector`, or one for each of `pods` of StatefulSets, so that every entry has its own.
    pub(super) fn exposed(
        &self,
        pods: &[String],
        selector: Labels,
    ) -> Result<Vec<Object<ServiceSpec>>, RenderError> {
        let Some(r#type) = self.exposed_as()? else { return Ok(Vec::new()) };
        let pod_name = |pod: &String| pod.split('.').next().unwrap_or(pod).to_owned();
        let selectors: Vec<Labels> = match pods {
            [] | [_] => vec![selector],
            several => several
                .iter()
                .map(|pod| Labels::from([(POD_NAME.to_owned(), pod_name(pod))]))
                .collect(),
        };
        let service = |(index, selector): (usize, Labels)| {
            let spec = ServiceSpec { r#type: Some(r#type), selector, ..ServiceSpec::default() };
            let mut service = self.service_of(&format!("{}-entry-{index}", self.name), spec);
            service.metadata.labels.insert(ENTRY.to_owned(), index.to_string());
            service
        };
        Ok(selectors.into_iter().enumerate().map(service).collect())
    }

    /// The type of Services for clients outside; nothing where there are none.
    fn exposed_as(&self) -> Result<Option<&'static str>, RenderError> {
        match self.text("expose") {
            None | Some("ClusterIP") => Ok(None),
            Some("NodePort") => Ok(Some("NodePort")),
            Some("LoadBalancer") => Ok(Some("LoadBalancer")),
            Some(other) => Err(self.cannot(
                format!("expose = \"{other}\" is no way out of a cluster"),
                "use NodePort, LoadBalancer or ClusterIP",
            )),
        }
    }

    fn service_of(&self, name: &str, mut spec: ServiceSpec) -> Object<ServiceSpec> {
        let port = self.port();
        let http = ServicePort { name: "http", port, target_port: port, app_protocol: None };
        spec.ports.push(http);
        self.object(("v1", "Service"), name, spec)
    }

    /// The Service `name` with `ports` of its own, not the deployment's.
    pub(super) fn service_with(
        &self,
        name: &str,
        selector: Labels,
        ports: Vec<ServicePort>,
    ) -> Object<ServiceSpec> {
        let spec = ServiceSpec { selector, ports, ..ServiceSpec::default() };
        self.object(("v1", "Service"), name, spec)
    }

    /// The commands of a file for kubectl. Where there are several `pods`, each is an endpoint, so that the
    /// load generator balances over them; a Service would choose one for the life of a connection.
    pub(super) fn kubectl(&self, pods: &[String]) -> Ways {
        let endpoints = match pods {
            [] | [_] => {
                let host = entry_host(self.deployment.platform, &self.name);
                vec![self.within(&format!("http://{host}:{}", self.port()))]
            }
            several => several
                .iter()
                .map(|pod| self.within(&format!("http://{pod}:{}", self.port())))
                .collect(),
        };
        Ways {
            up: "kubectl apply -f FILE".to_owned(),
            down: "kubectl delete -f FILE --ignore-not-found".to_owned(),
            endpoints,
        }
    }

    /// `url` with the name that pods of other namespaces know its host by.
    fn within(&self, url: &str) -> String {
        match (self.text("namespace"), url.rsplit_once(':')) {
            (Some(namespace), Some((host, port))) => format!("{host}.{namespace}:{port}"),
            _ => url.to_owned(),
        }
    }

    /// A pod whose one container runs `pod.process`, without ports and probes.
    pub(super) fn template(&self, pod: Pod<'_>) -> Result<Template, RenderError> {
        let container = Container {
            name: "main",
            image: self.image()?,
            command: vec![literal(&pod.process.program)],
            args: pod.process.args.iter().map(|a| literal(a)).collect(),
            env: self.env(pod.process),
            resources: self.resources(pod.gpus),
            volume_mounts: self.mounts(),
            ..Container::default()
        };
        Ok(self.template_of(container, self.selector(pod.host)))
    }

    /// A pod with this one container.
    pub(super) fn template_of(&self, container: Container, node_selector: Labels) -> Template {
        let grace = seconds(self.deployment.stop.grace);
        Template {
            metadata: Meta { labels: self.labels(), ..Meta::default() },
            spec: PodSpec {
                service_account_name: None,
                restart_policy: None,
                node_selector,
                enable_service_links: false,
                termination_grace_period_seconds: grace,
                containers: vec![container],
                volumes: self.volumes(),
            },
        }
    }

    /// Makes the container of `template` one that answers requests.
    pub(super) fn serve(&self, template: &mut Template) -> Result<(), RenderError> {
        let port = self.port();
        let path = self.health_path()?;
        let probe = |period, failures| Probe {
            ask: ProbeKind::HttpGet { path: path.to_owned(), port },
            period_seconds: period,
            failure_threshold: failures,
        };
        let timeout = seconds(self.deployment.ready.timeout);
        for container in &mut template.spec.containers {
            container.ports = vec![ContainerPort { name: "http", container_port: port }];
            container.startup_probe =
                Some(probe(PROBE_SECONDS, timeout.div_ceil(PROBE_SECONDS).max(1)));
            container.readiness_probe = Some(probe(5, 3));
        }
        Ok(())
    }

    /// Variables of a process. Those that are passed on by name come from a Secret, where it has them.
    pub(super) fn env(&self, process: &ProcessPlan) -> Vec<EnvVar> {
        let mut env: BTreeMap<String, EnvVar> = BTreeMap::new();
        for (name, value) in &process.env {
            let variable = match value {
                EnvValue::Set(text) => set(name, literal(text)),
                EnvValue::Inherit { .. } => self.secret_variable(name),
            };
            env.insert(name.clone(), variable);
        }
        let is_set = |name: &str| process.env.get(name).is_some_and(|v| v.given().is_some());
        if self.text("model_pvc").is_some() && !is_set("HF_HOME") {
            env.insert("HF_HOME".to_owned(), set("HF_HOME", MODELS.to_owned()));
        }
        // First, since only what stands above a variable can be put into it.
        let pod_ip = ValueFrom::FieldRef { field_path: "status.podIP" };
        let pod_ip = EnvVar { name: "POD_IP".to_owned(), value: None, value_from: Some(pod_ip) };
        let values = env.values().filter_map(|v| v.value.as_ref());
        let wants_ip = values.chain(&process.args).any(|text| text.contains(OURS[0]));
        wants_ip.then_some(pod_ip).into_iter().chain(env.into_values()).collect()
    }

    pub(super) fn secret_variable(&self, name: &str) -> EnvVar {
        let reference = match self.text("hf_secret") {
            Some(secret) if name == "HF_TOKEN" => ValueFrom::SecretKeyRef {
                name: secret.to_owned(),
                key: "token".to_owned(),
                optional: false,
            },
            _ => ValueFrom::SecretKeyRef {
                name: self.text("env_secret").unwrap_or(DEFAULT_ENV_SECRET).to_owned(),
                key: name.to_owned(),
                optional: true,
            },
        };
        EnvVar { name: name.to_owned(), value: None, value_from: Some(reference) }
    }

    pub(super) fn resources(&self, gpus: u64) -> Resources {
        let cpus = self.integer("cpus").map(|n| ("cpu", n.to_string()));
        let memory = self.text("memory").map(|m| ("memory", m.to_owned()));
        let gpus = (gpus > 0).then(|| ("nvidia.com/gpu", gpus.to_string()));
        Resources { limits: [cpus, memory, gpus].into_iter().flatten().collect() }
    }

    pub(super) fn mounts(&self) -> Vec<Mount> {
        let models = self.text("model_pvc").map(|_| Mount { name: "models", mount_path: MODELS });
        std::iter::once(Mount { name: "shm", mount_path: "/dev/shm" }).chain(models).collect()
    }

    fn volumes(&self) -> Vec<Volume> {
        let size_limit = Some(self.text("shm").unwrap_or(DEFAULT_SHM).to_owned());
        let shm = VolumeSource::EmptyDir { medium: Some("Memory"), size_limit };
        let models = self.text("model_pvc").map(|claim| Volume::of_claim("models", claim));
        std::iter::once(Volume { name: "shm", source: shm }).chain(models).collect()
    }
}

/// A resource of the API: its name, and its group, which is empty for the core's.
pub(crate) type Resource = (&'static str, &'static str);

const RBAC: &str = "rbac.authorization.k8s.io";
const GATEWAYS: &str = "gateway.networking.k8s.io";

/// The resources that operators must have brought for `platform`. Plain Kubernetes needs none.
pub(crate) const fn custom_resources(platform: Platform) -> &'static [Resource] {
    match platform {
        Platform::Lws => &[("leaderworkersets", "leaderworkerset.x-k8s.io")],
        Platform::Kuberay => &[("rayservices", "ray.io")],
        Platform::Dgd => &[("dynamographdeployments", "nvidia.com")],
        Platform::InferencePool => &[
            ("inferencepools", "inference.networking.k8s.io"),
            ("gateways", GATEWAYS),
            ("httproutes", GATEWAYS),
        ],
        _ => &[],
    }
}

/// The resources that a deployment on `platform` is of beside those, and that every cluster has.
pub(crate) const fn plain_resources(platform: Platform) -> &'static [Resource] {
    match platform {
        Platform::Lws | Platform::Kuberay | Platform::Dgd => &[("services", "")],
        Platform::InferencePool => &[
            ("deployments", "apps"),
            ("services", ""),
            ("serviceaccounts", ""),
            ("roles", RBAC),
            ("rolebindings", RBAC),
        ],
        _ => &[("deployments", "apps"), ("statefulsets", "apps"), ("services", "")],
    }
}

/// `resource` as kubectl names it in full.
pub(crate) fn full_name((name, group): Resource) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// The variable `name` with a field of the pod.
pub(super) fn of_field(name: &str, field_path: &'static str) -> EnvVar {
    let value_from = Some(ValueFrom::FieldRef { field_path });
    EnvVar { name: name.to_owned(), value: None, value_from }
}

/// The variable `name` with this value.
pub(super) fn set(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), value_from: None }
}

/// `text` such that Kubernetes, which reads `$(NAME)` and `$$` in commands and values, gives it back, with
/// the platform's own variables put in.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let ours = OURS.iter().find(|name| from.starts_with(**name));
        let taken = match ours {
            Some(name) => {
                out.push_str(name);
                name.len()
            }
            None => {
                out.push_str("$$");
                1
            }
        };
        rest = from.get(taken..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}
