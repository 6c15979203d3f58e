#!/usr/bin/env python3
"""A completions server of many dialects that writes tokens at known instants and logs those instants.

It is the ground truth that the load client is checked against, so it shares nothing with the Rust
code: standard library only, hand-written HTTP/1.1, one JSON line a request in --log. Times are
time.monotonic_ns(), that is CLOCK_MONOTONIC, which another process on the same Linux machine reads too.

The model name in a request chooses how the answer behaves; see MODELS and the README beside this file.
The path chooses the dialect, see DIALECTS. A request without a model name is answered like "plain".
"""

import argparse
import asyncio
import gc
import hashlib
import json
import os
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
    "reasoning-uncounted": "the same, and no usage says how many they were",
    "tool": "tokens as tool_calls deltas",
    "bad-json": "one malformed data line after two tokens",
    "slow-head": "the response head only after --slow-head-ms",
    "multi-line": "every event's data split over two data: lines",
    "usage-every-chunk": "usage so far in every event",
    "huge": "the second token is 300 kB long",
    "content-length": "no chunked framing: the body ends when the connection closes",
    "keepalive-close": "closes the idle connection --idle-close-ms after each answer, unannounced",
    "redirect": "status 307 to a path that answers like plain",
    "json-type": "a stream under Content-Type: application/json",
    "varied": "tokens that follow from the prompt, so that no two answers are alike",
    "500-third-turn": "like varied; status 500 to a request that carries two answers already",
    "disjoint": "SGLang: segments in place of the whole text so far",
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
    for key in ("prompt", "input", "inputs", "text"):
        if key in body:
            prompt = body[key]
            return prompt if isinstance(prompt, str) else json.dumps(prompt)
    contents = (message.get("content") for message in body.get("messages", []))
    return "\n".join(c if isinstance(c, str) else json.dumps(c) for c in contents)


def token_count(settings, limit, default):
    """How many tokens to write: the server's own length, inside what the request allows."""
    if limit is None:
        return default, "stop"
    if settings.get("ignore_eos"):
        return limit, "length"
    wanted = max(default, settings.get("min_tokens") or settings.get("min_new_tokens") or 0)
    return min(wanted, limit), "length" if wanted >= limit else "stop"


def token_text(model, index):
    if model == "utf8-cut":
        return f" {'é日🙂'[index % 3]}{index}"
    if model == "huge" and index == 1:
        return "x" * HUGE_LENGTH
    return f" w{index}"


