//! What is read from a cluster's answers, by tables.

use super::super::{End, Look};
use super::gateway;
use super::objects::{Object, Pod};
use super::pods::{Standing, main_container, standing, works_as};
use super::reach::{Way, inside, outside};
use super::sight::{Sight, sight};
use crate::engine::engines;
use crate::journal::Claim;
use scalebeam_model::plan::{DeploymentPlan, Platform, Role, resolve};
use scalebeam_model::spec::Experiment;
use scalebeam_model::units::Nanos;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn pod(name: &str, labels: Value, status: Value) -> Pod {
    let pod = json!({ "metadata": { "name": name, "labels": labels }, "status": status });
    serde_json::from_value(pod).unwrap()
}

fn object(value: Value) -> Object {
    serde_json::from_value(value).unwrap()
}

fn ready(name: &str, labels: Value) -> Pod {
    let status = json!({
        "phase": "Running", "hostIP": "10.0.0.9",
        "conditions": [{ "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": "True" }],
        "containerStatuses": [{ "name": "main", "restartCount": 0, "state": { "running": {} } }],
    });
    pod(name, labels, status)
}

fn waits(reason: &str, message: &str) -> Value {
    let state = json!({ "waiting": { "reason": reason, "message": message } });
    json!({ "phase": "Pending", "containerStatuses": [{ "name": "main", "state": state }] })
}

fn unscheduled(message: &str) -> Value {
    let scheduled = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
    });
    json!({ "phase": "Pending", "conditions": [scheduled] })
}

/// Where a pod with this status stands, in words; what is given up begins with `!`.
fn stands(status: Value) -> String {
    match standing(&pod("p", json!({}), status)) {
        Standing::Ready => "ready".to_owned(),
        Standing::Waiting(text) => text,
        Standing::Doomed(trouble) => format!("!{trouble} ({})", trouble.hint),
    }
}

#[test]
fn a_pod_is_given_up_only_over_what_no_wait_heals() {
    let crashed = json!({
        "phase": "Running",
        "containerStatuses": [{
            "name": "main", "restartCount": 4,
            "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 40s" } },
            "lastState": { "terminated": { "reason": "Error", "exitCode": 1 } },
        }],
    });
    let short_of_memory = json!({
        "phase": "Running",
        "containerStatuses": [{
            "name": "main", "restartCount": 1, "state": { "running": {} },
            "lastState": { "terminated": { "reason": "OOMKilled", "exitCode": 137 } },
        }],
    });
    let once = json!({
        "phase": "Running",
        "containerStatuses": [{
            "name": "main", "restartCount": 1, "state": { "running": {} },
            "lastState": { "terminated": { "reason": "Error", "exitCode": 1 } },
        }],
    });
    let evicted = json!({
        "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory.",
    });
    let no_node = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.";
    let no_claim = "persistentvolumeclaim \"models\" not found";
    let unbound = "pod has unbound immediate PersistentVolumeClaims";
    let lost = "Back-off pulling image \"x\": ErrImagePull: not found";
    let slow = "Back-off pulling image \"x\": ErrImagePull: dial tcp: i/o timeout";
    let rows = [
        ("crashed", crashed),
        ("short of memory", short_of_memory),
        ("restarted once", once),
        ("evicted", evicted),
        ("no node", unscheduled(no_node)),
        ("no claim", unscheduled(no_claim)),
        ("claim not bound yet", unscheduled(unbound)),
        ("no such image", waits("ImagePullBackOff", lost)),
        ("slow registry", waits("ImagePullBackOff", slow)),
        ("first pull failed", waits("ErrImagePull", "not found")),
        ("no secret", waits("CreateContainerConfigError", "secret \"hf-token\" not found")),
        ("being made", waits("ContainerCreating", "")),
        ("without a node", json!({ "phase": "Pending" })),
        ("loading", json!({ "phase": "Running", "containerStatuses": [{ "name": "main" }] })),
    ];
    let text: Vec<String> =
        rows.into_iter().map(|(case, status)| format!("{case}: {}", stands(status))).collect();
    insta::assert_snapshot!(text.join("\n"));
}

