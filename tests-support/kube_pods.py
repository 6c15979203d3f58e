"""What a kubelet would do, for kube_api.py: pods that are processes, and `kubectl exec` into them.

A pod is a process in namespaces of its own (processes, mounts, network, control groups) with limits of its own: 1.5
cores, 512 MiB. Its network is a pair of interfaces, of which this machine has the other end at a bridge, so that pods
reach each other. What it writes it writes below TMPDIR, which only it sees. Commands are run in it as a node runs them:
in its namespaces and its control group, without its parent. Nothing ends them when a connection breaks.

The pod of a Job runs its container's own command, arguments and variables. Its image is this machine's file system with
/tmp, /run and /etc of its own and the programs of a folder at /image; its volumes (ConfigMaps, empty folders, claims as
such) and the token of its service account are mounted. It finds Services by the names that the cluster's DNS would
have, asks the API server by TLS, and is sent SIGTERM, after its grace SIGKILL.

Needs root. Control groups of version 1 and 2 are both known, since machines have either.
"""

import base64
import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from datetime import datetime, timezone

GROUPS = "/sys/fs/cgroup"
# Where a pod writes: a file system of its own.
SCRATCH = "/mnt"
ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
# What of this machine's file system an image has not.
OWN = ("etc", "image", "mnt", "proc", "run", "sys", "tmp")
CONTROLLERS = ("cpu", "cpuacct", "memory")
CORES, MEMORY_BYTES = 1.5, 512 << 20
# Of RFC 6455.
MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS, CLOSE = 0, 1, 2, 3, 255
NO_SHELL = ("Internal error occurred: error executing command in container: failed to exec in container: failed to "
            "start exec \"8a\": OCI runtime exec failed: exec failed: unable to start container process: exec: "
            "\"sh\": executable file not found in $PATH: unknown")


def is_version_2():
    return os.path.exists(os.path.join(GROUPS, "cgroup.controllers"))


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def group_dirs(name):
    """The directories of the control group `name`, made."""
    if is_version_2():
        path = os.path.join(GROUPS, name)
        os.makedirs(path, exist_ok=True)
        for parent in (GROUPS, os.path.dirname(path)):
            write(os.path.join(parent, "cgroup.subtree_control"), "+cpu +memory")
        write(os.path.join(path, "cpu.max"), f"{int(CORES * 100000)} 100000")
        write(os.path.join(path, "memory.max"), str(MEMORY_BYTES))
        return [path]
    paths = [os.path.join(GROUPS, controller, name) for controller in CONTROLLERS]
    for path in paths:
        os.makedirs(path, exist_ok=True)
    write(os.path.join(paths[0], "cpu.cfs_period_us"), "100000")
    write(os.path.join(paths[0], "cpu.cfs_quota_us"), str(int(CORES * 100000)))
    write(os.path.join(paths[2], "memory.limit_in_bytes"), str(MEMORY_BYTES))
    return paths


def entering(groups):
    """A shell's words that put it into `groups`."""
    return "".join(f"echo $$ > {shlex.quote(group)}/cgroup.procs\n" for group in groups)


def setup(address, how):
    """What a pod's first process does before it is the container's."""
    if is_version_2():
        groups = f"mount -t cgroup2 cgroup2 {GROUPS}\n"
    else:
        mounts = "".join(f"mkdir {GROUPS}/{c}\nmount -t cgroup -o {c} cgroup {GROUPS}/{c}\n" for c in CONTROLLERS)
        groups = f"mount -t tmpfs tmpfs {GROUPS}\n{mounts}"
    options = "-o ro" if how == "read-only" else ""
    return (
        "set -e\nmount -t proc proc /proc\nmount -t sysfs sysfs /sys\n" + groups
        + f"mount -t tmpfs {options} tmpfs {SCRATCH}\nip link set lo up\n"
        "until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done\n"
        f"ip address add {address}/24 dev eth0\nip link set eth0 up\n"
    )


def environment():
    return {"PATH": os.environ["PATH"], "HOME": "/", "TMPDIR": SCRATCH}


