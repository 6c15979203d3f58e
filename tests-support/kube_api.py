#!/usr/bin/env python3
"""A small API server of Kubernetes, for kubectl: objects in memory, and pods that do what a file says.

    kube_api.py DIR [--without GROUP ...] [--node-port PORT] [--container COMMAND [--image FOLDER]]

It writes DIR/kubeconfig once it listens, and DIR/requests.log as it is asked. It answers what kubectl asks:
discovery, OpenAPI (as much as says that fields are validated here), server-side apply, get, lists by label,
deletes, logs and, with --container, exec. There is no scheduler, no kubelet and no operator: for each workload that is applied it makes
the pods that they would make, in the state that DIR/behaviour names (a word, read anew at each request):

    ready         all pods run and are ready (as when the file is absent)
    loading       they run, and are not ready
    half          all but one are ready
    unschedulable no node has the GPUs
    claim         the volume claim does not exist
    crash         the container ends again and again
    oom           the container was ended for want of memory
    image         the image does not exist
    slow-image    the registry does not answer
    secret        a Secret is missing
    failed        what the operator of the kind calls failed
    foreign       every name that is asked for is somebody else's object
    unseen        pods as ready, and no controller looks at gateways and routes
    unaddressed   pods as ready, and the Gateway gets no address
    unrouted      pods load, and the gateway's controller knows no InferencePool
    inside        as ready, and the Gateway has a name that only the cluster knows
    stuck         as ready, but pods do not go away when they are deleted

Where DIR/without is, the API groups that it names are gone, with their objects.

Where DIR/site.json is, it also has what that says the cluster has (`objects`, whole), and may do all but what
`denied` lists ("delete deployments"). Without it rights, nodes, quotas and Secrets are not known here.

With --container each pod is a process that runs this command, in namespaces of its own, and answers at PORT of its own
address, which is that of its node for NodePorts; commands are executed in it (kube_pods.py). DIR/pods has lines `END
WORD` for pods whose names end so: `forbidden` (nobody may exec), `no-shell` (its image has none), `read-only` (nothing
can be written in it).

With --image pods of Jobs run the commands of their containers, with the programs of that folder and with an API server
for pods: by TLS, with a certificate of an authority of its own, for bearers of a service account's token, who may do
what the Roles that are bound to it say. DIR/job has a word that is about the pods of Jobs alone: one of those above, or
`quota` (there is none, and an Event says why), or `killed-oom` (who is killed in one was ended for want of memory). Where
DIR/cut is, the next long answer of a command in a pod is lost from its midst on, as if that were all.

Texts of states are those of kubelet and scheduler 1.32. Admission and conflicts between field managers are not
modelled.
"""

import argparse
import json
import os
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import kube_pods
import kube_tls