fn deployment(replicas: u32, ready: u32) -> Object {
    object(json!({
        "kind": "Deployment", "metadata": { "name": "one", "generation": 2 },
        "spec": { "replicas": replicas },
        "status": { "observedGeneration": 2, "readyReplicas": ready },
    }))
}

#[test]
fn a_deployment_is_ready_when_its_object_and_its_pods_say_so() {
    let pods = [ready("one-a", json!({}))];
    assert_eq!(sight(&[], &[]), Sight::Absent);
    assert_eq!(sight(&[deployment(1, 1)], &pods), Sight::Ready("1 of 1 pods ready".into()));
    for (objects, pods) in [
        (vec![deployment(1, 0)], &pods[..]),
        (vec![deployment(1, 1)], &[]),
        (vec![deployment(2, 1)], &pods[..]),
        (vec![object(json!({ "kind": "Service", "metadata": { "name": "one" } }))], &[]),
    ] {
        assert!(matches!(sight(&objects, pods), Sight::Pending(_)), "{objects:?}");
    }
    let mut stale = deployment(1, 1);
    stale.metadata.generation = 3;
    let Sight::Pending(text) = sight(&[stale], &pods) else {
        panic!("a stale status was believed")
    };
    assert!(text.contains("not looked at"), "{text}");
}

#[test]
fn what_a_pod_works_for_is_told_by_its_labels() {
    let ours = |role: &str| works_as(&ready("p", json!({ "scalebeam/role": role })));
    assert_eq!(["frontend", "picker"].map(ours), [None, None]);
    assert_eq!(["prefill", "decode"].map(ours), [Some(Role::Prefill), Some(Role::Decode)]);
    let alike = ["worker", "leader", "server"].map(ours);
    assert_eq!(alike, [Some(Role::Aggregated); 3]);
    assert_eq!(works_as(&ready("p", json!({}))), Some(Role::Aggregated), "a plain Deployment");
    let of_ray = |kind: &str| works_as(&ready("p", json!({ "ray.io/node-type": kind })));
    assert_eq!(["head", "worker"].map(of_ray), [None, Some(Role::Aggregated)]);
}

#[test]
fn an_agent_goes_into_the_container_that_an_engine_is_in() {
    let of = |metadata: Value, containers: Value| {
        let pod = json!({ "metadata": metadata, "spec": { "containers": containers } });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        main_container(&pod).map(str::to_owned)
    };
    let two = || json!([{ "name": "istio-proxy" }, { "name": "main" }]);
    let meant =
        |name: &str| json!({ "annotations": { "kubectl.kubernetes.io/default-container": name } });
    assert_eq!(of(json!({}), json!([{ "name": "main" }])).as_deref(), Some("main"));
    assert_eq!(of(meant("main"), two()).as_deref(), Some("main"));
    assert_eq!(of(meant("gone"), two()).as_deref(), Some("istio-proxy"), "nobody says more");
    let ending = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" });
    assert_eq!(of(ending, two()), None, "it goes");
    assert_eq!(of(json!({}), json!([])), None);
}

#[test]
fn pods_are_counted_by_what_they_are_for() {
    let graph = object(json!({
        "kind": "DynamoGraphDeployment", "metadata": { "name": "g", "generation": 1 },
        "spec": { "components": [
            { "name": "Frontend", "type": "frontend", "replicas": 1 },
            { "name": "Prefill", "type": "prefill", "replicas": 3 },
            { "name": "Decode", "type": "decode", "replicas": 1 },
        ] },
        "status": { "state": "pending" },
    }));
    let role = |role: &str| json!({ "scalebeam/role": role });
    let pods = [
        ready("f", role("frontend")),
        ready("p-0", role("prefill")),
        pod("p-1", role("prefill"), unscheduled("0/2 nodes are available")),
        ready("d", role("decode")),
    ];
    let Sight::Pending(text) = sight(&[graph], &pods) else { panic!("not all are there") };
    assert_eq!(
        text,
        "1 of 1 decode pods and 1 of 1 frontend pods and 1 of 3 prefill pods ready; p-1: \
         Unschedulable: 0/2 nodes are available"
    );
}