class Answer:
    """What one request is answered with; `pieces` yields it event by event.

    A subclass is a dialect: how a token, the beginning, the end and an error are written.

    Each piece is made while the one before is on its way, so that many answers that begin together do
    not delay each other's first token.
    """

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, options, body, model, received_ns):
        self.options = options
        self.body = body
        self.model = model
        self.newline = "\r\n" if model in ("crlf", "cr-split") else "\n"
        # What follows the last piece: "end", "reset", "cut", "hang" or "close-later".
        self.ending = "close-later" if model == "keepalive-close" else "end"
        self.chunked = model != "content-length"
        self.text = ""
        settings, limit = self.limits()
        self.total, self.finish = token_count(settings, limit, options.tokens)
        if model == "empty":
            self.total, self.finish = 0, "stop"
        if model == "tool":
            self.finish = "tool_calls"
        self.prompt_tokens = len(prompt_of(body).split())
        self.mark = hashlib.sha256(prompt_of(body).encode()).hexdigest()[:6]
        self.received_ns = received_ns
        head_delay = options.slow_head_ms if model == "slow-head" else 0
        self.head_due_ns = received_ns + ms_to_ns(head_delay)

    def pieces(self):
        due = self.received_ns if self.model == "role-first" else self.due_ns(0)
        for event in self.opening():
            yield self.piece(due, event)
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
            for event in self.error_events():
                yield self.piece(due, event)
        elif self.model == "stall-forever":
            self.ending = "hang"
        elif self.model == "reset":
            self.ending = "reset"
            yield Piece(due, [])
        elif self.model == "cut":
            self.ending = "cut"
            event = self.token_event(sent, token_text(self.model, sent)).encode()
            yield Piece(due, [b"%x\r\n" % len(event) + event[: len(event) // 2]])

    def token_piece(self, first, count):
        text = "".join(token_text(self.model, index) for index in range(first, first + count))
        if self.model in ("varied", "500-third-turn"):
            text = "".join(f" {self.mark}.{index}\n" for index in range(first, first + count))
        self.text += text
        event = self.token_event(first, text, count)
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
        for event in self.closing_events():
            yield self.piece(due, event)

    def is_reasoning(self, first):
        return self.model.startswith("reasoning") and first < self.thoughts()

    def thoughts(self):
        """Tokens of reasoning."""
        return (self.total + 1) // 2 if self.model.startswith("reasoning") else 0

    def data_lines(self, data, name=None):
        if not isinstance(data, str):
            data = json.dumps(data, ensure_ascii=False)
        if self.model == "no-space":
            return f"data:{data}\n\n"
        if self.model == "multi-line" and ", " in data:
            # Between two members of the outermost object, where JSON allows a newline.
            first, rest = data.split(", ", 1)
            return f"data: {first},\ndata: {rest}\n\n"
        name = f"event: {name}{self.newline}" if name else ""
        return f"{name}data: {data}{self.newline}{self.newline}"

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


class Completions(Answer):
    """OpenAI /v1/completions, and what chat has in common with it."""

    object = "text_completion"

    def limits(self):
        return self.body, self.body.get("max_completion_tokens") or self.body.get("max_tokens")

    def opening(self):
        return [self.event(self.role())] if self.model in ("role-first", "empty") else []

    def role(self):
        return ""

    def error_events(self):
        error = {"error": {"message": "the engine died", "type": "internal_error", "code": 500}}
        return [self.data_lines(error), self.data_lines("[DONE]")]

    def token_event(self, first, text, count=1):
        usage = self.usage(first + count) if self.model == "usage-every-chunk" else None
        return self.event(self.delta(first, text), usage=usage)

    def closing_events(self):
        yield self.event(self.last_delta(), finish=self.finish)
        asked = (self.body.get("stream_options") or {}).get("include_usage")
        if (asked and self.model != "no-usage") or self.model in ("usage-every-chunk", "empty"):
            yield self.event(None, usage=self.usage(self.total))
        if self.model != "no-done":
            yield self.data_lines("[DONE]")

    def delta(self, first, text):
        """The part of an event that carries `text`, tokens `first` and on."""
        return text

    def last_delta(self):
        return ""

    def part(self, delta):
        return {"text": delta}

    def usage(self, completion):
        prompt = self.prompt_tokens
        counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        if self.model == "reasoning":
            counts["completion_tokens_details"] = {"reasoning_tokens": min(self.thoughts(), completion)}
        return counts

    def event(self, delta, finish=None, usage=None):
        """One SSE event; `delta` is an object for chat, text for completions, None for no choices."""
        chunk = {"id": "truth-0", "object": self.object, "created": 1, "model": self.model, "choices": []}
        if delta is not None:
            chunk["choices"] = [{"index": 0, **self.part(delta), "finish_reason": finish}]
        if usage is not None:
            chunk["usage"] = usage
        return self.data_lines(chunk)

    def whole(self):
        choice = {"index": 0, **self.whole_part(), "finish_reason": self.finish}
        return {
            "id": "truth-0",
            "object": self.object.removesuffix(".chunk"),
            "created": 1,
            "model": self.model,
            "choices": [choice],
            "usage": self.usage(self.total),
        }

    def whole_part(self):
        return {"text": self.text}


class Chat(Completions):
    """OpenAI /v1/chat/completions."""

    object = "chat.completion.chunk"

    def role(self):
        return {"role": "assistant", "content": ""}

    def delta(self, first, text):
        role = {"role": "assistant"} if first == 0 and self.model != "role-first" else {}
        if self.is_reasoning(first):
            return role | {"reasoning_content": text}
        if self.model == "tool":
            call = {"index": 0, "function": {"arguments": text}}
            if first == 0:
                call |= {"id": "call_0", "type": "function"}
                call["function"]["name"] = "lookup"
            return role | {"tool_calls": [call]}
        return role | {"content": text}

    def last_delta(self):
        return {}

    def part(self, delta):
        return {"delta": delta}

    def whole_part(self):
        return {"message": {"role": "assistant", "content": self.text}}


class Responses(Answer):
    """OpenAI /v1/responses: typed events, each named in the event field too, and no [DONE]."""

    sequence = 0

    def limits(self):
        return self.body, self.body.get("max_output_tokens")

    def typed(self, kind, **fields):
        data = {"type": kind, **fields, "sequence_number": self.sequence}
        self.sequence += 1
        return self.data_lines(data, kind)

    def response(self, status, **fields):
        return {"id": "resp_0", "object": "response", "created_at": 1, "model": self.model,
                "status": status, "error": None, "incomplete_details": None, "output": [], "usage": None} | fields

    def output(self):
        part = {"type": "output_text", "text": self.text, "annotations": []}
        return {"id": "msg_0", "type": "message", "role": "assistant", "status": "completed", "content": [part]}

    def opening(self):
        kind = {"type": "function_call", "call_id": "call_0", "arguments": "", "name": ""}
        item = kind if self.model == "tool" else {"type": "message", "role": "assistant", "content": []}
        item = {"id": "msg_0", "status": "in_progress", **item}
        yield self.typed("response.created", response=self.response("in_progress"))
        yield self.typed("response.in_progress", response=self.response("in_progress"))
        yield self.typed("response.output_item.added", output_index=0, item=item)
        if self.model != "tool":
            part = {"type": "output_text", "text": "", "annotations": []}
            yield self.typed("response.content_part.added", item_id="msg_0", output_index=0, part=part)

    def error_events(self):
        yield self.typed("response.failed", response=self.response(
            "failed", error={"code": "server_error", "message": "the engine died"}))

    def token_event(self, first, text, count=1):
        kind = "response.output_text.delta"
        if self.is_reasoning(first):
            kind = "response.reasoning_text.delta"
        elif self.model == "tool":
            kind = "response.function_call_arguments.delta"
        return self.typed(kind, item_id="msg_0", output_index=0, content_index=0, delta=text)

    def usage(self):
        if self.model == "no-usage":
            return None
        counts = {"input_tokens": self.prompt_tokens, "input_tokens_details": {"cached_tokens": 0},
                  "output_tokens": self.total, "total_tokens": self.prompt_tokens + self.total}
        if self.model != "reasoning-uncounted":
            counts["output_tokens_details"] = {"reasoning_tokens": self.thoughts()}
        return counts

    def end_state(self):
        output, usage = [self.output()], self.usage()
        if self.finish == "length":
            reason = {"reason": "max_output_tokens"}
            return self.response("incomplete", incomplete_details=reason, output=output, usage=usage)
        return self.response("completed", output=output, usage=usage)

    def closing_events(self):
        # Text that was said already, which must not be counted again.
        yield self.typed("response.output_text.done", item_id="msg_0", output_index=0, text=self.text)
        yield self.typed("response.output_item.done", output_index=0, item=self.output())
        state = self.end_state()
        yield self.typed(f"response.{state['status']}", response=state)

    def whole(self):
        return self.end_state()


class Messages(Answer):
    """Anthropic /v1/messages."""

    def limits(self):
        return {}, self.body.get("max_tokens")

    def typed(self, kind, **fields):
        return self.data_lines({"type": kind, **fields}, kind)

    def message(self, **fields):
        return {"id": "msg_0", "type": "message", "role": "assistant", "model": self.model, "content": [],
                "stop_reason": None, "stop_sequence": None} | fields

    def opening(self):
        usage = {"input_tokens": self.prompt_tokens, "cache_creation_input_tokens": 0,
                 "cache_read_input_tokens": 0, "output_tokens": 1}
        start = self.message() if self.model == "no-usage" else self.message(usage=usage)
        block = {"type": "text", "text": ""}
        if self.thoughts():
            block = {"type": "thinking", "thinking": "", "signature": ""}
        elif self.model == "tool":
            block = {"type": "tool_use", "id": "toolu_0", "name": "", "input": {}}
        yield self.typed("message_start", message=start)
        yield self.typed("content_block_start", index=0, content_block=block)
        yield self.typed("ping")

    def error_events(self):
        error = {"type": "overloaded_error", "message": "the engine died"}
        yield self.typed("error", error=error)

    def token_event(self, first, text, count=1):
        delta = {"type": "text_delta", "text": text}
        if self.is_reasoning(first):
            delta = {"type": "thinking_delta", "thinking": text}
        elif self.model == "tool":
            delta = {"type": "input_json_delta", "partial_json": text}
        return self.typed("content_block_delta", index=0, delta=delta)

    def reason(self):
        return "max_tokens" if self.finish == "length" else "end_turn"

    def closing_events(self):
        yield self.typed("content_block_stop", index=0)
        end = {"delta": {"stop_reason": self.reason(), "stop_sequence": None}}
        if self.model != "no-usage":
            end["usage"] = {"output_tokens": self.total}
        yield self.typed("message_delta", **end)
        yield self.typed("message_stop")

    def whole(self):
        usage = {"input_tokens": self.prompt_tokens, "output_tokens": self.total}
        content = [{"type": "text", "text": self.text}]
        return self.message(content=content, stop_reason=self.reason(), usage=usage)


class Tgi(Answer):
    """Text Generation Inference /generate_stream and /generate: no length can be forced."""

    def limits(self):
        return {}, (self.body.get("parameters") or {}).get("max_new_tokens")

    def opening(self):
        return []

    def error_events(self):
        yield self.data_lines({"error": "the engine died", "error_type": "generation"})

    def token(self, index, text, special=False, **last):
        token = {"id": index, "text": text, "logprob": -0.5, "special": special}
        return {"index": index + 1, "token": token, "generated_text": None, "details": None} | last

    def token_event(self, first, text, count=1):
        return self.data_lines(self.token(first, text))

    def details(self):
        reason = "length" if self.finish == "length" else "eos_token"
        return {"finish_reason": reason, "generated_tokens": self.total, "seed": None,
                "input_length": self.prompt_tokens}

    def closing_events(self):
        # A mark that is no text; the server counts it in its own way, here not at all.
        end = {"generated_text": self.text, "details": self.details()}
        yield self.data_lines(self.token(self.total, "</s>", special=True, **end))

    def whole(self):
        return {"generated_text": self.text, "details": self.details()}


class Sglang(Answer):
    """SGLang's /generate: every event repeats the whole text so far."""

    def limits(self):
        settings = self.body.get("sampling_params") or {}
        return settings, settings.get("max_new_tokens")

    def opening(self):
        return [self.data_lines(self.state("", 0))] if self.model in ("role-first", "empty") else []

    def error_events(self):
        return [self.data_lines({"error": {"message": "the engine died"}}), self.data_lines("[DONE]")]

    def state(self, text, tokens, finish=None):
        meta = {"id": "truth-0", "finish_reason": finish, "prompt_tokens": self.prompt_tokens,
                "completion_tokens": tokens, "cached_tokens": 0, "e2e_latency": 0.5}
        if self.model == "no-usage":
            meta = {"finish_reason": finish}
        return {"text": text, "output_ids": [1], "meta_info": meta}

    def token_event(self, first, text, count=1):
        said = text if self.model == "disjoint" else self.text
        return self.data_lines(self.state(said, first + count))

    def reason(self):
        return {"type": self.finish, "length": self.total} if self.finish == "length" else {"type": "stop"}

    def closing_events(self):
        said = "" if self.model == "disjoint" else self.text
        yield self.data_lines(self.state(said, self.total, self.reason()))
        if self.model != "no-done":
            yield self.data_lines("[DONE]")

    def whole(self):
        return self.state(self.text, self.total, self.reason())


class OllamaGenerate(Answer):
    """Ollama /api/generate: one JSON document a line, no length can be forced."""

    content_type = "application/x-ndjson"

    def limits(self):
        return {}, (self.body.get("options") or {}).get("num_predict")

    def data_lines(self, data, name=None):
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        return text + self.newline

    def said(self, text, thinking=False):
        return {"response": "", "thinking": text} if thinking else {"response": text}

    def line(self, done=False, **fields):
        return self.data_lines({"model": self.model, "created_at": "2026-01-01T00:00:00Z", **fields, "done": done})

    def opening(self):
        return [self.line(**self.said(""))] if self.model in ("role-first", "empty") else []

    def error_events(self):
        return [self.data_lines({"error": "the engine died"})]

    def token_event(self, first, text, count=1):
        return self.line(**self.said(text, self.is_reasoning(first)))

    def end_fields(self):
        counts = {"prompt_eval_count": self.prompt_tokens, "eval_count": self.total, "eval_duration": 5}
        return {"done_reason": self.finish} | ({} if self.model == "no-usage" else counts)

    def closing_events(self):
        yield self.line(done=True, **self.said(""), **self.end_fields())

    def whole(self):
        return {"model": self.model, **self.said(self.text), "done": True, **self.end_fields()}


class OllamaChat(OllamaGenerate):
    """Ollama /api/chat."""

    def said(self, text, thinking=False):
        part = {"content": "", "thinking": text} if thinking else {"content": text}
        return {"message": {"role": "assistant", **part}}


DIALECTS = {
    "/v1/chat/completions": Chat,
    "/v1/completions": Completions,
    "/v1/responses": Responses,
    "/v1/messages": Messages,
    "/generate_stream": Tgi,
    "/generate": Sglang,
    "/api/chat": OllamaChat,
    "/api/generate": OllamaGenerate,
}


def dialect_of(path, body):
    """The class that answers, and whether it streams. Two servers have a /generate."""
    dialect = Tgi if path == "/generate" and "inputs" in body else DIALECTS.get(path)
    if dialect is Tgi:
        return dialect, path == "/generate_stream"
    return dialect, body.get("stream", path.startswith("/api/"))


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
        elif request.path in ("/reset_prefix_cache", "/flush_cache"):
            self.serve_reset(request)
        else:
            self.server.die_in_time()
            await self.serve_completion(request)
        if request.headers.get("connection", "").lower() == "close":
            self.transport.close()

    def serve_reset(self, request):
        """Like vLLM, which answers 200 in development mode and 404 otherwise; like SGLang, which may refuse."""
        record = self.server.new_record(request)
        if request.path == "/flush_cache" and self.server.options.refuse_reset:
            self.refuse(record, 400, {"error": {"message": "Flush cache failed."}})
        elif self.server.options.refuse_reset:
            self.refuse(record, 404, {"detail": "Not Found"})
        else:
            self.refuse(record, 200, {})
        record["finished_ns"] = time.monotonic_ns()
        self.server.write_record(record)

    def serve_get(self, path):
        if self.server.options.bare:
            self.respond(404, {"error": {"message": f"no such path: {path}"}})
        elif path == "/health":
            self.respond(200, {"status": "ok"})
        elif path == "/v1/models":
            models = [{"id": name, "object": "model", "created": 1, "owned_by": "truth"} for name in MODELS]
            self.respond(200, {"object": "list", "data": models})
        elif path == "/metrics":
            self.respond(200, self.server.metrics(), content_type="text/plain; version=0.0.4")
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
        if path not in DIALECTS and path != "/v1/embeddings":
            return self.refuse(record, 404, {"error": {"message": f"no such path: {request.path}"}})
        try:
            body = json.loads(request.body)
            model = "plain" if redirected else body.get("model", "plain")
        except (ValueError, AttributeError) as error:
            return self.refuse(record, 400, {"error": {"message": f"bad request body: {error!r}"}})
        record["model"] = model
        if self.server.options.log_bodies:
            record["body"] = body
        record["prompt_sha256"] = hashlib.sha256(prompt_of(body).encode()).hexdigest()
        if model not in MODELS:
            error = {"message": f"The model `{model}` does not exist.", "type": "NotFoundError", "code": 404}
            return self.refuse(record, 404, {"error": error})
        if path == "/v1/messages" and "anthropic-version" not in request.headers:
            return self.refuse(record, 400, {"type": "error", "error": {
                "type": "invalid_request_error", "message": "anthropic-version: header is required"}})
        answered = [m for m in body.get("messages", []) if m.get("role") == "assistant"]
        if model == "500-third-turn" and len(answered) >= 2:
            model = "500"
        if self.answer_without_tokens(model, path, record):
            return None
        if path == "/v1/embeddings":
            return await self.embed(body, model, request.received_ns, record)

        self.server.fetch_blocks(body)
        dialect, streams = dialect_of(path, body)
        answer = dialect(self.server.options, body, model, request.received_ns)
        if not streams:
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
        record["end"] = "complete"
        self.respond(200, answer.whole() | self.server.kept_blocks(answer.body))

    async def embed(self, body, model, received_ns, record):
        """One vector a text, --ttft-ms after the request."""
        await sleep_until(received_ns + ms_to_ns(self.server.options.ttft_ms))
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        vectors = [] if model == "empty" else [
            {"object": "embedding", "index": index, "embedding": [0.5, -0.25]} for index in range(len(texts))]
        tokens = sum(len(text.split()) for text in texts)
        usage = {} if model == "no-usage" else {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
        record["end"] = "complete"
        self.respond(200, {"object": "list", "model": model, "data": vectors, **usage})

    async def stream(self, answer, record):
        await sleep_until(answer.head_due_ns)
        framing = "Transfer-Encoding: chunked" if answer.chunked else "Connection: close"
        record["head_ns"] = time.monotonic_ns()
        kind = "application/json" if answer.model == "json-type" else answer.content_type
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n"
        self.transport.write(head.encode())

        for piece in answer.pieces():
            await sleep_until(piece.due_ns)
            await self.write_piece(piece, record)
        record["end"] = "complete"
        if self.server.options.log_bodies:
            record["text"] = answer.text
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
        self.answered = 0
        self.streamed = 0
        self.kv_bytes = 0
        # Opened once, flushed after every line: a reader may follow it.
        self.log = open(options.log, "a", encoding="utf-8") if options.log else None

    def fetch_blocks(self, body):
        """A decode worker counts what it is sent, unless it computes the prompt again."""
        params = body.get("kv_transfer_params") or {}
        self.answered += 1
        if params.get("do_remote_prefill") and self.options.kv == "moved":
            self.kv_bytes += 1024 * params["remote_num_tokens"]

    def kept_blocks(self, body):
        """What a prefill worker of vLLM's NixlConnector says beside its answer."""
        params = body.get("kv_transfer_params") or {}
        if not (self.options.kv and params.get("do_remote_decode")):
            return {}
        tokens = len(prompt_of(body).split())
        blocks = [list(range(1 + tokens // 16))]
        return {"kv_transfer_params": {
            "do_remote_prefill": True, "do_remote_decode": False, "remote_block_ids": blocks,
            "remote_engine_id": "truth", "remote_request_id": "truth-0", "remote_host": "127.0.0.1",
            "remote_port": 5600, "tp_size": 1, "remote_num_tokens": tokens}}

    def metrics(self):
        if not self.options.kv:
            return b""
        lines = ['vllm:num_preemptions_total{engine="0"} 0',
                 f'vllm:request_success_total{{engine="0",finished_reason="length"}} {self.answered}']
        if self.options.kv != "uncounted":
            lines.append(f'vllm:nixl_bytes_transferred_sum{{engine="0"}} {self.kv_bytes}')
        return "\n".join([*lines, ""]).encode()

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

    def die_in_time(self):
        if self.streamed == self.options.dies_after:
            print("fatal: the engine core died", file=sys.stderr, flush=True)
            os._exit(1)

    def write_record(self, record):
        if self.log:
            self.log.write(json.dumps(record) + "\n")
            self.log.flush()
        self.streamed += bool(record["write_ns"])


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
    parser = argparse.ArgumentParser(description="A ground-truth server for completions.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one; printed as `listening PORT`")
    parser.add_argument("--ttft-ms", type=float, default=20, help="request read to first token")
    parser.add_argument("--itl-ms", type=float, default=10, help="between tokens")
    parser.add_argument("--tokens", type=int, default=16, help="tokens an answer, inside the request's limits")
    parser.add_argument("--stall-ms", type=float, default=500)
    parser.add_argument("--slow-head-ms", type=float, default=300)
    parser.add_argument("--idle-close-ms", type=float, default=20)
    parser.add_argument("--log", metavar="FILE", help="one JSON line a request is appended")
    parser.add_argument("--log-bodies", action="store_true", help="log each request's body, and its answer's text")
    parser.add_argument("--refuse-reset", action="store_true", help="do not empty the prefix cache when asked")
    parser.add_argument("--bare", action="store_true", help="no path but those that answer requests")
    parser.add_argument("--kv", choices=("moved", "recomputed", "uncounted"),
                        help="speak of key-value blocks as vLLM's NixlConnector does, as prefill and decode worker")
    parser.add_argument("--dies-after", type=int, metavar="N", help="ends with a last line at the question behind its Nth streamed answer")
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