def root_of(image, folder, mounts):
    """A shell's words that make the file system of a Job's container, and enter it. What is mounted lies in `folder`:
    places by the names that they have there."""
    words = [f"set -e\nmount -t tmpfs tmpfs {SCRATCH}\ncd {SCRATCH}"]
    for name in sorted(os.listdir("/")):
        path = os.path.join("/", name)
        if os.path.islink(path):
            words.append(f"cp -a {shlex.quote(path)} .")
        elif os.path.isdir(path) and name not in OWN:
            words.append(f"mkdir {shlex.quote(name)}\nmount --rbind {shlex.quote(path)} {shlex.quote(name)}")
    words.append(f"mkdir -p {' '.join(OWN)} old\nchmod 1777 tmp\ncp -a /etc/. etc\nrm -f etc/hosts")
    words.append(f"echo '127.0.0.1 localhost' > etc/hosts\nmount --bind {shlex.quote(image)} image")
    for place, name in mounts.items():
        inside = shlex.quote("." + place)
        words.append(f"mkdir -p {inside}\nmount --bind {shlex.quote(os.path.join(folder, name))} {inside}")
    words.append(f"pivot_root . old\ncd /\nmount -t proc proc /proc\numount -l /old")
    return "\n".join(words) + "\n"


class Network:
    """A bridge of this machine, which all pods are at."""

    def __init__(self):
        self.subnet = f"10.213.{os.getpid() % 250}"
        self.name = f"sbbr{os.getpid() % 10000}"
        self.address = f"{self.subnet}.1"
        # Of a server with this pid that was killed.
        subprocess.run(["ip", "link", "delete", self.name], check=False, stderr=subprocess.DEVNULL)
        # Otherwise its address changes with what is at it, and pods send to the old one for a while.
        fixed = "address 02:73:62:00:00:01"
        for words in (f"link add {self.name} {fixed} type bridge", f"address add {self.address}/24 dev {self.name}",
                      f"link set {self.name} up"):
            subprocess.run(["ip", *words.split()], check=True)

    def address_of(self, number):
        return f"{self.subnet}.{number + 2}"

    def join(self, number, pid):
        """Gives the process `pid`, in a network of its own, an interface here."""
        link = f"sbpod{os.getpid() % 10000}x{number}"
        for words in (f"link add {link} type veth peer name eth0 netns {pid}", f"link set {link} master {self.name}",
                      f"link set {link} up"):
            subprocess.run(["ip", *words.split()], check=True)

    def end(self):
        subprocess.run(["ip", "link", "delete", self.name], check=False)