# Group, version, plural, kind.
KINDS = [
    ("", "v1", "pods", "Pod"),
    ("", "v1", "services", "Service"),
    ("apps", "v1", "deployments", "Deployment"),
    ("apps", "v1", "statefulsets", "StatefulSet"),
    ("leaderworkerset.x-k8s.io", "v1", "leaderworkersets", "LeaderWorkerSet"),
    ("ray.io", "v1", "rayservices", "RayService"),
    ("nvidia.com", "v1beta1", "dynamographdeployments", "DynamoGraphDeployment"),
    ("", "v1", "configmaps", "ConfigMap"),
    ("", "v1", "events", "Event"),
    ("batch", "v1", "jobs", "Job"),
    ("", "v1", "serviceaccounts", "ServiceAccount"),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    ("inference.networking.k8s.io", "v1", "inferencepools", "InferencePool"),
    ("gateway.networking.k8s.io", "v1", "gateways", "Gateway"),
    ("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute"),
]
# Kinds that are what they are, whatever happens.
STILL = ("ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Event")
# Kinds that a controller of gateways looks at.
WAY = ("InferencePool", "Gateway", "HTTPRoute")
# Words of DIR/behaviour that are about those, and what their pods do then.
WAY_WORDS = {"unseen": "ready", "unaddressed": "ready", "unrouted": "loading", "inside": "ready"}
# Group, version, plural, kind, short name, whether in a namespace: what a cluster has before anything is applied.
SITE_KINDS = [
    ("", "v1", "nodes", "Node", "no", False),
    ("", "v1", "secrets", "Secret", "", True),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", "pvc", True),
    ("", "v1", "resourcequotas", "ResourceQuota", "quota", True),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", "crd", False),
]
SITE_PATH = re.compile(r"^/(?:api/v1|apis/apiextensions.k8s.io/v1)(?:/namespaces/(?P<namespace>[^/]+))?"
                       r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?$")
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
# Words of DIR/job with which its pod runs.
RUNS = ("ready", "killed-oom")
# How the shell that sets a container up ends where its program is not there, and what a node says then.
NO_PROGRAM = 127
NOT_FOUND = ("failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create "
             "failed: unable to start container process: error during container init: exec: \"scalebeam\": executable "
             "file not found in $PATH")
# How long a deleted object keeps its pods.
GONE_AFTER_S = 0.3
PORT = re.compile(r"^/(?:api/v1|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
                  r"/namespaces/(?P<namespace>[^/]+)/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?P<sub>/log|/exec)?)?$")


class Cluster:
    """Objects, by plural, namespace and name."""

    def __init__(self, folder, without, node_port):
        self.folder = folder
        self.node_port = node_port
        self.without = without
        self.objects = {}
        self.lock = threading.RLock()
        self.version = 0
        self.kubelet = None

    @property
    def kinds(self):
        """Those of the groups that the cluster has: a file may take some away later."""
        gone = list(self.without)
        try:
            with open(os.path.join(self.folder, "without")) as file:
                gone += file.read().split()
        except FileNotFoundError:
            pass
        return [k for k in KINDS if k[0] not in gone]

    def site(self):
        try:
            with open(os.path.join(self.folder, "site.json")) as file:
                return json.load(file)
        except FileNotFoundError:
            return None

    def behaviour(self):
        return self.word("behaviour", "ready")

    def word(self, name, otherwise):
        try:
            with open(os.path.join(self.folder, name)) as file:
                return file.read().strip()
        except FileNotFoundError:
            return otherwise

    def token(self, namespace, name):
        account = self.objects[("serviceaccounts", namespace, name)]
        return f"{namespace}/{name}/{account['metadata']['uid']}"

    def account_of(self, token):
        """Namespace and name of the service account that bears `token`, as long as it exists."""
        namespace, _, rest = token.partition("/")
        name = rest.partition("/")[0]
        is_there = ("serviceaccounts", namespace, name) in self.objects
        return (namespace, name) if is_there and self.token(namespace, name) == token else None

    def may(self, account, verb, group, resource, namespace):
        """Whether a Role that is bound to `account` says so."""
        for (plural, of, _), binding in self.objects.items():
            if plural != "rolebindings" or of != namespace:
                continue
            subjects = [(s.get("namespace", of), s["name"]) for s in binding["subjects"]]
            role = self.objects.get(("roles", of, binding["roleRef"]["name"]), {"rules": []})
            if account in subjects and any(
                    group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
                    for rule in role["rules"]):
                return True
        return False

    def plural_of(self, kind):
        return next(k[2] for k in KINDS if k[3] == kind)

    def put(self, plural, obj):
        self.version += 1
        meta = obj["metadata"]
        key = (plural, meta["namespace"], meta["name"])
        known = self.objects.get(key)
        meta.setdefault("uid", known["metadata"]["uid"] if known else f"uid-{self.version}")
        meta["resourceVersion"] = str(self.version)
        meta["generation"] = known["metadata"]["generation"] + 1 if known else 1
        meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        self.objects[key] = obj
        return obj, known is None

    def delete(self, plural, namespace, name):
        obj = self.objects.get((plural, namespace, name))
        if obj is None:
            return None
        obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
        obj["metadata"]["deletionGracePeriodSeconds"] = 0
        obj["deleted_at"] = time.monotonic()
        return obj

    def settle(self):
        """What controllers and nodes would have done by now."""
        behaviour = self.behaviour()
        now = time.monotonic()
        known = {k[2] for k in self.kinds}
        for key in [k for k in self.objects if k[0] == "pods" or k[0] not in known]:
            del self.objects[key]
        for key, obj in list(self.objects.items()):
            gone = "deleted_at" in obj and now - obj["deleted_at"] > GONE_AFTER_S
            if obj["kind"] == "Job":
                pod = self.settle_job(obj)
                if gone and pod is None:
                    del self.objects[key]
                continue
            has_pods = obj["kind"] not in ("Service", *STILL, *WAY)
            if gone and (behaviour != "stuck" or not has_pods):
                del self.objects[key]
                continue
            if obj["kind"] == "Service":
                self.settle_service(obj)
            elif obj["kind"] in WAY:
                obj["status"] = way_status(obj, behaviour)
            elif has_pods:
                self.settle_workload(obj, WAY_WORDS.get(behaviour, behaviour))

    def settle_service(self, service):
        kind = service["spec"].get("type", "ClusterIP")
        for index, port in enumerate(service["spec"].get("ports", [])):
            if kind != "ClusterIP" and self.node_port:
                port["nodePort"] = self.node_port + index
        if kind == "LoadBalancer" and self.behaviour() != "loading":
            service["status"] = {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}

    def settle_job(self, job):
        """Its pod, as long as there is one."""
        meta, template = job["metadata"], job["spec"]["template"]
        name, namespace = f"{meta['name']}-x7k2p", meta["namespace"]
        word = self.word("job", "ready")
        running = self.kubelet.pods.get(name) if self.kubelet else None
        is_deleted = "deleted_at" in job
        if word == "quota" or (is_deleted and running is None):
            self.objects.pop(("pods", namespace, name), None)
            if word == "quota":
                self.warn(job, "FailedCreate", f'Error creating: pods "{name}" is forbidden: exceeded quota: compute, '
                          "requested: pods=1, used: pods=10, limited: pods=10")
            return None
        pod = make_pod(job, name, template["metadata"]["labels"], None, "ready" if word in RUNS else word)
        main = template["spec"]["containers"][0]
        pod["spec"] = {"nodeName": "n1", **template["spec"]}
        for container in pod["status"]["containerStatuses"]:
            container["name"] = main["name"]
        if word in RUNS:
            job_status(pod["status"], running, word)
        if is_deleted:
            grace = template["spec"]["terminationGracePeriodSeconds"]
            pod["metadata"] |= {"deletionTimestamp": "2026-01-01T00:01:00Z", "deletionGracePeriodSeconds": grace}
        self.objects[("pods", namespace, name)] = pod
        ended = {"Succeeded": ("succeeded", "Complete"), "Failed": ("failed", "Failed")}.get(pod["status"]["phase"])
        job["status"] = {ended[0]: 1, "conditions": [{"type": ended[1], "status": "True"}]} if ended else {"active": 1}
        return pod

    def warn(self, obj, reason, message):
        meta = obj["metadata"]
        name = f"{meta['name']}.{reason.lower()}"
        if ("events", meta["namespace"], name) not in self.objects:
            self.put("events", {"kind": "Event", "apiVersion": "v1", "type": "Warning", "reason": reason,
                                "message": message, "metadata": {"name": name, "namespace": meta["namespace"]},
                                "involvedObject": {"kind": obj["kind"], "name": meta["name"]}})

    def settle_workload(self, obj, behaviour):
        pods = wanted(obj)
        ready = 0
        for index, (name, labels, subdomain) in enumerate(pods):
            state = behaviour
            if behaviour == "half":
                state = "loading" if index == len(pods) - 1 else "ready"
            running = None
            if self.kubelet:
                running = self.kubelet.pods.get(name)
                state = state if running else "loading"
            pod = make_pod(obj, name, labels, subdomain, state)
            if running:
                pod["status"]["hostIP"] = running.address
            ready += is_ready(pod)
            self.objects[("pods", obj["metadata"]["namespace"], name)] = pod
        obj["status"] = status_of(obj, pods, ready, behaviour)


def wanted(obj):
    """Pods that the controller of `obj` makes: name, labels, subdomain."""
    meta, spec = obj["metadata"], obj["spec"]
    name, kind = meta["name"], obj["kind"]
    if kind == "Deployment":
        labels = spec["template"]["metadata"]["labels"]
        return [(f"{name}-5d9f8-{i}", labels, None) for i in range(spec["replicas"])]
    if kind == "StatefulSet":
        labels = spec["template"]["metadata"]["labels"]
        return [
            (f"{name}-{i}", {**labels, "statefulset.kubernetes.io/pod-name": f"{name}-{i}"}, spec["serviceName"])
            for i in range(spec["replicas"])
        ]
    if kind == "LeaderWorkerSet":
        group = spec["leaderWorkerTemplate"]
        leader = group["leaderTemplate"]["metadata"]["labels"]
        worker = group["workerTemplate"]["metadata"]["labels"]
        pods = []
        for i in range(spec["replicas"]):
            pods.append((f"{name}-{i}", {**leader, "statefulset.kubernetes.io/pod-name": f"{name}-{i}"}, name))
            pods += [(f"{name}-{i}-{j}", worker, name) for j in range(1, group["size"])]
        return pods
    if kind == "RayService":
        cluster = spec["rayClusterConfig"]
        head = cluster["headGroupSpec"]["template"]["metadata"]["labels"]
        pods = [(f"{name}-head", {**head, "ray.io/node-type": "head", "ray.io/serve": "true"}, None)]
        for group in cluster["workerGroupSpecs"]:
            labels = {**group["template"]["metadata"]["labels"], "ray.io/node-type": "worker"}
            pods += [(f"{name}-{group['groupName']}-{i}", labels, None) for i in range(group["replicas"])]
        return pods
    pods = []
    for component in spec["components"]:
        labels = component["podTemplate"]["metadata"]["labels"]
        pods += [(f"{name}-{component['name'].lower()}-{i}", labels, None) for i in range(component["replicas"])]
    return pods


def job_status(status, running, word):
    """What a kubelet says of the one container of a Job's pod."""
    [container] = status["containerStatuses"]
    code = running.code() if running else None
    container["ready"] = bool(running) and code is None
    if code is not None:
        ended = {"reason": "Completed" if code == 0 else "Error", "exitCode": code, "startedAt": None, "finishedAt": None}
        if code == NO_PROGRAM:
            ended |= {"reason": "StartError", "exitCode": 128, "message": NOT_FOUND}
        if code == 137 and word == "killed-oom":
            ended["reason"] = "OOMKilled"
        container["state"] = {"terminated": ended}
        status["phase"] = "Failed" if code else "Succeeded"
    elif running is None:
        # Not `waiting`: it is started as soon as it is seen.
        container["state"], status["phase"] = {}, "Pending"
    for condition in status["conditions"]:
        if condition["type"] == "Ready":
            condition["status"] = str(container["ready"])


def status_of(obj, pods, ready, behaviour):
    whole = ready == len(pods)
    status = {"observedGeneration": obj["metadata"]["generation"]}
    kind = obj["kind"]
    if kind in ("Deployment", "StatefulSet"):
        status.update(replicas=len(pods), readyReplicas=ready)
    elif kind == "LeaderWorkerSet":
        status.update(replicas=obj["spec"]["replicas"], readyReplicas=obj["spec"]["replicas"] if whole else 0)
    elif kind == "RayService":
        app = {"status": "RUNNING"} if whole else {"status": "DEPLOYING", "message": "Waiting for replicas"}
        if behaviour == "failed":
            app = {"status": "DEPLOY_FAILED", "message": "", "serveDeploymentStatuses": {
                "LLMServer:qwen": {"status": "DEPLOY_FAILED", "message": "CUDA out of memory"}}}
        serves = whole and behaviour != "failed"
        status.update(
            conditions=[{"type": "Ready", "status": str(serves), "reason": "x", "message": ""}],
            activeServiceStatus={"applicationStatuses": {"llms": app}},
        )
    else:
        state = "failed" if behaviour == "failed" else "successful" if whole else "pending"
        status.update(
            state=state,
            conditions=[{"type": "Ready", "status": str(state == "successful"), "reason": "pods_not_ready",
                         "message": "Resources not ready" if state != "successful" else "All resources are ready"}],
        )
    return status


def way_status(obj, behaviour):
    """What a controller of gateways says, in Istio's words; before it looks, what the schemas have as defaults."""
    kind, generation = obj["kind"], obj["metadata"]["generation"]

    def condition(what, status, reason, message=""):
        return {"type": what, "status": status, "reason": reason, "message": message,
                "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"}

    if behaviour == "unseen":
        waiting = [{"type": what, "status": "Unknown", "reason": "Pending", "message": "Waiting for controller"}
                   for what in ("Accepted", "Programmed")]
        return {"conditions": waiting} if kind == "Gateway" else {}
    accepted = condition("Accepted", "True", "Accepted", "Resource accepted")
    if kind == "Gateway":
        if behaviour == "unaddressed":
            service = f"{obj['metadata']['name']}-istio.{obj['metadata']['namespace']}.svc.cluster.local"
            return {"conditions": [accepted, condition(
                "Programmed", "False", "AddressNotAssigned",
                f'Assigned to service(s) {service}:8000, but failed to assign to all requested addresses: '
                f'address pending for hostname "{service}"')]}
        host = {"type": "IPAddress", "value": "127.0.0.1"}
        if behaviour == "inside":
            host = {"type": "Hostname", "value": "one-gateway-istio.bench.svc.cluster.local"}
        return {"conditions": [accepted, condition("Programmed", "True", "Programmed")], "addresses": [host]}
    resolved = condition("ResolvedRefs", "True", "ResolvedRefs", "All references resolved")
    if kind == "HTTPRoute" and behaviour == "unrouted":
        resolved = condition("ResolvedRefs", "False", "InvalidKind",
                             "referencing unsupported backendRef: group inference.networking.k8s.io kind InferencePool")
    ref = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "x"}
    return {"parents": [{"parentRef": ref, "controllerName": "istio.io/gateway-controller",
                         "conditions": [accepted, resolved]}]}


