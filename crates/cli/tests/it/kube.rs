//! Kubernetes: the real `kubectl` against a small API server in which a file says what pods do.
//!
//! They need `kubectl`; `ci/test` sees to that and runs them by name.

mod inside;
mod pods;

use crate::interrupt::signal;
use crate::support::{Lab, Said, Server, emulator, marked_processes, root, wait_for};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const MODEL: &str = "org/model";
const K8S: &str = "platform = \"k8s\"\nengine = \"vllm\"\nversion = \"0.32.0\"\ngpu = \"H100\"";
const NODE_PORT: &str = "params = { expose = \"NodePort\" }";
/// llm-d. Its gateway is at the port of what answers here.
const POOL: &str = "platform = \"inferencepool\"\nengine = \"vllm\"\nversion = \"0.32.0\"\ngpu = \"H100\"\n\
     replicas = 3\nport = PORT\n\
     params = { gateway_class = \"istio\", picker_image = \"registry.example/picker:1\" }";

/// An experiment, a cluster for it, and what answers behind its NodePorts.
struct Cluster {
    lab: Lab,
    api: Child,
    _server: Option<Server>,
}

impl Cluster {
    fn new(deploy: &str, api: &[&str]) -> Self {
        let server = emulator(&["--ttft", "5ms", "--itl", "1ms", "--model", MODEL]);
        let port = server.url.rsplit(':').next().unwrap().to_owned();
        Self::answering(deploy, api, Some(server), &port)
    }

    /// What answers at `port` of each node is `server`, or what the pods run.
    fn answering(deploy: &str, api: &[&str], server: Option<Server>, port: &str) -> Self {
        let text = format!(
            "schema = 1\nname = \"lab\"\n[model]\nid = \"{MODEL}\"\n[host.a]\ngpus = 8\n[host.b]\ngpus = 8\n\
             [[deploy]]\nname = \"one\"\n{deploy}\nready = {{ timeout = \"30s\" }}\nstop = {{ grace = \"1s\" }}\n\
             [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 32\nosl = 8\nseed = 1\n\
             [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"closed\"\nconcurrency = 2\nrequests = 6\n\
             warmup = 0\n",
        );
        let lab = Lab::new(&text.replace("port = PORT", &format!("port = {port}")));
        let api = Command::new("python3")
            .arg(root().join("tests-support/kube_api.py"))
            .arg(lab.dir.path())
            .args(["--node-port", port])
            .args(api)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let cluster = Self { lab, api, _server: server };
        wait_for("the API server listens", || cluster.path("kubeconfig").exists());
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lab.dir.path().join(name)
    }

    fn behave(&self, word: &str) {
        std::fs::write(self.path("behaviour"), word).unwrap();
    }

    /// Removes an operator: the API `group` is gone, and all objects of it.
    fn without(&self, group: &str) {
        std::fs::write(self.path("without"), group).unwrap();
    }