#[test]
fn ray_serve_tells_what_it_gave_up() {
    let service = |status: Value| {
        object(json!({
            "kind": "RayService", "metadata": { "name": "r", "generation": 1 },
            "spec": { "rayClusterConfig": { "workerGroupSpecs": [{ "replicas": 1 }] } },
            "status": status,
        }))
    };
    let pods = [
        ready("h", json!({ "ray.io/node-type": "head" })),
        ready("w", json!({ "ray.io/node-type": "worker" })),
    ];
    let up = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
    let counted = "1 of 1 head pods and 1 of 1 worker pods ready";
    assert_eq!(sight(&[service(up)], &pods), Sight::Ready(counted.into()));
    let old = json!({ "serviceStatus": "Running" });
    assert_eq!(sight(&[service(old)], &pods), Sight::Ready(counted.into()));
    let deploying = json!({
        "conditions": [{ "type": "Ready", "status": "False" }],
        "pendingServiceStatus": { "applicationStatuses": { "llms": { "status": "DEPLOYING" } } },
    });
    let text = format!("{counted}; RayService: llms is DEPLOYING: no reason given yet");
    assert_eq!(sight(&[service(deploying)], &pods), Sight::Pending(text));
    let failed = json!({
        "activeServiceStatus": { "applicationStatuses": { "llms": {
            "status": "DEPLOY_FAILED", "message": "",
            "serveDeploymentStatuses": { "LLM": { "status": "DEPLOY_FAILED", "message": "no memory" } },
        } } },
    });
    let text = "application llms of Ray Serve is DEPLOY_FAILED: no memory";
    assert_eq!(sight(&[service(failed)], &pods), Sight::GivenUp(End::new(text)));
}

#[test]
fn what_only_its_own_cluster_reaches_has_no_way() {
    assert_eq!(Way::of(None, true), Some(Way::Names));
    assert_eq!(Way::of(None, false), None);
    assert_eq!(Way::of(Some("ClusterIP"), false), Some(Way::Names));
    assert_eq!(Way::of(Some("NodePort"), false), Some(Way::Services));
    assert_eq!(Way::of(Some("NodePort"), true), Some(Way::Names));
}

#[test]
fn addresses_outside_come_from_services_in_the_order_of_the_entries() {
    let service = |index: &str, r#type: &str, pod: &str, status: Value| {
        object(json!({
            "kind": "Service",
            "metadata": { "name": format!("s{index}"), "labels": { "scalebeam/entry": index } },
            "spec": {
                "type": r#type, "selector": { "pod": pod }, "ports": [{ "port": 8000, "nodePort": 31000 }],
            },
            "status": status,
        }))
    };
    let pods = [ready("b", json!({ "pod": "b" }))];
    let balanced = json!({ "loadBalancer": { "ingress": [{ "hostname": "lb.example" }] } });
    let services =
        [service("1", "LoadBalancer", "x", balanced), service("0", "NodePort", "b", json!({}))];
    let urls = ["http://10.0.0.9:31000".to_owned(), "http://lb.example:8000".to_owned()];
    assert_eq!(outside(&services, &pods), Ok(urls.to_vec()));
    let waiting = outside(&[service("0", "LoadBalancer", "b", json!({}))], &pods);
    assert!(waiting.unwrap_err().contains("waits for an address"));
    let no_pod = outside(&[service("0", "NodePort", "c", json!({}))], &pods);
    assert!(no_pod.unwrap_err().contains("waits for a ready pod"));
    assert!(outside(&[], &pods).is_err());
}