def is_ready(pod):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])


def make_pod(owner, name, labels, subdomain, state):
    container = {"name": "main", "image": "x", "ready": False, "restartCount": 0, "state": {}, "lastState": {}}
    scheduled = {"type": "PodScheduled", "status": "True"}
    ended = {"reason": "Error", "exitCode": 1, "startedAt": None, "finishedAt": None}
    phase, containers = "Running", [container]
    if state in ("ready", "stuck", "failed"):
        container["ready"] = True
        container["state"] = {"running": {"startedAt": "2026-01-01T00:00:10Z"}}
    elif state == "loading":
        container["state"] = {"running": {"startedAt": "2026-01-01T00:00:10Z"}}
    elif state in ("unschedulable", "claim"):
        message = {
            "unschedulable": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are "
                             "available: 3 No preemption victims found for incoming pod.",
            "claim": 'persistentvolumeclaim "models" not found',
        }[state]
        scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        phase, containers = "Pending", []
    elif state == "crash":
        container["restartCount"] = 3
        container["state"] = {"waiting": {"reason": "CrashLoopBackOff",
                                          "message": "back-off 40s restarting failed container=main pod=" + name}}
        container["lastState"] = {"terminated": ended}
    elif state == "oom":
        container["restartCount"] = 1
        container["state"] = {"running": {"startedAt": "2026-01-01T00:00:10Z"}}
        container["lastState"] = {"terminated": {**ended, "reason": "OOMKilled", "exitCode": 137}}
    else:
        phase = "Pending"
        reason, message = {
            "image": ("ImagePullBackOff", 'Back-off pulling image "x": ErrImagePull: rpc error: code = NotFound '
                                          'desc = failed to pull and unpack image: not found'),
            "slow-image": ("ImagePullBackOff", 'Back-off pulling image "x": ErrImagePull: dial tcp: i/o timeout'),
            "secret": ("CreateContainerConfigError", 'secret "hf-token" not found'),
        }[state]
        container["state"] = {"waiting": {"reason": reason, "message": message}}
    ready = {"type": "Ready", "status": str(container["ready"])}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name, "namespace": owner["metadata"]["namespace"], "labels": labels, "uid": f"uid-{name}",
            "creationTimestamp": "2026-01-01T00:00:05Z", "resourceVersion": "1",
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "x"}], **({"subdomain": subdomain} if subdomain else {})},
        "status": {
            "phase": phase, "hostIP": "127.0.0.1", "conditions": [scheduled, ready],
            "containerStatuses": containers,
        },
    }