    fn rewrite(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.lab.file()).unwrap();
        std::fs::write(self.lab.file(), text.replace(from, to)).unwrap();
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = self.lab.command(verb);
        command.env("KUBECONFIG", self.path("kubeconfig")).env_remove("KUBERNETES_SERVICE_HOST");
        command
    }

    fn say(&self, verb: &str, more: &[&str]) -> Said {
        self.command(verb).args(more).output().unwrap().into()
    }

    fn up(&self) -> Said {
        self.say("up", &["--deploy", "one"])
    }

    fn requests(&self, verb: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("requests.log")).unwrap_or_default();
        text.lines().filter(|l| l.starts_with(verb)).map(str::to_owned).collect()
    }

    /// What kubectl lists.
    fn there(&self) -> String {
        let kinds = "deployments,statefulsets,leaderworkersets,rayservices,dynamographdeployments,services,pods,\
                     serviceaccounts,roles,rolebindings,jobs,configmaps,inferencepools,gateways,httproutes";
        let out = Command::new("kubectl")
            .env("KUBECONFIG", self.path("kubeconfig"))
            .args(["get", kinds, "-o", "name"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    #[track_caller]
    fn nothing_left(&self) {
        assert_eq!(self.there(), "");
        assert_eq!(marked_processes(&self.lab.runs()), []);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It ends with its input, and takes its pods along.
        drop(self.api.stdin.take());
        let _ = self.api.wait();
        // So that the lab does not ask it for what is left.
        let _ = std::fs::remove_dir_all(self.lab.runs());
    }
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn a_deployment_is_applied_measured_and_deleted() {
    let cluster = Cluster::new(&format!("{K8S}\n{NODE_PORT}"), &[]);
    let said = cluster.say("run", &[]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
    cluster.nothing_left();
    let applied = cluster.requests("PATCH");
    assert_eq!(applied.len(), 3, "{applied:#?}");
    for request in &applied {
        assert!(request.contains("fieldManager=scalebeam&"), "{request}");
        assert!(request.contains("\"app.kubernetes.io/managed-by\":\"scalebeam\""), "{request}");
    }
    let deleted = cluster.requests("DELETE");
    assert!(deleted.iter().all(|r| r.contains("Foreground")), "{deleted:#?}");
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn every_kind_of_deployment_comes_up_and_goes() {
    let several = format!("{K8S}\nreplicas = 2\n{NODE_PORT}");
    let groups = format!(
        "platform = \"lws\"\nengine = \"vllm\"\nversion = \"1\"\nlauncher = \"mp\"\ntp = 8\npp = 2\n\
         place = [\"a:0-7 + b:0-7\"]\n{NODE_PORT}"
    );
    let ray = format!(
        "platform = \"kuberay\"\nengine = \"ray-serve-llm\"\nimage = \"rayproject/ray-llm:2.52.0-py311\"\n\
         gpu = \"H100\"\nreplicas = 2\n{NODE_PORT}"
    );
    let dynamo = format!(
        "platform = \"dgd\"\nengine = \"dynamo-vllm\"\nversion = \"1.3.0\"\ngpu = \"H100\"\n{NODE_PORT}\n\
         [[deploy.pool]]\nrole = \"prefill\"\nworkers = 3\n[[deploy.pool]]\nrole = \"decode\"\nworkers = 1\n"
    );
    for (deploy, entries, text) in [
        (several, 2, "1 of 2 pods ready"),
        (groups, 1, "1 of 1 leader pods and 0 of 1 worker pods ready"),
        (ray, 1, "1 of 1 head pods and 1 of 2 worker pods ready"),
        (POOL.to_owned(), 1, "0 of 1 picker pods and 2 of 3 server pods ready"),
        (dynamo, 1, "0 of 1 decode pods and 1 of 1 frontend pods and 3 of 3 prefill pods ready"),
    ] {
        // Keys of the deployment end where its pools begin.
        let (keys, pools) = deploy.split_at(deploy.find("[[").unwrap_or(deploy.len()));
        let cluster = Cluster::new(keys, &[]);
        cluster.rewrite("[[workload]]", &format!("{pools}\n[[workload]]"));
        cluster.behave("half");
        let mut command = cluster.command("up");
        let up = command.args(["--deploy", "one"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let up = up.spawn().unwrap();
        let looks = || cluster.requests("GET /api/v1/namespaces/bench/pods?labelSelector").len();
        wait_for("it was looked at", || looks() > 1);
        cluster.behave("ready");
        let said: Said = up.wait_with_output().unwrap().into();
        assert_eq!(said.code, Some(0), "{said:#?}");
        assert!(said.stderr.contains(&format!("pending: {text}")), "{said:#?}");
        assert_eq!(said.stdout.matches("http://127.0.0.1:").count(), entries, "{said:#?}");
        cluster.say("down", &[]).expect_code(0);
        cluster.nothing_left();
    }
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn a_pool_behind_a_gateway_is_applied_measured_and_deleted() {
    let cluster = Cluster::new(POOL, &[]);
    let said = cluster.say("run", &[]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
    assert_eq!(cluster.requests("PATCH").len(), 9, "pods, picker, account, pool, gateway, route");
    cluster.nothing_left();
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn what_stands_before_a_pool_and_lets_nothing_through_is_told_in_its_controller_s_words() {
    let pods = "1 of 1 picker pods and 3 of 3 server pods ready";
    for (word, reason, hint) in [
        ("unseen", "-gateway is not Programmed: Pending: Waiting for controller", "gateway_class"),
        (
            "unaddressed",
            "-gateway is not Programmed: AddressNotAssigned: Assigned to service(s)",
            "needs a load balancer",
        ),
    ] {
        let cluster = Cluster::new(POOL, &[]);
        cluster.rewrite("30s", "3s");
        cluster.behave(word);
        let said = cluster.up().expect_code(4);
        let begins = format!("did not begin within 3.00 s: pending: {pods}; Gateway one-");
        assert!(said.stderr.contains(&begins), "{word}: {said:#?}");
        assert!(said.stderr.contains(reason) && said.stderr.contains(hint), "{word}: {said:#?}");
        cluster.nothing_left();
    }
    for (word, reason, hint) in [
        ("unrouted", "is not ResolvedRefs: InvalidKind: referencing", "inference extension"),
        ("inside", "inside of its cluster only, at one-gateway-istio", "expose = \"ClusterIP\""),
    ] {
        let cluster = Cluster::new(POOL, &[]);
        cluster.behave(word);
        let said = cluster.up().expect_code(4);
        assert!(!said.stderr.contains("did not begin"), "no wait heals it: {said:#?}");
        assert!(said.stderr.contains(reason) && said.stderr.contains(hint), "{word}: {said:#?}");
        cluster.nothing_left();
    }
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn an_address_of_the_file_goes_before_that_of_the_gateway() {
    let cluster = Cluster::new(POOL, &[]);
    cluster.behave("inside");
    cluster.rewrite("gateway_class", "gateway_address = \"127.0.0.1\", gateway_class");
    cluster.up().expect_code(0);
    cluster.say("down", &[]).expect_code(0);
    cluster.nothing_left();
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn down_deletes_a_pool_that_a_killed_run_has_applied() {
    let cluster = Cluster::new(POOL, &[]);
    cluster.behave("unseen");
    let mut run = cluster.command("run");
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("it is applied", || !cluster.requests("PATCH").is_empty());
    signal(run.id(), "KILL");
    run.wait().unwrap();
    cluster.say("run", &[]).expect_code(4);
    let down = cluster.say("down", &[]).expect_code(0);
    assert!(down.stdout.contains("deployment.apps/one-"), "{down:#?}");
    cluster.nothing_left();
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn a_pool_goes_although_its_gateway_s_operator_was_removed() {
    let cluster = Cluster::new(POOL, &[]);
    cluster.up().expect_code(0);
    cluster.without("gateway.networking.k8s.io");
    let down = cluster.say("down", &[]).expect_code(0);
    assert!(down.stdout.contains("inferencepool.inference.networking.k8s.io/one-"), "{down:#?}");
    assert!(down.stdout.contains("rolebinding.rbac.authorization.k8s.io/one-"), "{down:#?}");
    cluster.without("");
    cluster.nothing_left();
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn a_pod_that_never_serves_ends_the_wait_with_its_reason_and_a_hint() {
    for (word, reason, hint) in [
        ("crash", "CrashLoopBackOff: Error, exit status 1", "CUDA out of memory"),
        ("oom", "OOMKilled, exit status 137", "raise `memory`"),
        ("image", "ImagePullBackOff: Back-off pulling image", "check `image`"),
        ("secret", "secret \"hf-token\" not found", "hf_secret"),
        ("claim", "persistentvolumeclaim \"models\" not found", "model_pvc"),
    ] {
        let cluster = Cluster::new(&format!("{K8S}\n{NODE_PORT}"), &[]);
        cluster.behave(word);
        let said = cluster.up().expect_code(4);
        assert!(said.stderr.contains(reason), "{word}: {said:#?}");
        assert!(said.stderr.contains(hint), "{word}: {said:#?}");
        assert!(said.stderr.contains("pod one-"), "{word}: {said:#?}");
        cluster.nothing_left();
    }
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn what_may_yet_heal_is_waited_for_in_the_scheduler_s_words() {
    for (word, reason) in
        [("unschedulable", "3 Insufficient nvidia.com/gpu"), ("slow-image", "i/o timeout")]
    {
        let cluster = Cluster::new(&format!("{K8S}\n{NODE_PORT}"), &[]);
        cluster.rewrite("30s", "3s");
        cluster.behave(word);
        let said = cluster.up().expect_code(4);
        assert!(said.stderr.contains("did not begin within 3.00 s"), "{word}: {said:#?}");
        assert!(said.stderr.contains("0 of 1 pods ready"), "{word}: {said:#?}");
        assert!(said.stderr.contains(reason), "{word}: {said:#?}");
        cluster.nothing_left();
    }
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn what_cannot_come_up_is_said_before_anything_is_applied() {
    let lws = format!(
        "platform = \"lws\"\nengine = \"vllm\"\nversion = \"1\"\nlauncher = \"mp\"\ntp = 8\npp = 2\n\
         place = [\"a:0-7 + b:0-7\"]\n{NODE_PORT}"
    );
    let pool =
        "the cluster has no API /apis/inference.networking.k8s.io/v1, which InferencePool is in";
    let elsewhere = format!("{K8S}\nparams = {{ expose = \"NodePort\", context = \"moon\" }}");
    let odd = format!("{K8S}\nparams = {{ expose = \"Tunnel\" }}");
    for (deploy, said, hint) in [
        (POOL, pool, "install the Gateway API's inference extension"),
        (lws.as_str(), "no API /apis/leaderworkerset.x-k8s.io/v1", "install LeaderWorkerSet"),
        (K8S, "inside of its cluster only", "expose = \"NodePort\""),
        (&elsewhere, "moon", "kubectl config get-contexts"),
        (&odd, "no way out of a cluster", "use NodePort"),
    ] {
        let groups = ["leaderworkerset.x-k8s.io", "inference.networking.k8s.io"];
        let cluster = Cluster::new(deploy, &["--without", groups[0], "--without", groups[1]]);
        let up = cluster.up();
        assert!(matches!(up.code, Some(2 | 4)), "{up:#?}");
        assert!(up.stderr.contains(said) && up.stderr.contains(hint), "{up:#?}");
        assert_eq!(cluster.requests("PATCH"), Vec::<String>::new());
    }
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn an_object_of_somebody_else_is_neither_changed_nor_deleted() {
    let cluster = Cluster::new(&format!("{K8S}\n{NODE_PORT}"), &[]);
    cluster.behave("foreign");
    let said = cluster.up().expect_code(4);
    assert!(said.stderr.contains("and not ours"), "{said:#?}");
    assert_eq!(cluster.requests("PATCH"), Vec::<String>::new());
    assert_eq!(cluster.requests("DELETE"), Vec::<String>::new());
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn down_deletes_by_label_what_a_killed_run_has_applied() {
    let cluster = Cluster::new(&format!("{K8S}\n{NODE_PORT}"), &[]);
    cluster.behave("loading");
    let mut run = cluster.command("run");
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("it is applied", || !cluster.requests("PATCH").is_empty());
    signal(run.id(), "KILL");
    run.wait().unwrap();
    let refused = cluster.say("run", &[]).expect_code(4);
    assert!(refused.stderr.contains("has left something running"), "{refused:#?}");
    let down = cluster.say("down", &[]).expect_code(0);
    assert!(down.stdout.contains("deployment.apps/one-"), "{down:#?}");
    cluster.nothing_left();
    let again = cluster.say("down", &[]).expect_code(0);
    assert!(again.stdout.contains("nothing left"), "{again:#?}");
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn pods_that_stay_are_a_problem_that_names_them() {
    let cluster = Cluster::new(&format!("{K8S}\n{NODE_PORT}"), &[]);
    cluster.rewrite("grace = \"1s\"", "grace = \"0s\"");
    cluster.up().expect_code(0);
    cluster.behave("stuck");
    let mut command = cluster.command("down");
    let down = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("it is deleted", || !cluster.requests("DELETE").is_empty());
    let said: Said = down.wait_with_output().unwrap().into();
    assert_eq!(said.code, Some(4), "{said:#?}");
    assert!(said.stdout.contains("pod/one-") && said.stdout.contains("still there"), "{said:#?}");
    cluster.behave("ready");
    cluster.say("down", &[]).expect_code(0);
    cluster.nothing_left();
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn a_pod_that_breaks_while_it_is_measured_ends_the_run() {
    let cluster = Cluster::new(&format!("{K8S}\n{NODE_PORT}"), &[]);
    cluster.rewrite("requests = 6", "requests = 100000");
    let mut command = cluster.command("run");
    let run = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let journal = || {
        let dir = std::fs::read_dir(cluster.lab.runs()).ok()?.next()?.ok()?.path();
        std::fs::read_to_string(dir.join("journal.jsonl")).ok()
    };
    wait_for("it is measured", || journal().is_some_and(|j| j.contains("\"verified\"")));
    cluster.behave("crash");
    let said: Said = run.wait_with_output().unwrap().into();
    assert_eq!(said.code, Some(4), "{said:#?}");
    assert!(said.stderr.contains("CrashLoopBackOff"), "{said:#?}");
    cluster.nothing_left();
}

/// A cluster whose own objects and rights are those of `site`.
fn with_site(deploy: &str, site: serde_json::Value) -> Cluster {
    let cluster = Cluster::new(deploy, &[]);
    std::fs::write(cluster.path("site.json"), site.to_string()).unwrap();
    cluster
}

/// How the checks of `id` came out: their severity, how they ended and what they say.
fn findings(said: &Said, id: &str) -> Vec<String> {
    let findings = said.json()["findings"].as_array().unwrap().clone();
    let words = |f: &serde_json::Value| {
        let said = ["seen", "reason"].iter().find_map(|key| f[*key].as_str()).unwrap_or_default();
        format!("{} {}: {said}", f["status"].as_str().unwrap(), f["check"].as_str().unwrap())
    };
    findings.iter().filter(|f| f["id"] == id).map(words).collect()
}

fn node(name: &str, gpus: &str) -> serde_json::Value {
    serde_json::json!({ "kind": "Node", "metadata": { "name": name }, "spec": {},
        "status": { "allocatable": { "nvidia.com/gpu": gpus } } })
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn the_doctor_asks_the_cluster_for_what_the_file_names() {
    let quota = serde_json::json!({ "kind": "ResourceQuota", "metadata": { "name": "gpus", "namespace": "bench" },
        "status": { "hard": { "requests.nvidia.com/gpu": "8" }, "used": { "requests.nvidia.com/gpu": "6" } } });
    let secret = serde_json::json!({ "kind": "Secret", "type": "Opaque", "data": { "token": "aHVzaA==" },
        "metadata": { "name": "hf", "namespace": "bench" } });
    let claim = serde_json::json!({ "kind": "PersistentVolumeClaim",
        "metadata": { "name": "models", "namespace": "bench" },
        "spec": { "accessModes": ["ReadWriteMany"] }, "status": { "phase": "Bound" } });
    let deploy = format!(
        "{K8S}\ntp = 4\nparams = {{ expose = \"NodePort\", namespace = \"bench\", hf_secret = \"hf\", \
         model_pvc = \"models\" }}"
    );
    let cluster = with_site(
        &deploy,
        serde_json::json!({ "denied": ["delete deployments", "pods exec"], "objects": [node("n1", "2"), node("n2", "4"), quota, secret] }),
    );
    let said = cluster.say("doctor", &["--json"]);
    insta::assert_snapshot!(findings(&said, "D60").join("\n"), @"
    fail Kubernetes lets us: context lab, namespace bench: may not delete deployments.apps
    fail agents may come into pods: may not create pods/exec: nothing will be read of pods
    skipped Kubernetes knows the kind: a plain Deployment needs no resource of an operator
    pass Kubernetes has the GPUs: 6 GPUs on 2 schedulable nodes, 4 asked for
    fail the quota has room: quota gpus leaves 2 GPUs, 4 asked for
    fail Secrets and claims are there: no pvc models
    ");
    assert!(!said.stdout.contains("aHVzaA"), "{said:?}");

    let cluster =
        with_site(&deploy, serde_json::json!({ "objects": [node("n1", "8"), claim, secret] }));
    let said = cluster.say("doctor", &["--json"]);
    insta::assert_snapshot!(findings(&said, "D60").join("\n"), @"
    pass Kubernetes lets us: context lab, namespace bench: may create deployments.apps, delete deployments.apps, create services, list pods
    pass agents may come into pods: may create pods/exec
    skipped Kubernetes knows the kind: a plain Deployment needs no resource of an operator
    pass Kubernetes has the GPUs: 8 GPUs on 1 schedulable node, 4 asked for
    pass the quota has room: no quota for GPUs
    pass Secrets and claims are there: secret hf, pvc models Bound ReadWriteMany
    ");
    assert_eq!(cluster.requests("PATCH"), Vec::<String>::new(), "it only looks");
}

#[test]
#[ignore = "needs kubectl; ci/test runs it"]
fn the_doctor_asks_for_every_right_and_kind_of_a_pool() {
    let crd = |name: &str| serde_json::json!({ "kind": "CustomResourceDefinition", "metadata": { "name": name } });
    let objects = serde_json::json!([
        node("n1", "8"),
        crd("inferencepools.inference.networking.k8s.io"),
        crd("gateways.gateway.networking.k8s.io")
    ]);
    let denied = serde_json::json!({ "denied": ["create rolebindings"], "objects": objects });
    let cluster = with_site(POOL, denied);
    let said = cluster.say("doctor", &["--json"]);
    insta::assert_snapshot!(findings(&said, "D60").join("\n"), @"
    fail Kubernetes lets us: context lab: may not create rolebindings.rbac.authorization.k8s.io
    pass agents may come into pods: may create pods/exec
    fail Kubernetes knows the kind: the cluster has no httproutes.gateway.networking.k8s.io
    pass Kubernetes has the GPUs: 8 GPUs on 1 schedulable node, 3 asked for
    pass the quota has room: no quota for GPUs
    skipped Secrets and claims are there: the file names no Secret and no volume claim
    ");
}
