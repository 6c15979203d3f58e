"""Stands in for `python -m sglang.launch_server`, which needs GPUs. Python 3.10+, standard library only.

It takes the flags of SGLang's own parser (flags.txt) by their whole names and refuses all others. Ranks over hosts
join at --dist-init-addr, and rank 0 serves once all are there. Of a request each of max_tokens is one token. A
prefill server holds what it computed in a room, at its bootstrap port; a decode server answers only after it was
handed that room, so a pair that no router brings together fails.
"""

import argparse
import json
import os
import pathlib
import socket
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HANDED_OVER_WITHIN_S = 20
TOKEN = "token "


def arguments(words):
    parser = argparse.ArgumentParser("launch_server", usage="launch_server [flags]", allow_abbrev=False)
    lines = pathlib.Path(__file__).with_name("flags.txt").read_text().splitlines()
    for line in lines:
        if line.startswith("#"):
            continue
        count, *names = line.split()
        if count == "0":
            parser.add_argument(*names, action="store_true")
        else:
            parser.add_argument(*names, **({} if count == "1" else {"nargs": count}))
    given = parser.parse_args(words)
    if given.model_path is None:
        parser.error("the following arguments are required: --model-path/--model")
    return given


def split(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


def die(why):
    print(why, flush=True)
    os._exit(1)


def end_with(connection, who):
    """Ends this process when the other end of `connection` is gone."""
    if not connection.recv(1):
        die(f"{who} is gone")


def watch(connection, who):
    threading.Thread(target=end_with, args=(connection, who), daemon=True).start()


def gather(address, others):
    """As rank 0: returns once all other ranks have joined."""
    listener = socket.create_server(split(address))
    joined = {}
    while len(joined) < others:
        connection, _ = listener.accept()
        rank = int(connection.makefile().readline())
        if rank in joined or not 0 < rank <= others:
            die(f"rank {rank} joined, of {others} expected beside rank 0")
        joined[rank] = connection
        print(f"rank {rank} joined", flush=True)
    for rank, connection in joined.items():
        watch(connection, f"rank {rank}")
    return joined


def join(address, rank):
    """As another rank: stays until rank 0 is gone."""
    while True:
        try:
            connection = socket.create_connection(split(address))
            break
        except OSError:
            time.sleep(0.1)
    connection.sendall(f"{rank}\n".encode())
    print(f"rank {rank} is ready", flush=True)
    end_with(connection, "rank 0")


class Rooms:
    """What prompts were computed for, by the room that a request names."""

    def __init__(self):
        self.full, self.changed = set(), threading.Condition()

    def fill(self, room):
        with self.changed:
            self.full.add(room)
            self.changed.notify_all()

    def take(self, room):
        with self.changed:
            was_full = self.changed.wait_for(lambda: room in self.full, HANDED_OVER_WITHIN_S)
            self.full.discard(room)
            return was_full


class Bootstrap(BaseHTTPRequestHandler):
    """Hands over rooms: GET /ROOM is 200 once it was full, 404 if it stays empty."""

    def do_GET(self):
        was_full = self.server.rooms.take(self.path.strip("/"))
        self.send_response(200 if was_full else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Served(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        given = self.server.given
        if self.path in ("/health", "/health_generate"):
            self.answer(200, "")
        elif self.path in ("/get_server_info", "/server_info"):
            self.answer(200, {**vars(given), "version": "0.5.23"})
        elif self.path in ("/get_model_info", "/model_info"):
            self.answer(200, {"model_path": given.model_path, "is_generation": True})
        elif self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": self.server.model, "object": "model"}]})
        elif self.path == "/metrics" and given.enable_metrics:
            self.answer(200, self.server.page(), "text/plain; version=0.0.4")
        else:
            self.answer(404, {"error": "not found"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        if self.path == "/flush_cache":
            self.answer(200, "Cache flushed.\n", "text/plain")
        elif self.path in ("/v1/chat/completions", "/v1/completions"):
            self.complete(body)
        else:
            self.answer(404, {"error": "not found"})

    def complete(self, body):
        refused = self.hand_over(body)
        if refused:
            return self.answer(400, {"error": refused})
        tokens = int(body.get("max_completion_tokens") or body.get("max_tokens") or 16)
        prompt = sum(len(str(m.get("content")).split()) for m in body.get("messages", []))
        usage = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
        self.server.count(prompt, tokens)
        if not body.get("stream"):
            message = {"role": "assistant", "content": TOKEN * tokens}
            choice = {"index": 0, "message": message, "text": TOKEN * tokens, "finish_reason": "length"}
            return self.answer(200, {"model": self.server.model, "choices": [choice], "usage": usage})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for index in range(tokens):
            end = "length" if index + 1 == tokens else None
            delta = {"index": 0, "delta": {"content": TOKEN}, "text": TOKEN, "finish_reason": end}
            self.event({"model": self.server.model, "choices": [delta]})
            time.sleep(0.001)
        if (body.get("stream_options") or {}).get("include_usage"):
            self.event({"model": self.server.model, "choices": [], "usage": usage})
        self.chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def hand_over(self, body):
        """Takes part in a pair of prefill and decode; says what keeps it from that."""
        given = self.server.given
        mode = given.disaggregation_mode or "null"
        if mode == "null":
            return None
        host, port, room = (body.get(f"bootstrap_{key}") for key in ("host", "port", "room"))
        if room is None:
            return "a request to a pool needs a bootstrap_room"
        if mode == "prefill":
            if str(port) != str(given.disaggregation_bootstrap_port):
                return f"bootstrap_port {port} is not mine, {given.disaggregation_bootstrap_port}"
            self.server.rooms.fill(str(room))
            return None
        try:
            urllib.request.urlopen(f"http://{host}:{port}/{room}", timeout=HANDED_OVER_WITHIN_S).close()
        except OSError as error:
            return f"room {room} of {host}:{port}: {error}"
        return None

    def event(self, value):
        self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def chunk(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def answer(self, status, value, kind="application/json"):
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, form, *words):
        print(form % words, flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, given):
        self.given, self.model = given, given.served_model_name or given.model_path
        self.rooms, self.lock, self.counts = Rooms(), threading.Lock(), [0, 0, 0]
        super().__init__((given.host or "127.0.0.1", int(given.port or 30000)), Served)

    def count(self, prompt, tokens):
        with self.lock:
            self.counts = [self.counts[0] + 1, self.counts[1] + prompt, self.counts[2] + tokens]

    def page(self):
        names = ("num_requests_total", "prompt_tokens_total", "generation_tokens_total")
        label = f'{{model_name="{self.model}"}}'
        lines = (f"# TYPE sglang:{n} counter\nsglang:{n}{label} {v}\n" for n, v in zip(names, self.counts))
        return "".join(lines)


def main():
    given = arguments(sys.argv[1:])
    nodes, rank = int(given.nnodes or 1), int(given.node_rank or 0)
    if rank > 0:
        return join(given.dist_init_addr, rank)
    ranks = gather(given.dist_init_addr, nodes - 1) if nodes > 1 else {}
    server = Server(given)
    if given.disaggregation_mode == "prefill":
        bootstrap = ThreadingHTTPServer((given.host, int(given.disaggregation_bootstrap_port)), Bootstrap)
        bootstrap.rooms = server.rooms
        threading.Thread(target=bootstrap.serve_forever, daemon=True).start()
    print(f"The server is fired up and ready to roll! ({1 + len(ranks)} ranks)", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
