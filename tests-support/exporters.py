#!/usr/bin/env python3
"""Stand-ins for what needs a GPU, or a clock of its own: dcgm-exporter, and a Prometheus server.

    exporters.py dcgm [--reset]          two H100s, of 612.5 and 87.5 W
    exporters.py prometheus [--ahead S] [--step S]     one host, node9, of 64 cores

It prints `listening PORT START`. Times are CLOCK_MONOTONIC. Both gather once a second and say the same until then, as the real
ones do. What they count follows from the time alone, so that whoever knows a window knows the truth of it:

    dcgm         energy grows by 612.5 and 87.5 J a second; with --reset it begins anew 3 s after the first question
    prometheus   t seconds after its start 0.05 t^2 s of the cores' time are used, 0.1 t cores at that time. Its wall clock
                 is ahead of the machine's by --ahead; 3 s after the first question it is set forward by --step

The page of dcgm-exporter has the series of etc/default-counters.csv of github.com/NVIDIA/dcgm-exporter with the help texts
there, and labels and form of its README; answers of Prometheus are those of its HTTP API, version 1.
"""

import argparse
import http.server
import json
import math
import time
import urllib.parse

COUNTERS = [
    ("DCGM_FI_DEV_SM_CLOCK", "gauge", "SM clock frequency (in MHz).", [1755, 345]),
    ("DCGM_FI_DEV_MEM_CLOCK", "gauge", "Memory clock frequency (in MHz).", [2619, 2619]),
    ("DCGM_FI_DEV_MEMORY_TEMP", "gauge", "Memory temperature (in C).", [70, 40]),
    ("DCGM_FI_DEV_GPU_TEMP", "gauge", "GPU temperature (in C).", [61, 30]),
    ("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W).", [612.5, 87.5]),
    ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter", "Total energy consumption since boot (in mJ).", None),
    ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "counter", "Total number of PCIe retries.", [0, 0]),
    ("DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization (in %).", [98, 0]),
    ("DCGM_FI_DEV_MEM_COPY_UTIL", "gauge", "Memory utilization (in %).", [41, 0]),
    ("DCGM_FI_DEV_ENC_UTIL", "gauge", "Encoder utilization (in %).", [0, 0]),
    ("DCGM_FI_DEV_DEC_UTIL", "gauge", "Decoder utilization (in %).", [0, 0]),
    ("DCGM_FI_DEV_XID_ERRORS", "gauge", "Value of the last XID error encountered.", [0, 0]),
    ("DCGM_FI_DEV_FB_FREE", "gauge", "Framebuffer memory free (in MiB).", [8967, 81076]),
    ("DCGM_FI_DEV_FB_USED", "gauge", "Framebuffer memory used (in MiB).", [72113, 4]),
    ("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "counter", "Total number of NVLink bandwidth counters for all lanes", [0, 0]),
    ("DCGM_FI_DEV_VGPU_LICENSE_STATUS", "gauge", "vGPU License status", [0, 0]),
]
WATTS = [612.5, 87.5]
GPUS = [
    ("GPU-5e6f7a8b-0c1d-2e3f-4a5b-6c7d8e9f0a1b", "00000000:18:00.0"),
    ("GPU-7a8b9c0d-1e2f-3a4b-5c6d-7e8f9a0b1c2d", "00000000:2A:00.0"),
]
CORES = 64
BORN = time.monotonic()
# From the first question until something happens to a stand-in.
CALM = 3.0


class Dcgm:
    def __init__(self, args):
        self.is_reset = args.reset
        self.asked_at = None

    def get(self, path, _):
        if path != "/metrics":
            return 404, "text/plain", "404 page not found"
        self.asked_at = self.asked_at or time.monotonic()
        since = math.floor(time.monotonic() - BORN)
        lines = []
        for name, kind, text, values in COUNTERS:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            for gpu, (uuid, bus) in enumerate(GPUS):
                value = self.millijoules(gpu, since) if values is None else values[gpu]
                lines.append(
                    f'{name}{{gpu="{gpu}",UUID="{uuid}",pci_bus_id="{bus}",device="nvidia{gpu}",'
                    f'modelName="NVIDIA H100 80GB HBM3",Hostname="box",DCGM_FI_DRIVER_VERSION="580.65.06"}} {value}'
                )
        return 200, "text/plain; version=0.0.4; charset=utf-8", "\n".join(lines) + "\n"

    def millijoules(self, gpu, since):
        is_anew = self.is_reset and BORN + since >= self.asked_at + CALM
        begin = 0 if is_anew else 9_007_199_254
        return begin + int(since * WATTS[gpu] * 1000)


class Prometheus:
    def __init__(self, args):
        self.ahead = args.ahead
        self.step = args.step
        self.asked_at = None

    def clock(self, at):
        """What its clock showed at a time."""
        is_set = at >= self.asked_at + CALM
        return time.time() - time.monotonic() + at + self.ahead + (self.step if is_set else 0)

    def get(self, path, query):
        self.asked_at = self.asked_at or time.monotonic()
        now = self.clock(time.monotonic())
        expression = query.get("query", [""])[0]
        if path != "/api/v1/query":
            return 404, "text/plain", "404 page not found"
        if expression == "time()":
            data = {"resultType": "scalar", "result": [round(now, 3), str(round(now, 3))]}
        elif expression.endswith("ms]"):
            data = self.range(expression, float(query["time"][0]))
        else:
            return 400, "application/json", json.dumps({"status": "error", "error": "what?"})
        return 200, "application/json", json.dumps({"status": "success", "data": data})

    def range(self, expression, until):
        since = until - int(expression.rsplit("[", 1)[1].removesuffix("ms]")) / 1e3
        scrapes = range(math.floor(time.monotonic() - BORN) + 1)
        kept = [(self.clock(BORN + t), t) for t in scrapes if since <= self.clock(BORN + t) <= until]
        used = {"user": lambda t: 0.05 * t * t, "idle": lambda t: CORES * (t + 3600) - 0.05 * t * t}
        labels = {"__name__": "node_cpu_seconds_total", "cpu": "0", "instance": "10.0.0.9:9100", "job": "node"}
        series = [
            {"metric": {**labels, "mode": mode}, "values": [[round(at, 3), repr(of(t))] for at, t in kept]}
            for mode, of in used.items()
        ]
        return {"resultType": "matrix", "result": series}


class Handler(http.server.BaseHTTPRequestHandler):
    of = None

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        status, kind, body = self.of.get(url.path, urllib.parse.parse_qs(url.query))
        body = body.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["dcgm", "prometheus"])
    parser.add_argument("--reset", action="store_true")
    parser.add_argument("--ahead", type=float, default=0.0)
    parser.add_argument("--step", type=float, default=0.0)
    args = parser.parse_args()
    Handler.of = (Dcgm if args.what == "dcgm" else Prometheus)(args)
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    print(f"listening {server.server_address[1]} {BORN}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
