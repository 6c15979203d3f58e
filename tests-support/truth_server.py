#!/usr/bin/env python3
"""A chat-completions server that writes tokens at known instants and logs those instants.

It is the ground truth that the load client is checked against, so it shares nothing with the Rust
code: standard library only, hand-written HTTP/1.1, one JSON line a request in --log. Times are
time.monotonic_ns(), that is CLOCK_MONOTONIC, which another process on the same Linux machine reads too.

The model name in a request chooses how the answer behaves; see MODELS and the README beside this file.
"""

import argparse
import asyncio
import gc
import hashlib
import json
import selectors
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass

# What each model name does, and for some the number of tokens after which it happens.
MODELS = {
    "plain": "one token an event, usage when asked for, [DONE]",
    "role-first": "a role-only event at once, the first token only after --ttft-ms",
    "k-tokens": "four tokens an event",
    "no-usage": "never sends usage, asked or not",
    "crlf": "lines end in CR LF",
    "cr-split": "lines end in CR LF, and CR and LF come in different TCP writes",
    "byte-split": "every byte of the body in its own TCP write",
    "utf8-cut": "a multi-byte character cut over two TCP writes in every token",
    "no-space": "`data:{...}` without the space",
    "comments": "comment lines and event:, id:, retry: fields between",
    "no-done": "ends cleanly without [DONE]",
    "reset": "TCP reset after three tokens",
    "cut": "connection closed inside an HTTP chunk after three tokens",
    "429": "status 429 with retry-after, JSON body",
    "500": "status 500, JSON body",
    "500-html": "status 500, HTML body",
    "error-event": "an error object as an event after three tokens, then [DONE]",
    "stall": "three tokens, silence for --stall-ms, the rest",
    "stall-forever": "three tokens, then silence until the client leaves",
    "empty": "no token at all, completion_tokens 0",
    "reasoning": "the first half of the tokens as reasoning_content",
    "tool": "tokens as tool_calls deltas",
    "bad-json": "one malformed data line after two tokens",
    "slow-head": "the response head only after --slow-head-ms",
    "multi-line": "every event's data split over two data: lines",
    "usage-every-chunk": "usage so far in every event",
    "huge": "the second token is 300 kB long",
    "content-length": "no chunked framing: the body ends when the connection closes",
    "keepalive-close": "closes the idle connection --idle-close-ms after each answer, unannounced",
    "redirect": "status 307 to a path that answers like plain",
}
EARLY_END = 3
HUGE_LENGTH = 300_000
STATUS_TEXT = {200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 404: "Not Found",
               429: "Too Many Requests", 500: "Internal Server Error"}


@dataclass
class Request:
    """One parsed HTTP request, stamped when its last body byte was read."""

    method: str
    path: str
    headers: dict
    body: bytes
    received_ns: int


@dataclass
class Piece:
    """Bytes that become visible together: one event, cut into the TCP writes that carry it."""

    due_ns: int
    writes: list
    tokens: int = 0
    # Index of the write that completes the event for a parser that follows the SSE standard.
    completing: int = -1


def prompt_of(body):
    """The prompt's text: every message's content, or the prompt itself."""
    if "prompt" in body:
        prompt = body["prompt"]
        return prompt if isinstance(prompt, str) else json.dumps(prompt)
    contents = (message.get("content") for message in body.get("messages", []))
    return "\n".join(c if isinstance(c, str) else json.dumps(c) for c in contents)


def token_count(body, default):
    """How many tokens to write: the server's own length, inside what the request allows."""
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is None:
        return default, "stop"
    if body.get("ignore_eos"):
        return limit, "length"
    wanted = max(default, body.get("min_tokens") or 0)
    return min(wanted, limit), "length" if wanted >= limit else "stop"


def token_text(model, index):
    if model == "utf8-cut":
        return f" {'é日🙂'[index % 3]}{index}"
    if model == "huge" and index == 1:
        return "x" * HUGE_LENGTH
    return f" w{index}"


