"""What a kubelet would do, for kube_api.py: pods that are processes, and `kubectl exec` into them.

A pod is a process in namespaces of its own (processes, mounts, network, control groups) with limits of its own: 1.5
cores, 512 MiB. Its network is a pair of interfaces, of which this machine has the other end. What it writes it writes
below TMPDIR, which only it sees. Commands are run in it as a node runs them: in its namespaces and its control group,
without its parent. Nothing ends them when a connection breaks.

Needs root. Control groups of version 1 and 2 are both known, since machines have either.
"""

import base64
import hashlib
import json
import os
import shlex
import signal
import socket
import struct
import subprocess
import threading
import time

GROUPS = "/sys/fs/cgroup"
# Where a pod writes: a file system of its own.
SCRATCH = "/mnt"
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
        f"ip address add {address}/30 dev eth0\nip link set eth0 up\n"
    )


def environment():
    return {"PATH": os.environ["PATH"], "HOME": "/", "TMPDIR": SCRATCH}


class Pod:
    """One that runs."""

    def __init__(self, name, number, command, port, how):
        self.name = name
        self.family = f"scalebeam-pods-{os.getpid()}"
        self.groups = group_dirs(f"{self.family}/{name}")
        subnet = f"10.213.{os.getpid() % 250}"
        self.address = f"{subnet}.{4 * number + 2}"
        script = setup(self.address, how) + "exec " + command
        namespaces = "--pid --fork --kill-child --mount --net --uts --ipc --cgroup"
        outer = f"{entering(self.groups)}exec unshare {namespaces} -- sh -c {shlex.quote(script)}"
        # It ends with this server, however that ends.
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "sh", "-c", outer],
            env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )
        self.init = self.first_process()
        link = f"sbpod{os.getpid() % 10000}x{number}"
        for words in (
            f"link add {link} type veth peer name eth0 netns {self.init}",
            f"address add {subnet}.{4 * number + 1}/30 dev {link}",
            f"link set {link} up",
        ):
            subprocess.run(["ip", *words.split()], check=True)
        self.until_served(port)

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
        return subprocess.Popen(["sh", "-c", script, "sh", *inside], env=environment(), cwd="/",
                                stdin=pipe, stdout=pipe, stderr=pipe)

    def end(self):
        try:
            os.kill(self.init, signal.SIGKILL)
        except ProcessLookupError:
            pass
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


class Kubelet:
    """Runs the pods that a cluster has."""

    def __init__(self, cluster, command, port):
        self.cluster, self.command, self.port = cluster, command, port
        self.pods = {}
        self.count = 0
        self.is_over = False
        self.thread = threading.Thread(target=self.work, daemon=True)

    def work(self):
        while not self.is_over:
            with self.cluster.lock:
                self.cluster.settle()
                wanted = {key[2] for key in self.cluster.objects if key[0] == "pods"}
            for name in [name for name in self.pods if name not in wanted]:
                self.pods.pop(name).end()
            for name in sorted(wanted - set(self.pods)):
                self.pods[name] = Pod(name, self.count, self.command, self.port, self.how(name))
                self.count += 1
            time.sleep(0.1)
        for pod in self.pods.values():
            pod.end()

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
        while True:
            data = os.read(pipe.fileno(), 16384)
            if not data:
                return
            self.send(bytes([stream]) + data)

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