def selected(obj, selector, fields=""):
    labels = obj["metadata"].get("labels", {})
    parts = [part.split("=", 1) for part in selector.split(",") if part]
    wanted = [part.split("=", 1) for part in fields.split(",") if part]
    return all(labels.get(k) == v for k, v in parts) and all(field(obj, k) == v for k, v in wanted)


def field(obj, path):
    for key in path.split("."):
        obj = obj.get(key, {})
    return obj


def shown(obj):
    return {k: v for k, v in obj.items() if k != "deleted_at"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Whether those who ask are pods.
    asks_who = False

    def do(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        with open(os.path.join(self.cluster.folder, "requests.log"), "a") as log:
            log.write(f"{self.command} {self.path} {body.decode(errors='replace')}\n")
        url = urlparse(self.path)
        words = parse_qs(url.query)
        query = {k: v[0] for k, v in words.items()}
        match = PORT.match(url.path)
        if self.asks_who and not self.is_let_in(match):
            return None
        if match and match["sub"] == "/exec":
            # As long as a command runs others are served.
            return self.exec(match, words)
        if match and match["sub"] == "/log" and self.job_log(match, query):
            return None
        with self.cluster.lock:
            self.cluster.settle()
            self.answer(url.path, query, body)

    do_GET = do_PATCH = do_DELETE = do_POST = do

    def is_let_in(self, match):
        """Whether who asks is known, and may; otherwise it was told so."""
        with self.cluster.lock:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            account = self.cluster.account_of(token)
            if account is None:
                self.status(401, "Unauthorized", "Unauthorized")
                return False
            if not match:
                return True
            namespace, group, resource = match["namespace"], match["group"] or "", match["plural"]
            is_new = (resource, namespace, match["name"]) not in self.cluster.objects
            verbs = {"GET": ["get" if match["name"] else "list"], "DELETE": ["delete"],
                     "PATCH": ["patch", "create"] if is_new else ["patch"], "POST": ["create"]}[self.command]
            if match["sub"]:
                resource += match["sub"]
                # To servers of 1.35 and later a WebSocket is a `create`, too.
                verbs = ["get", "create"] if match["sub"] == "/exec" else verbs
            denied = [v for v in verbs if not self.cluster.may(account, v, group, resource, namespace)]
        if denied:
            full = f"{resource}.{group}" if group else resource
            who = f"system:serviceaccount:{account[0]}:{account[1]}"
            self.status(403, "Forbidden", f'{full} is forbidden: User "{who}" cannot {denied[0]} resource '
                        f'"{resource}" in API group "{group}" in the namespace "{namespace}"')
        return not denied

    def job_log(self, match, query):
        """Gives the log of a Job's pod, as it comes if it is followed; whether it is one."""
        kubelet = self.cluster.kubelet
        pod = kubelet and kubelet.pods.get(match["name"])
        if not (pod and pod.log):
            return False
        follow = query.get("follow") == "true"
        index = max(0, len(pod.log.lines) - int(query["tailLines"])) if "tailLines" in query else 0
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while line := pod.log.next(index, follow):
                index += 1
                if line[0][:19] >= query.get("sinceTime", "")[:19]:
                    text = f"{' '.join(line) if query.get('timestamps') == 'true' else line[1]}\n".encode()
                    self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
                    self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            # Nobody reads any more.
            self.close_connection = True
        return True

    def answer(self, path, query, body):
        known = self.discovery(path)
        if known is not None:
            return self.json(200, known)
        if self.of_site(path, body):
            return None
        match = PORT.match(path)
        if not match:
            return self.missing("the server could not find the requested resource")
        group, version = match["group"] or "", match["version"] or "v1"
        entry = next((k for k in self.cluster.kinds if k[:3] == (group, version, match["plural"])), None)
        if entry is None:
            return self.missing("the server could not find the requested resource")
        if match["sub"]:
            return self.log(match, query)
        if self.command == "GET":
            return self.get(entry, match, query)
        if self.command == "PATCH":
            return self.apply(entry, match, query, json.loads(body))
        obj = self.cluster.delete(entry[2], match["namespace"], match["name"])
        return self.json(200, shown(obj)) if obj else self.not_found(entry, match["name"])

    def of_site(self, path, body):
        """Answers what is about the cluster itself; whether it was."""
        site = self.cluster.site()
        if site is None:
            return False
        if path == REVIEW and self.command == "POST":
            # kubectl asks in protocol buffers, in which the words stand as they are.
            denied = any(all(word.encode() in body for word in words.split()) for words in site.get("denied", []))
            self.json(201, {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
                            "spec": {}, "status": {"allowed": not denied}})
            return True
        match = SITE_PATH.match(path)
        kind = match and next((k for k in SITE_KINDS if k[2] == match["plural"]), None)
        if not kind:
            return False
        mine = [o for o in site["objects"] if o["kind"] == kind[3]]
        api = f"{kind[0]}/{kind[1]}" if kind[0] else kind[1]
        if match["name"]:
            found = [o for o in mine if o["metadata"]["name"] == match["name"]]
            self.json(200, {"apiVersion": api, **found[0]}) if found else self.not_found(kind, match["name"])
        else:
            self.json(200, {"kind": f"{kind[3]}List", "apiVersion": api, "metadata": {},
                            "items": [{"apiVersion": api, **o} for o in mine]})
        return True

    def discovery(self, path):
        more = SITE_KINDS if self.cluster.site() is not None else []
        kinds = [*self.cluster.kinds, *more]
        groups = sorted({(k[0], k[1]) for k in kinds if k[0]})
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            named = [{"groupVersion": f"{g}/{v}", "version": v} for g, v in groups]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                {"name": g, "versions": [n], "preferredVersion": n} for (g, _), n in zip(groups, named)]}
        if path == "/openapi/v3":
            paths = ["api/v1"] + [f"apis/{g}/{v}" for g, v in groups]
            return {"paths": {p: {"serverRelativeURL": f"/openapi/v3/{p}"} for p in paths}}
        prefix, of_spec = ("/openapi/v3", True) if path.startswith("/openapi/v3/") else ("", False)
        rest = path[len(prefix):].strip("/").split("/")
        if rest == ["api", "v1"]:
            group, version = "", "v1"
        elif len(rest) == 3 and rest[0] == "apis" and (rest[1], rest[2]) in groups:
            group, version = rest[1], rest[2]
        else:
            return None
        mine = [k for k in kinds if k[:2] == (group, version)]
        return openapi(mine) if of_spec else {
            "kind": "APIResourceList", "groupVersion": f"{group}/{version}" if group else version,
            "resources": [{"name": k[2], "singularName": k[3].lower(), "kind": k[3],
                           "shortNames": [name for name in k[4:5] if name], "namespaced": all(k[5:6]),
                           "verbs": ["create", "delete", "get", "list", "patch"]} for k in mine]}

    def get(self, entry, match, query):
        _, version, plural, kind = entry
        if match["name"]:
            obj = self.cluster.objects.get((plural, match["namespace"], match["name"]))
            if self.cluster.behaviour() == "foreign":
                obj = {"apiVersion": version, "kind": kind, "metadata": {"name": match["name"], "labels": {}}}
            return self.json(200, shown(obj)) if obj else self.not_found(entry, match["name"])
        items = [shown(o) for (p, namespace, _), o in sorted(self.cluster.objects.items())
                 if p == plural and namespace == match["namespace"]
                 and selected(o, query.get("labelSelector", ""), query.get("fieldSelector", ""))]
        api = f"{entry[0]}/{version}" if entry[0] else version
        self.json(200, {"kind": f"{kind}List", "apiVersion": api, "metadata": {"resourceVersion": "1"},
                        "items": items})

    def apply(self, entry, match, query, obj):
        if self.headers.get("Content-Type") != "application/apply-patch+yaml" or "fieldManager" not in query:
            return self.status(415, "UnsupportedMediaType", "only server-side apply is modelled")
        obj["metadata"].setdefault("namespace", match["namespace"])
        obj, is_new = self.cluster.put(entry[2], obj)
        self.json(201 if is_new else 200, shown(obj))

    def exec(self, match, words):
        name, kubelet = match["name"], self.cluster.kubelet
        pod = kubelet and kubelet.pods.get(name)
        if pod is None:
            return self.not_found(("", "v1", "pods", "Pod"), name)
        how = kubelet.how(name)
        if how == "forbidden":
            return self.status(403, "Forbidden", f'pods "{name}" is forbidden: User "lab" cannot create resource '
                               f'"pods/exec" in API group "" in the namespace "{match["namespace"]}"',
                               {"name": name, "kind": "pods"})
        kube_pods.Exec(self, pod, words["command"], has_shell=how != "no-shell").serve()

    def log(self, match, query):
        pod = self.cluster.objects.get(("pods", match["namespace"], match["name"]))
        if pod is None:
            return self.not_found(("", "v1", "pods", "Pod"), match["name"])
        which = "previous " if query.get("previous") == "true" else ""
        lines = [f"{which}log of {match['name']}: loading weights"]
        if self.cluster.behaviour() == "crash":
            lines.append("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB")
        self.reply(200, "text/plain", "".join(f"{line}\n" for line in lines).encode())

    def not_found(self, entry, name):
        group = f".{entry[0]}" if entry[0] else ""
        self.missing(f'{entry[2]}{group} "{name}" not found', {"name": name, "group": entry[0], "kind": entry[2]})

    def missing(self, message, details=None):
        self.status(404, "NotFound", message, details)

    def status(self, code, reason, message, details=None):
        self.json(code, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                         "message": message, "reason": reason, "details": details or {}, "code": code})

    def json(self, code, value):
        self.reply(code, "application/json", json.dumps(value).encode())

    def reply(self, code, kind, data):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class PodHandler(Handler):
    """The same for pods."""

    asks_who = True


