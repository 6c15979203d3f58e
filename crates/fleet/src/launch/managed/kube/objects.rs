//! Objects of a cluster, as `kubectl get -o json` prints them: the fields that are looked at.
//!
//! **Invariant:** what an operator leaves out is absent here, never an error: versions differ in what they
//! report, and a field that is not there says nothing.

use serde::Deserialize;
use std::collections::BTreeMap;

/// What `kubectl get` prints of several objects.
#[derive(Debug, Default, Deserialize)]
pub(super) struct List<T> {
    #[serde(default = "Vec::new")]
    pub(super) items: Vec<T>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) deletion_timestamp: Option<String>,
    pub(super) generation: i64,
}

/// A Deployment, a StatefulSet, a Service, or an object of an operator.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Object {
    pub(super) kind: String,
    pub(super) metadata: Meta,
    pub(super) spec: Spec,
    pub(super) status: Status,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    /// Pods of a Deployment or StatefulSet, groups of a LeaderWorkerSet.
    pub(super) replicas: Option<u32>,
    pub(super) leader_worker_template: Option<GroupTemplate>,
    pub(super) ray_cluster_config: Option<RayCluster>,
    /// Of a DynamoGraphDeployment.
    pub(super) components: Vec<Component>,
    /// Of a Service.
    pub(super) r#type: Option<String>,
    pub(super) selector: serde_json::Value,
    pub(super) ports: Vec<ServicePort>,
    /// Of a Deployment or a StatefulSet.
    pub(super) template: PodTemplate,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct PodTemplate {
    pub(super) metadata: Meta,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct GroupTemplate {
    /// Pods of a group, its leader among them.
    pub(super) size: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RayCluster {
    pub(super) worker_group_specs: Vec<Counted>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Counted {
    pub(super) replicas: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Component {
    pub(super) name: String,
    pub(super) r#type: String,
    pub(super) replicas: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServicePort {
    pub(super) port: u16,
    pub(super) node_port: Option<u16>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub(super) observed_generation: Option<i64>,
    pub(super) ready_replicas: u32,
    pub(super) conditions: Vec<Condition>,
    /// Of a RayService.
    pub(super) service_status: Option<String>,
    pub(super) active_service_status: ServeStatus,
    pub(super) pending_service_status: ServeStatus,
    /// Of a DynamoGraphDeployment.
    pub(super) state: Option<String>,
    /// Of a Service.
    pub(super) load_balancer: LoadBalancer,
    /// Of a Gateway.
    pub(super) addresses: Vec<GatewayAddress>,
    /// Of an HTTPRoute or an InferencePool: what each gateway says of it.
    pub(super) parents: Vec<Parent>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Condition {
    pub(super) r#type: String,
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) observed_generation: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct GatewayAddress {
    /// An address, or the name of a host.
    pub(super) value: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Parent {
    pub(super) conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServeStatus {
    pub(super) application_statuses: BTreeMap<String, Application>,
}

/// An application of Ray Serve, and of its deployments the same.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Application {
    pub(super) status: String,
    pub(super) message: String,
    pub(super) serve_deployment_statuses: BTreeMap<String, Application>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct LoadBalancer {
    pub(super) ingress: Vec<Ingress>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Ingress {
    pub(super) ip: Option<String>,
    pub(super) hostname: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: Meta,
    pub(super) spec: PodSpec,
    pub(super) status: PodStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    /// The Service that gives it a name, where one does.
    pub(super) subdomain: Option<String>,
    /// Absent until the scheduler has chosen.
    pub(super) node_name: Option<String>,
    pub(super) containers: Vec<ContainerSpec>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct ContainerSpec {
    pub(super) name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatus {
    pub(super) phase: String,
    pub(super) reason: String,
    pub(super) message: String,
    /// Address of its node.
    #[serde(rename = "hostIP")]
    pub(super) host_ip: Option<String>,
    pub(super) conditions: Vec<Condition>,
    pub(super) init_container_statuses: Vec<Container>,
    pub(super) container_statuses: Vec<Container>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) restart_count: u32,
    pub(super) state: ContainerState,
    pub(super) last_state: ContainerState,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct ContainerState {
    pub(super) waiting: Option<Waiting>,
    pub(super) terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Waiting {
    pub(super) reason: String,
    pub(super) message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Terminated {
    pub(super) reason: String,
    pub(super) exit_code: i32,
    pub(super) message: String,
}

impl Object {
    /// The condition of this type, where its object reports one.
    pub(super) fn condition(&self, r#type: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|c| c.r#type == r#type)
    }

    /// Whether its status speaks of what was asked last, where it tells.
    pub(super) fn is_current(&self) -> bool {
        self.status.observed_generation.is_none_or(|seen| seen >= self.metadata.generation)
    }
}

impl Pod {
    pub(super) fn condition(&self, r#type: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|c| c.r#type == r#type)
    }
}

impl Condition {
    pub(super) fn is_true(&self) -> bool {
        self.status == "True"
    }
}
