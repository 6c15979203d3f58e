# One transfer between two hosts, for `scalebeam doctor`: a listener for one connection on a free port, and
# who connects to it. Both end by themselves within seconds, whatever becomes of the other.
import signal, socket, sys, time

ROUNDS = 20
SECONDS = 1.0
CHUNK = b"\0" * (256 << 10)
PATIENCE = 5


def quick(conn):
    conn.settimeout(PATIENCE)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return conn


def listen(addr):
    family = socket.AF_INET6 if ":" in addr else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as door:
        door.bind((addr, 0))
        door.listen(1)
        door.settimeout(PATIENCE)
        print("port", door.getsockname()[1], flush=True)
        conn = quick(door.accept()[0])
    for _ in range(ROUNDS):
        conn.sendall(conn.recv(1))
    total, begun = 0, time.perf_counter_ns()
    while True:
        data = conn.recv(len(CHUNK))
        if not data:
            break
        total += len(data)
    conn.sendall(b"%d %d\n" % (total, time.perf_counter_ns() - begun))


def send(addr, port):
    conn = quick(socket.create_connection((addr, int(port)), 3))
    best = None
    for _ in range(ROUNDS):
        asked = time.perf_counter_ns()
        conn.sendall(b"x")
        if not conn.recv(1):
            raise OSError("the other end closed")
        took = time.perf_counter_ns() - asked
        best = took if best is None else min(best, took)
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        conn.sendall(CHUNK)
    conn.shutdown(socket.SHUT_WR)
    print("moved", best, conn.makefile().readline().strip())


signal.alarm(4 * PATIENCE)
try:
    {"listen": listen, "send": send}[sys.argv[1]](*sys.argv[2:])
except OSError as error:
    print("failed", error)