def openapi(kinds):
    """As much as tells kubectl that the server validates fields itself."""
    paths = {}
    for group, version, plural, kind, *_ in kinds:
        prefix = f"/apis/{group}/{version}" if group else f"/api/{version}"
        paths[f"{prefix}/namespaces/{{namespace}}/{plural}/{{name}}"] = {"patch": {
            "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        }}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "1.32"}, "paths": paths}


KUBECONFIG = """apiVersion: v1
kind: Config
current-context: lab
contexts:
- name: lab
  context: {{cluster: lab, user: lab, namespace: {namespace}}}
clusters:
- name: lab
  cluster: {{server: "http://127.0.0.1:{port}"}}
users:
- name: lab
  user: {{}}
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--node-port", type=int)
    parser.add_argument("--namespace", default="bench")
    parser.add_argument("--container")
    parser.add_argument("--image")
    args = parser.parse_args()
    Handler.cluster = Cluster(args.folder, args.without, args.node_port)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    path = os.path.join(args.folder, "kubeconfig")
    with open(path + ".new", "w") as file:
        file.write(KUBECONFIG.format(port=server.server_port, namespace=args.namespace))
    os.rename(path + ".new", path)
    kubelet = None
    if args.container:
        kubelet = kube_pods.Kubelet(Handler.cluster, args.container, args.node_port, args.image)
        Handler.cluster.kubelet = kubelet
        if args.image:
            kubelet.server = kube_tls.serve(kubelet.network.address, args.folder, PodHandler)
        kubelet.thread.start()

    def end():
        """With the test that started it."""
        sys.stdin.read()
        if kubelet:
            kubelet.end()
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