fn planned(deploy: &str) -> DeploymentPlan {
    let text = format!(
        "schema = 1\nname = \"t\"\n[model]\nid = \"m\"\n[host.a]\ngpus = 8\n[host.b]\ngpus = 8\n\
         [[deploy]]\nname = \"one\"\nengine = \"vllm\"\nversion = \"1\"\n{deploy}\n\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 8\nosl = 8\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"closed\"\nconcurrency = 1\nrequests = 1\n"
    );
    let experiment = Experiment::parse(&text, "t.toml", engines()).unwrap();
    resolve(&experiment, engines()).unwrap().deployments.remove(0)
}

fn claim(platform: Platform) -> Claim {
    Claim {
        run: "r".into(),
        run_dir: "/r".into(),
        deployment: "one".into(),
        platform,
        name: "one-abc".into(),
        scope: BTreeMap::new(),
        files: vec![],
        grace: Nanos::ZERO,
        is_client: false,
    }
}

#[test]
fn names_inside_are_those_of_the_service_or_of_each_pod() {
    let one = planned("platform = \"k8s\"\ngpu = \"H100\"\nport = 8001");
    let urls = inside(&claim(Platform::K8s), &one, "llm", &[]);
    assert_eq!(urls, ["http://one-abc.llm.svc:8001"]);

    let several = planned("platform = \"k8s\"\ngpu = \"H100\"\nreplicas = 12");
    assert_eq!(several.entries.len(), 12);
    let named = |n: u32| {
        let mut pod = ready(&format!("one-abc-{n}"), json!({}));
        pod.spec.subdomain = Some("one-abc-pods".into());
        pod
    };
    let pods: Vec<Pod> = [10, 2, 0].map(named).to_vec();
    let urls = inside(&claim(Platform::K8s), &several, "llm", &pods);
    let host = |n: u32| format!("http://one-abc-{n}.one-abc-pods.llm.svc:8000");
    assert_eq!(urls, [0, 2, 10].map(host));

    let groups = planned(
        "platform = \"lws\"\nlauncher = \"mp\"\ntp = 2\npp = 2\nreplicas = 2\n\
         place = [\"a:0-1 + b:0-1\", \"a:2-3 + b:2-3\"]",
    );
    let of = |name: &str, role: &str| {
        let mut pod = ready(name, json!({ "scalebeam/role": role }));
        pod.spec.subdomain = Some("one-abc".into());
        pod
    };
    let pods = [
        of("one-abc-1", "leader"),
        of("one-abc-0", "leader"),
        of("one-abc-0-1", "worker"),
        of("one-abc-1-1", "worker"),
    ];
    let urls = inside(&claim(Platform::Lws), &groups, "llm", &pods);
    let host = |n: u32| format!("http://one-abc-{n}.one-abc.llm.svc:8000");
    assert_eq!(urls, [0, 1].map(host));
}

/// A Gateway, a route and a pool with these conditions, of the kind and generation that their controllers saw.
fn way(programmed: &str, resolved: &str, seen: i64) -> Vec<Object> {
    let condition = |what: &str, status: &str| {
        let (status, reason) = status.split_once(' ').unwrap_or((status, ""));
        json!({
            "type": what, "status": status, "reason": reason, "message": "because",
            "observedGeneration": seen,
        })
    };
    let meta = json!({ "name": "one", "generation": 2 });
    let parents = json!([{ "conditions": [
        condition("Accepted", "True"), condition("ResolvedRefs", resolved),
    ] }]);
    vec![
        object(json!({ "kind": "Gateway", "metadata": meta, "status": {
            "conditions": [condition("Accepted", "True"), condition("Programmed", programmed)],
            "addresses": [{ "type": "IPAddress", "value": "::1" }],
        } })),
        object(json!({ "kind": "HTTPRoute", "metadata": meta, "status": { "parents": parents } })),
        object(json!({ "kind": "InferencePool", "metadata": meta })),
    ]
}

