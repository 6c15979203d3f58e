"""The least that another client of `selftest --beside` can be.

usage: stand_in_client.py URL REQUESTS STREAMS RESULT

Sends REQUESTS streamed chat completions, STREAMS at once, reads each to its end, and leaves its latencies
in RESULT under vLLM's keys. Nothing but the standard library.
"""

import http.client
import json
import queue
import sys
import threading
import time
import urllib.parse


def read(connection, headers):
    """One request: milliseconds to the first token, and between tokens."""
    body = json.dumps({"model": "selftest", "stream": True, "messages": []})
    sent = time.monotonic()
    connection.request("POST", "/v1/chat/completions", body, headers)
    marks = [time.monotonic() for line in connection.getresponse() if b'"content"' in line]
    gaps = [1e3 * (after - before) for before, after in zip(marks, marks[1:])]
    return 1e3 * (marks[0] - sent), gaps


def work(host, todo, done):
    connection = http.client.HTTPConnection(host)
    while True:
        try:
            index = todo.get_nowait()
        except queue.Empty:
            return
        done.append(read(connection, {"x-request-id": f"stand-in-{index}"}))


def main(url, requests, streams, result):
    todo, done = queue.Queue(), []
    for index in range(int(requests)):
        todo.put(index)
    host = urllib.parse.urlsplit(url).netloc
    threads = [threading.Thread(target=work, args=(host, todo, done)) for _ in range(int(streams))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gaps = [gap for _, of_one in done for gap in of_one]
    said = {
        "mean_ttft_ms": sum(ttft for ttft, _ in done) / len(done),
        "mean_itl_ms": sum(gaps) / len(gaps),
    }
    with open(result, "w", encoding="utf-8") as file:
        json.dump(said, file)


main(*sys.argv[1:])