class Answer:
    """What one request is answered with; `pieces` yields it event by event.

    Each piece is made while the one before is on its way, so that many answers that begin together do
    not delay each other's first token.
    """

    def __init__(self, options, body, model, chat, received_ns):
        self.options = options
        self.body = body
        self.model = model
        self.chat = chat
        self.newline = "\r\n" if model in ("crlf", "cr-split") else "\n"
        # What follows the last piece: "end", "reset", "cut", "hang" or "close-later".
        self.ending = "close-later" if model == "keepalive-close" else "end"
        self.chunked = model != "content-length"
        self.text = ""
        self.total, self.finish = token_count(body, options.tokens)
        if model == "empty":
            self.total, self.finish = 0, "stop"
        if model == "tool":
            self.finish = "tool_calls"
        self.prompt_tokens = len(prompt_of(body).split())
        self.received_ns = received_ns
        head_delay = options.slow_head_ms if model == "slow-head" else 0
        self.head_due_ns = received_ns + ms_to_ns(head_delay)

    def pieces(self):
        if self.model in ("role-first", "empty"):
            due = self.received_ns if self.model == "role-first" else self.due_ns(0)
            yield self.piece(due, self.event({"role": "assistant", "content": ""} if self.chat else ""))
        per_event = 4 if self.model == "k-tokens" else 1
        sent = 0
        while sent < self.total:
            if sent == EARLY_END and self.model in ("reset", "cut", "stall-forever", "error-event"):
                yield from self.early_end(sent)
                return
            count = min(per_event, self.total - sent)
            yield self.token_piece(sent, count)
            sent += count
            if sent == 2:
                yield from self.interruption()
        yield from self.closing()

    def due_ns(self, index):
        """When token `index` is due: absolute, so that a late write makes no later one late."""
        options = self.options
        first = options.ttft_ms
        if self.model == "slow-head":
            first = max(first, options.slow_head_ms)
        delay = first + index * options.itl_ms
        if self.model == "stall" and index >= EARLY_END:
            delay += options.stall_ms
        return self.received_ns + ms_to_ns(delay)

    def early_end(self, sent):
        due = self.due_ns(sent)
        if self.model == "error-event":
            error = {"error": {"message": "the engine died", "type": "internal_error", "code": 500}}
            yield self.piece(due, self.data_lines(json.dumps(error)))
            yield self.piece(due, self.data_lines("[DONE]"))
        elif self.model == "stall-forever":
            self.ending = "hang"
        elif self.model == "reset":
            self.ending = "reset"
            yield Piece(due, [])
        elif self.model == "cut":
            self.ending = "cut"
            event = self.event(self.delta(sent, token_text(self.model, sent))).encode()
            yield Piece(due, [b"%x\r\n" % len(event) + event[: len(event) // 2]])

    def token_piece(self, first, count):
        text = "".join(token_text(self.model, index) for index in range(first, first + count))
        self.text += text
        usage = self.usage(first + count) if self.model == "usage-every-chunk" else None
        event = self.event(self.delta(first, text), usage=usage)
        if self.model == "comments":
            event = f": keepalive\n\nevent: message\nid: {first}\nretry: 1000\n{event}"
        return self.piece(self.due_ns(first + count - 1), event, tokens=count)

    def interruption(self):
        if self.model == "bad-json":
            yield self.piece(self.due_ns(1), self.data_lines('{"choices":[{"delta":{"content":'))
        if self.model == "comments":
            yield self.piece(self.due_ns(1), ": still here\n\n")

    def closing(self):
        due = self.due_ns(max(self.total - 1, 0))
        yield self.piece(due, self.event({} if self.chat else "", finish=self.finish))
        asked = (self.body.get("stream_options") or {}).get("include_usage")
        if (asked and self.model != "no-usage") or self.model in ("usage-every-chunk", "empty"):
            yield self.piece(due, self.event(None, usage=self.usage(self.total)))
        if self.model != "no-done":
            yield self.piece(due, self.data_lines("[DONE]"))

    def delta(self, first, text):
        """The part of an event that carries `text`, tokens `first` and on."""
        if not self.chat:
            return text
        role = {"role": "assistant"} if first == 0 and self.model != "role-first" else {}
        if self.model == "reasoning" and first < (self.total + 1) // 2:
            return role | {"reasoning_content": text}
        if self.model == "tool":
            call = {"index": 0, "function": {"arguments": text}}
            if first == 0:
                call |= {"id": "call_0", "type": "function"}
                call["function"]["name"] = "lookup"
            return role | {"tool_calls": [call]}
        return role | {"content": text}

    def usage(self, completion):
        prompt = self.prompt_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def event(self, delta, finish=None, usage=None):
        """One SSE event; `delta` is an object for chat, text for completions, None for no choices."""
        chunk = {
            "id": "truth-0",
            "object": "chat.completion.chunk" if self.chat else "text_completion",
            "created": 1,
            "model": self.model,
            "choices": [],
        }
        if delta is not None:
            part = {"delta": delta} if self.chat else {"text": delta}
            chunk["choices"] = [{"index": 0, **part, "finish_reason": finish}]
        if usage is not None:
            chunk["usage"] = usage
        return self.data_lines(json.dumps(chunk, ensure_ascii=False))

    def data_lines(self, data):
        if self.model == "no-space":
            return f"data:{data}\n\n"
        if self.model == "multi-line" and data.startswith("{"):
            # Between two members of the outermost object, where JSON allows a newline.
            first, rest = data.split(", ", 1)
            return f"data: {first},\ndata: {rest}\n\n"
        return f"data: {data}{self.newline}{self.newline}"

    def piece(self, due_ns, event, tokens=0):
        """The TCP writes that carry `event`."""
        data = event.encode()
        framed = b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data
        writes, completing = [framed], 0
        if self.model == "byte-split":
            writes = [framed[i : i + 1] for i in range(len(framed))]
            completing = len(framed) - 3  # the last byte of the data; CR LF of the HTTP chunk follow
        elif self.model == "cr-split":
            blank = framed.rindex(b"\r\n\r\n\r\n")  # end of the line, empty line, end of the HTTP chunk
            writes = [framed[: blank + 1], framed[blank + 1 : blank + 3], framed[blank + 3 :]]
            completing = 1
        elif self.model == "utf8-cut" and tokens:
            cut = next(i for i, byte in enumerate(framed) if byte >= 0xC0) + 1
            writes = [framed[:cut], framed[cut:]]
            completing = 1
        return Piece(due_ns, writes, tokens, completing)


def ms_to_ns(milliseconds):
    return round(milliseconds * 1_000_000)


async def sleep_until(due_ns):
    delay = (due_ns - time.monotonic_ns()) / 1e9
    if delay > 0:
        await asyncio.sleep(delay)


class Connection(asyncio.Protocol):
    """One client connection: reads requests one after another and answers each."""

    def __init__(self, server):
        self.server = server
        self.transport = None
        self.buffer = bytearray()
        self.task = None

    def connection_made(self, transport):
        self.transport = transport
        self.server.connections += 1

    def connection_lost(self, _error):
        self.server.connections -= 1
        if self.task:
            self.task.cancel()

    def data_received(self, data):
        now = time.monotonic_ns()
        self.buffer += data
        self.start_next(now)

    def start_next(self, now):
        if self.task or self.transport.is_closing():
            return
        try:
            request = self.take_request(now)
        except ValueError as error:
            self.respond(400, {"error": {"message": str(error)}})
            self.transport.close()
            return
        if request:
            self.task = asyncio.ensure_future(self.serve(request))
            self.task.add_done_callback(self.served)

    def served(self, task):
        self.task = None
        if not task.cancelled() and task.exception():
            # A defect here must not look like a defect of the client under test.
            print(f"truth_server: {task.exception()!r}", file=sys.stderr, flush=True)
            self.transport.abort()
        self.start_next(time.monotonic_ns())

    def take_request(self, now):
        """Removes one whole request from the buffer, or returns None until there is one."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        lines = bytes(self.buffer[:end]).decode("latin-1").split("\r\n")
        method, path, _version = lines[0].split(" ", 2)
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if "transfer-encoding" in headers:
            raise ValueError("a chunked request body is not supported")
        length = int(headers.get("content-length", 0))
        if len(self.buffer) < end + 4 + length:
            return None
        body = bytes(self.buffer[end + 4 : end + 4 + length])
        del self.buffer[: end + 4 + length]
        return Request(method, path, headers, body, now)

    async def serve(self, request):
        if request.method == "GET":
            self.serve_get(request.path)
        else:
            await self.serve_completion(request)
        if request.headers.get("connection", "").lower() == "close":
            self.transport.close()

    def serve_get(self, path):
        if path == "/health":
            self.respond(200, {"status": "ok"})
        elif path == "/v1/models":
            models = [{"id": name, "object": "model", "created": 1, "owned_by": "truth"} for name in MODELS]
            self.respond(200, {"object": "list", "data": models})
        elif path == "/metrics":
            self.respond(200, b"", content_type="text/plain; version=0.0.4")
        else:
            self.respond(404, {"error": {"message": f"no such path: {path}"}})

    async def serve_completion(self, request):
        record = self.server.new_record(request)
        try:
            await self.complete(request, record)
        except asyncio.CancelledError:
            record["end"] = "client-gone"
            raise
        finally:
            record["finished_ns"] = time.monotonic_ns()
            self.server.write_record(record)

    async def complete(self, request, record):
        redirected = request.path.startswith("/redirected/")
        path = request.path.removeprefix("/redirected")
        if path not in ("/v1/chat/completions", "/v1/completions"):
            return self.refuse(record, 404, {"error": {"message": f"no such path: {request.path}"}})
        try:
            body = json.loads(request.body)
            model = "plain" if redirected else body["model"]
        except (ValueError, KeyError, TypeError) as error:
            return self.refuse(record, 400, {"error": {"message": f"bad request body: {error!r}"}})
        record["model"] = model
        record["prompt_sha256"] = hashlib.sha256(prompt_of(body).encode()).hexdigest()
        if model not in MODELS:
            error = {"message": f"The model `{model}` does not exist.", "type": "NotFoundError", "code": 404}
            return self.refuse(record, 404, {"error": error})
        if self.answer_without_tokens(model, path, record):
            return None

        chat = path == "/v1/chat/completions"
        answer = Answer(self.server.options, body, model, chat, request.received_ns)
        if not body.get("stream"):
            return await self.answer_at_once(answer, record)
        return await self.stream(answer, record)

    def answer_without_tokens(self, model, path, record):
        """The models that answer with a status line instead of a stream."""
        if model == "429":
            error = {"message": "Too many requests", "type": "rate_limit_error", "code": 429}
            self.refuse(record, 429, {"error": error}, "Retry-After: 1\r\n")
        elif model == "500":
            error = {"message": "out of memory", "type": "server_error", "code": 500}
            self.refuse(record, 500, {"error": error})
        elif model == "500-html":
            page = b"<html><body><h1>500 Internal Server Error</h1></body></html>"
            record["status"] = 500
            self.respond(500, page, content_type="text/html")
        elif model == "redirect":
            self.refuse(record, 307, {}, f"Location: /redirected{path}\r\n")
        else:
            return False
        record["end"] = "complete"
        return True

    def refuse(self, record, status, content, extra=""):
        record["status"] = status
        record["end"] = "complete"
        self.respond(status, content, extra=extra)

    async def answer_at_once(self, answer, record):
        """The same answer in one JSON object, for a request that did not ask to stream."""
        pieces = list(answer.pieces())
        await sleep_until(pieces[-1].due_ns)
        message = {"message": {"role": "assistant", "content": answer.text}}
        part = message if answer.chat else {"text": answer.text}
        content = {
            "id": "truth-0",
            "object": "chat.completion" if answer.chat else "text_completion",
            "created": 1,
            "model": answer.model,
            "choices": [{"index": 0, **part, "finish_reason": answer.finish}],
            "usage": answer.usage(answer.total),
        }
        record["end"] = "complete"
        self.respond(200, content)

    async def stream(self, answer, record):
        await sleep_until(answer.head_due_ns)
        framing = "Transfer-Encoding: chunked" if answer.chunked else "Connection: close"
        record["head_ns"] = time.monotonic_ns()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n{framing}\r\n\r\n"
        self.transport.write(head.encode())

        for piece in answer.pieces():
            await sleep_until(piece.due_ns)
            await self.write_piece(piece, record)
        record["end"] = "complete"
        record["text_sha256"] = hashlib.sha256(answer.text.encode()).hexdigest()
        await self.end_stream(answer, record)

    async def write_piece(self, piece, record):
        completing = piece.completing % len(piece.writes) if piece.writes else 0
        for index, data in enumerate(piece.writes):
            if index:
                # Long enough for the other side to read what came before.
                await asyncio.sleep(0 if len(piece.writes) > 8 else 0.001)
            now = time.monotonic_ns()
            if piece.tokens and index == completing:
                record["write_ns"].append(now)
                record["write_tokens"].append(piece.tokens)
            self.transport.write(data)
            if self.transport.get_write_buffer_size():
                record["held_back"] += 1

    async def end_stream(self, answer, record):
        if answer.ending == "reset":
            record["end"] = "reset"
            linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.transport.abort()
        elif answer.ending == "cut":
            record["end"] = "cut"
            self.transport.close()
        elif answer.ending == "hang":
            await asyncio.Event().wait()
        elif answer.chunked:
            self.transport.write(b"0\r\n\r\n")
            if answer.ending == "close-later":
                delay = self.server.options.idle_close_ms / 1000
                asyncio.get_running_loop().call_later(delay, self.transport.close)
        else:
            self.transport.close()

    def respond(self, status, content, content_type="application/json", extra=""):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        head = (
            f"HTTP/1.1 {status} {STATUS_TEXT[status]}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n{extra}\r\n"
        )
        self.transport.write(head.encode() + body)


class TruthServer:
    """The options, the log, and the count of open connections."""

    def __init__(self, options):
        self.options = options
        self.connections = 0
        # Opened once, flushed after every line: a reader may follow it.
        self.log = open(options.log, "a", encoding="utf-8") if options.log else None

    def new_record(self, request):
        return {
            "id": request.headers.get("x-request-id"),
            "path": request.path,
            "model": None,
            "received_ns": request.received_ns,
            "head_ns": None,
            "write_ns": [],
            "write_tokens": [],
            "finished_ns": None,
            "status": 200,
            "end": None,
            # Writes that the kernel did not take at once: their instants say too little then.
            "held_back": 0,
            "body_length": len(request.body),
            "prompt_sha256": None,
            "text_sha256": None,
            "connections": self.connections,
        }

    def write_record(self, record):
        if self.log:
            self.log.write(json.dumps(record) + "\n")
            self.log.flush()


async def run(options):
    loop = asyncio.get_running_loop()
    server = TruthServer(options)
    listener = await loop.create_server(
        lambda: Connection(server), options.host, options.port, backlog=1024
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.exit_with_stdin:
        loop.add_reader(sys.stdin.fileno(), lambda: sys.stdin.buffer.read1(4096) or stop.set())
    print(f"listening {listener.sockets[0].getsockname()[1]}", flush=True)
    # A collection in the middle of a token would be a pause that the server made up.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    await stop.wait()


def parse_options():
    parser = argparse.ArgumentParser(description="A ground-truth server for chat completions.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one; printed as `listening PORT`")
    parser.add_argument("--ttft-ms", type=float, default=20, help="request read to first token")
    parser.add_argument("--itl-ms", type=float, default=10, help="between tokens")
    parser.add_argument("--tokens", type=int, default=16, help="tokens an answer, inside the request's limits")
    parser.add_argument("--stall-ms", type=float, default=500)
    parser.add_argument("--slow-head-ms", type=float, default=300)
    parser.add_argument("--idle-close-ms", type=float, default=20)
    parser.add_argument("--log", metavar="FILE", help="one JSON line a request is appended")
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input ends")
    return parser.parse_args()


def main():
    # epoll rounds every wait up to a whole millisecond; select keeps the microseconds (and allows
    # about 1000 connections).
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    try:
        loop.run_until_complete(run(parse_options()))
    finally:
        loop.close()


if __name__ == "__main__":
    main()