#[test]
fn a_pool_is_up_when_its_gateway_and_route_let_requests_through() {
    let pods = || Sight::Ready("3 of 3 pods ready".to_owned());
    let said = |objects: &[Object]| match gateway::before(pods(), objects) {
        Sight::Ready(text) => text,
        Sight::Blocked(End { reason, hint }) => {
            format!("{reason} ({})", if hint.is_some() { "hint" } else { "no hint" })
        }
        Sight::GivenUp(End { reason, .. }) => format!("!{reason}"),
        other => panic!("{other:?}"),
    };
    let mut refused_pool = way("True", "True", 2);
    refused_pool[2] = object(json!({
        "kind": "InferencePool", "metadata": { "name": "one" },
        "status": { "parents": [{ "conditions": [
            { "type": "ResolvedRefs", "status": "False", "reason": "InvalidExtensionRef" },
        ] }] },
    }));
    let mut unseen_route = way("True", "True", 2);
    unseen_route[1].status.parents.clear();
    let rows = [
        ("all true", way("True", "True", 2)),
        ("of an older generation", way("True", "True", 1)),
        ("no address", way("False AddressNotAssigned", "True", 2)),
        ("unknown reason", way("False Odd", "True", 2)),
        ("a kind that is not known", way("Unknown Pending", "False InvalidKind", 2)),
        ("a backend that is not there yet", way("True", "False BackendNotFound", 2)),
        ("a route that nobody took", unseen_route),
        ("a pool without its picker", refused_pool),
        ("no route", way("True", "True", 2).into_iter().take(1).collect()),
    ];
    let text: Vec<String> =
        rows.iter().map(|(case, objects)| format!("{case}: {}", said(objects))).collect();
    insta::assert_snapshot!(text.join("\n"));

    let loading = gateway::before(
        Sight::Pending("1 of 3 pods ready".into()),
        &way("False AddressNotAssigned", "True", 2),
    );
    let Sight::Pending(text) = loading else { panic!("{loading:?}") };
    assert!(text.starts_with("1 of 3 pods ready; Gateway one is not Programmed: "), "{text}");
}

#[test]
fn a_gateway_answers_at_its_address_or_at_that_of_the_file() {
    let pool = |more: &str| {
        planned(&format!(
            "platform = \"inferencepool\"\ngpu = \"H100\"\n\
             params = {{ gateway_class = \"c\", picker_image = \"i\"{more} }}"
        ))
    };
    let objects = way("True", "True", 2);
    let at = |plan: &DeploymentPlan, objects: &[Object], inside| {
        gateway::address(objects, plan, 8000, inside)
    };
    assert_eq!(at(&pool(""), &objects, false).unwrap(), "http://[::1]:8000");
    let given = pool(", gateway_address = \"llm.example:80\"");
    assert_eq!(at(&given, &[], false).unwrap(), "http://llm.example:80");
    let given = pool(", gateway_address = \"llm.example\"");
    assert_eq!(at(&given, &[], false).unwrap(), "http://llm.example:8000");

    let mut named = way("True", "True", 2);
    named[0].status.addresses[0].value = "g.llm.svc.cluster.local".to_owned();
    assert!(at(&pool(""), &named, true).is_ok());
    assert!(at(&pool(", expose = \"ClusterIP\""), &named, false).is_ok());
    assert!(matches!(at(&pool(""), &named, false), Err(Look::Ended(_))));
    named[0].status.addresses.clear();
    assert!(matches!(at(&pool(""), &named, false), Err(Look::Blocked(_))));
}

#[test]
fn what_a_controller_makes_for_a_gateway_is_not_waited_for() {
    let server = json!({ "scalebeam/role": "server" });
    let set = |name: &str, labels: &Value, ready: u32| {
        object(json!({
            "kind": "Deployment", "metadata": { "name": name },
            "spec": { "replicas": 1, "template": { "metadata": { "labels": labels } } },
            "status": { "readyReplicas": ready },
        }))
    };
    let objects = [set("one", &server, 1), set("one-gateway-istio", &json!({}), 0)];
    let pods = [ready("one-a", server)];
    let seen = sight(&gateway::counted(&objects), &pods);
    assert_eq!(seen, Sight::Ready("1 of 1 server pods ready".into()));
}