class Pod:
    """One that runs."""

    def __init__(self, name, number, network, command, how="", env=None, root="", log=None):
        self.name, self.log, self.env = name, log, env or environment()
        self.family = f"scalebeam-pods-{os.getpid()}"
        self.groups = group_dirs(f"{self.family}/{name}")
        self.address = network.address_of(number)
        script = root + setup(self.address, how) + "exec " + command
        namespaces = "--pid --fork --kill-child --mount --net --uts --ipc --cgroup"
        outer = f"{entering(self.groups)}exec unshare {namespaces} -- sh -c {shlex.quote(script)}"
        # It ends with this server, however that ends.
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "sh", "-c", outer], env=self.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if log else subprocess.DEVNULL, stderr=subprocess.STDOUT if log else None,
        )
        if log:
            log.read(self.process.stdout)
        self.init = self.first_process()
        network.join(number, self.init)
        self.deadline = None

    def first_process(self):
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        while True:
            with open(path) as file:
                children = file.read().split()
            # Before it is unshare it is a shell that has no child.
            if children:
                return int(children[0])
            time.sleep(0.02)

    def until_served(self, port):
        for _ in range(400):
            try:
                socket.create_connection((self.address, port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError(f"pod {self.name} does not serve")

    def run(self, words):
        """Starts `words` in it."""
        inside = ["nsenter", "--target", str(self.init), "--pid", "--mount", "--net", "--uts", "--ipc", "--cgroup",
                  "--", *words]
        script = entering(self.groups) + 'exec "$@"'
        pipe = subprocess.PIPE
        return subprocess.Popen(["sh", "-c", script, "sh", *inside], env=self.env, cwd="/",
                                stdin=pipe, stdout=pipe, stderr=pipe)

    def code(self):
        """How its container ended; nothing while it runs."""
        status = self.process.poll()
        if self.log and self.log.was_killed:
            return 128 + signal.SIGKILL
        return status if status is None or status >= 0 else 128 - status

    def signal(self, number):
        # A shell that still sets it up is the first process of its namespace and takes SIGKILL alone.
        try:
            os.kill(self.init, number)
        except ProcessLookupError:
            pass

    def is_ended(self, grace_s):
        """Asks it to end, and sees to that after its grace."""
        if self.code() is not None:
            return True
        if self.deadline is None:
            self.deadline = time.monotonic() + grace_s
            self.signal(signal.SIGTERM)
        elif time.monotonic() > self.deadline:
            self.signal(signal.SIGKILL)
        return False

    def end(self):
        if self.code() is None:
            self.signal(signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for group in self.groups:
            self.remove(group)

    def remove(self, group):
        # Processes that were killed are in it until they are gone.
        for _ in range(100):
            try:
                os.rmdir(group)
                os.rmdir(os.path.dirname(group))
                return
            except OSError:
                if not os.path.exists(group):
                    return
                time.sleep(0.02)


class Log:
    """What a container has printed, line by line, as a node keeps it."""

    def __init__(self):
        self.lines, self.is_over, self.was_killed, self.news = [], False, False, threading.Condition()

    def read(self, pipe):
        threading.Thread(target=self.work, args=(pipe,), daemon=True).start()

    def work(self, pipe):
        for line in pipe:
            if line.startswith(b"unshare: sigprocmask"):
                # It wants to end by the signal that its child ended by, and cannot by SIGKILL.
                self.was_killed = True
                continue
            now = time.time_ns()
            at = datetime.fromtimestamp(now // 10**9, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
            with self.news:
                self.lines.append((f"{at}.{now % 10**9:09}Z", line.decode(errors="replace").rstrip("\n")))
                self.news.notify_all()
        with self.news:
            self.is_over = True
            self.news.notify_all()

    def next(self, index, follow):
        """The line after `index` others, waited for if it is followed; nothing at the end."""
        with self.news:
            while follow and index >= len(self.lines) and not self.is_over:
                self.news.wait(1)
            return self.lines[index] if index < len(self.lines) else None


class Kubelet:
    """Runs the pods that a cluster has."""

    def __init__(self, cluster, command, port, image):
        self.cluster, self.command, self.port, self.image = cluster, command, port, image
        self.network = Network()
        # Where pods ask the API server, once it listens.
        self.server = None
        self.pods = {}
        self.count = 0
        self.is_over = False
        self.hosts = None
        self.thread = threading.Thread(target=self.work, daemon=True)

    def work(self):
        while not self.is_over:
            with self.cluster.lock:
                self.cluster.settle()
                wanted = {key[2]: obj for key, obj in self.cluster.objects.items() if key[0] == "pods"}
            for name in list(self.pods):
                self.look(name, wanted.get(name))
            for name in sorted(set(wanted) - set(self.pods)):
                self.start(name, wanted[name])
            self.name_services()
            time.sleep(0.1)
        for pod in self.pods.values():
            pod.end()
        self.network.end()

    def look(self, name, obj):
        pod = self.pods[name]
        if obj and "deletionTimestamp" in obj["metadata"]:
            obj = None if pod.is_ended(obj["spec"]["terminationGracePeriodSeconds"]) else obj
        if obj is None:
            self.pods.pop(name).end()

    def start(self, name, obj):
        number, self.count = self.count, self.count + 1
        if "command" not in obj["spec"]["containers"][0]:
            self.pods[name] = Pod(name, number, self.network, self.command, self.how(name))
            self.pods[name].until_served(self.port)
            return
        states = [c["state"] for c in obj["status"]["containerStatuses"]]
        if states and "waiting" not in states[0] and "deletionTimestamp" not in obj["metadata"]:
            self.pods[name] = self.container(name, number, obj["spec"], obj["metadata"]["namespace"])

    def container(self, name, number, spec, namespace):
        """The pod of a Job."""
        container = spec["containers"][0]
        folder = os.path.join(self.cluster.folder, "volumes", name)
        places = {v["name"]: self.volume(v, folder, namespace) for v in spec["volumes"]}
        mounts = {m["mountPath"]: places[m["name"]] for m in container["volumeMounts"]}
        mounts[ACCOUNT] = self.account(folder, spec["serviceAccountName"], namespace)
        # A variable whose Secret is not there is not set.
        env = {v["name"]: v["value"] for v in container["env"] if "value" in v}
        host, port = self.server.address
        env |= {"PATH": f"/image:{os.environ['PATH']}", "KUBERNETES_SERVICE_HOST": host,
                "KUBERNETES_SERVICE_PORT": str(port)}
        words = [*container["command"], *container["args"]]
        command = " ".join(shlex.quote(word.replace("$$", "$")) for word in words)
        root = root_of(self.image, folder, mounts)
        self.hosts = None
        return Pod(name, number, self.network, command, env=env, root=root, log=Log())

    def volume(self, volume, folder, namespace):
        """The folder of `volume` below `folder`."""
        name = volume["name"]
        if "persistentVolumeClaim" in volume:
            path = os.path.join(self.cluster.folder, "claims", volume["persistentVolumeClaim"]["claimName"])
            os.makedirs(path, exist_ok=True)
            return path
        os.makedirs(os.path.join(folder, name))
        if "configMap" in volume:
            config = self.cluster.objects[("configmaps", namespace, volume["configMap"]["name"])]
            for item in volume["configMap"]["items"]:
                path = os.path.join(folder, name, item["path"])
                os.makedirs(os.path.dirname(path), exist_ok=True)
                write(path, config["data"][item["key"]])
        return name

    def account(self, folder, name, namespace):
        path = os.path.join(folder, "account")
        os.makedirs(path)
        write(os.path.join(path, "token"), self.cluster.token(namespace, name))
        write(os.path.join(path, "namespace"), namespace)
        shutil.copy(self.server.ca, os.path.join(path, "ca.crt"))
        return "account"

    def name_services(self):
        """What the cluster's DNS would say, in the files of the Jobs' pods."""
        with self.cluster.lock:
            services = [obj for key, obj in self.cluster.objects.items() if key[0] == "services"]
            pods = [(self.pods[key[2]], obj) for key, obj in self.cluster.objects.items()
                    if key[0] == "pods" and key[2] in self.pods]
        lines = ["127.0.0.1 localhost"]
        for service in services:
            meta, wanted = service["metadata"], service["spec"].get("selector", {})
            behind = [pod for pod, obj in pods
                      if wanted and wanted.items() <= obj["metadata"]["labels"].items()]
            name = f"{meta['name']}.{meta['namespace']}.svc"
            lines += [f"{pod.address} {name}" for pod in behind[:1]]
            lines += [f"{pod.address} {pod.name}.{name}" for pod in behind]
        text = "".join(f"{line}\n" for line in lines)
        jobs = [pod for pod in self.pods.values() if pod.log]
        if text == self.hosts:
            return
        for pod in jobs:
            try:
                write(f"/proc/{pod.init}/root/etc/hosts", text)
            except OSError:
                # It has ended.
                continue
        self.hosts = text

    def end(self):
        self.is_over = True
        self.thread.join()

    def how(self, name):
        """A word for what is different about a pod, by the end of its name: DIR/pods has lines `END WORD`."""
        try:
            with open(os.path.join(self.cluster.folder, "pods")) as file:
                lines = [line.split() for line in file]
        except FileNotFoundError:
            return ""
        return next((line[1] for line in lines if name.endswith(line[0])), "")


class Exec:
    """One `kubectl exec`, over a WebSocket: messages whose first byte is the number of a stream."""

    def __init__(self, handler, pod, words, has_shell):
        self.handler, self.pod, self.words, self.has_shell = handler, pod, words, has_shell
        self.lock = threading.Lock()

    def serve(self):
        if not self.shake_hands():
            return
        if not self.has_shell:
            # A node finds that out behind the upgrade.
            return self.over({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                              "message": NO_SHELL})
        process = self.pod.run(self.words)
        pumps = [threading.Thread(target=self.pump, args=pair, daemon=True)
                 for pair in ((STDOUT, process.stdout), (STDERR, process.stderr))]
        ender = threading.Thread(target=self.tell_end, args=(process, pumps), daemon=True)
        for thread in (*pumps, ender):
            thread.start()
        self.take(process.stdin)
        ender.join()

    def shake_hands(self):
        headers = self.handler.headers
        offered = [name.strip() for name in headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if headers.get("Upgrade", "").lower() != "websocket" or PROTOCOL not in offered:
            self.handler.status(400, "BadRequest", f"only {PROTOCOL} over a WebSocket is modelled")
            return False
        key = headers["Sec-WebSocket-Key"] + MAGIC
        self.handler.send_response(101, "Switching Protocols")
        self.handler.send_header("Upgrade", "websocket")
        self.handler.send_header("Connection", "Upgrade")
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.handler.send_header("Sec-WebSocket-Accept", accept)
        self.handler.send_header("Sec-WebSocket-Protocol", PROTOCOL)
        self.handler.end_headers()
        self.handler.wfile.flush()
        self.handler.close_connection = True
        return True

    def pump(self, stream, pipe):
        is_cut = False
        while True:
            data = os.read(pipe.fileno(), 16384)
            if not data:
                return
            if not is_cut:
                self.send(bytes([stream]) + data)
            is_cut = is_cut or (stream == STDOUT and len(data) > 4096 and self.is_to_be_cut())

    def is_to_be_cut(self):
        """Whether the rest of what a command prints is lost without a word, by the file DIR/cut, which is about one."""
        try:
            os.remove(os.path.join(self.handler.cluster.folder, "cut"))
        except FileNotFoundError:
            return False
        return True

    def tell_end(self, process, pumps):
        """As a node does: once its output is closed, whoever holds it."""
        code = process.wait()
        for pump in pumps:
            pump.join()
        status = {"metadata": {}, "status": "Success"}
        if code:
            status = {"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                      "message": f"command terminated with non-zero exit code: exit status {code}",
                      "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]}}
        self.over(status)

    def over(self, status):
        self.send(bytes([STATUS]) + json.dumps(status).encode())
        self.frame(8, struct.pack(">H", 1000))

    def take(self, stdin):
        """Messages until the connection ends."""
        message = b""
        while True:
            frame = self.next_frame()
            if frame is None or frame[1] == 8:
                break
            is_last, kind, data = frame
            if kind == 9:
                self.frame(10, data)
                continue
            message += data
            if not is_last:
                continue
            self.deliver(message, stdin)
            message = b""
        close(stdin)

    def deliver(self, message, stdin):
        if message[:2] == bytes([CLOSE, STDIN]):
            close(stdin)
        elif message[:1] == bytes([STDIN]):
            try:
                stdin.write(message[1:])
                stdin.flush()
            except (BrokenPipeError, ValueError):
                pass

    def next_frame(self):
        head = self.read(2)
        if head is None:
            return None
        length = head[1] & 0x7F
        if length > 125:
            more = self.read(2 if length == 126 else 8)
            if more is None:
                return None
            length = int.from_bytes(more, "big")
        rest = self.read(4 + length)
        if rest is None:
            return None
        mask, data = rest[:4], rest[4:]
        key = (mask * (length // 4 + 1))[:length]
        data = (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")
        return bool(head[0] & 0x80), head[0] & 0x0F, data

    def read(self, count):
        try:
            data = self.handler.rfile.read(count)
        except OSError:
            return None
        return data if len(data) == count else None

    def send(self, data):
        self.frame(2, data)

    def frame(self, kind, data):
        head = bytes([0x80 | kind])
        if len(data) < 126:
            head += bytes([len(data)])
        else:
            head += bytes([126]) + struct.pack(">H", len(data))
        with self.lock:
            try:
                self.handler.wfile.write(head + data)
                self.handler.wfile.flush()
            except OSError:
                pass


def close(pipe):
    try:
        pipe.close()
    except (BrokenPipeError, OSError):
        pass
