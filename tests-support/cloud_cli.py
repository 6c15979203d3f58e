#!/usr/bin/env python3
"""Stand-ins for Modal's client and SkyPilot's: the file is put on PATH as `modal` and as `sky`.

They keep what is deployed in STANDIN_DIR/state.json, and every call in STANDIN_DIR/calls.log. What they serve
is at STANDIN_URL. STANDIN_DIR/behaviour says in words, read anew at each call, what else they do:

    token        there are no credentials
    fails        the deployment fails
    slow         it takes a minute
    refuses      nothing can be stopped
    old          this client does not know `function info`
    task-fails   the task of a cluster ends with an error
    gone         what was deployed was stopped by somebody else

Texts are those of modal 1.6.4 and skypilot 0.14.1, read from their packages and printed by them where they do so
without an account.
"""

import json
import os
import sys
import time

DIR = os.environ["STANDIN_DIR"]
TOKEN = ("Error: Token missing. Could not authenticate client. If you have token credentials, see "
         "modal.com/docs/sdk/py/latest/config for setup help. If you are a new user, register an account at "
         "modal.com, then run `modal token new`.")


def read(name, default):
    try:
        with open(os.path.join(DIR, name)) as file:
            return file.read()
    except FileNotFoundError:
        return default


def behaves(word):
    return word in read("behaviour", "").split()


def load():
    return json.loads(read("state.json", "{}"))


def keep(state):
    path = os.path.join(DIR, f"state.json.{os.getpid()}")
    with open(path, "w") as file:
        json.dump(state, file)
    os.rename(path, os.path.join(DIR, "state.json"))


def fail(text, status=1):
    print(text, file=sys.stderr)
    sys.exit(status)


def set_state(name, state):
    known = load()
    known.setdefault(name, {"id": f"ap-{len(known):022d}"})["state"] = state
    keep(known)


def modal(args):
    if behaves("token"):
        fail(TOKEN)
    if behaves("gone"):
        keep({name: {**app, "state": "stopped"} for name, app in load().items()})
    match args:
        case ["app", "list", "--json"]:
            apps = [{"app_id": app["id"], "description": name, "state": app["state"],
                     "tasks": "1" if app["state"] == "deployed" else "0",
                     "created_at": "2026-11-26 06:00:00+00:00", "stopped_at": None}
                    for name, app in load().items()]
            print(json.dumps(apps, indent=2))
        case ["deploy", path, "--name", name]:
            compile(read_file(path), path, "exec")
            print("Building image im-abc123\n\n=> Step 0: FROM base", flush=True)
            set_state(name, "initializing...")
            if behaves("fails"):
                set_state(name, "stopped")
                fail("Error: Image build for im-abc123 failed.\nView the build logs:\n  modal image logs im-abc123")
            if behaves("slow"):
                time.sleep(60)
            set_state(name, "deployed")
            print("✓ Created objects.\n└── ✓ Created web function serve\n"
                  f"    └── https://acme--{name}-serve.modal.run (unauthenticated)\n"
                  "✓ App deployed in 1.234s! 🎉\n\n"
                  f"View Deployment: https://modal.com/apps/acme/main/deployed/{name}")
        case ["function", "info", name, "--json"]:
            if behaves("old"):
                fail("Usage: modal [OPTIONS] COMMAND [ARGS]...\nTry 'modal --help' for help.\n\n"
                     "Error: No such command 'function'.", 2)
            print(json.dumps({"name": "serve", "object_id": "fu-1", "app_id": "ap-1",
                              "web_info": {"web_url": os.environ["STANDIN_URL"], "method": None,
                                           "unauthenticated": True}}, indent=2))
        case ["app", "logs", name, "--tail", _]:
            print("INFO: Application startup complete.")
        case ["app", "stop", which, "--yes"]:
            if behaves("refuses"):
                fail("Error: Deadline exceeded")
            for name, app in load().items():
                if which in (name, app["id"]):
                    set_state(name, "stopped")
                    return
            fail(f"Error: No App with name '{which}' found in the 'main' environment.")
        case _:
            fail(f"Error: No such command '{' '.join(args)}'.", 2)


def read_file(path):
    with open(path) as file:
        return file.read()


def sky(args):
    if behaves("gone"):
        keep({})
    match args:
        case ["status", *names, "-o", "json"]:
            names = [n for n in names if not n.startswith("-")]
            records = [{"name": name, "launched_at": 1, "status": c["state"], "autostop": -1, "to_down": False,
                        "cluster_hash": "x", "nodes": 1, "resources_str": "1x Lambda(gpu_8x_h100)",
                        "init_status_reason": None}
                       for name, c in load().items() if not names or name in names]
            print(json.dumps(records, indent=2))
        case ["launch", "-y", "-d", "-c", name, *_, path]:
            assert "run:" in read_file(path), path
            print("YAML to run: " + path, flush=True)
            set_state(name, "INIT")
            if behaves("fails"):
                fail("sky.exceptions.ResourcesUnavailableError: Failed to acquire resources in all zones in "
                     "us-east-1. Try changing resource requirements or use another region.")
            if behaves("slow"):
                # What is at work is the API server; it ends with the cluster.
                for _ in range(600):
                    time.sleep(0.1)
                    if name not in load():
                        fail("sky.exceptions.RequestCancelled: Request was cancelled")
            set_state(name, "UP")
            print(f"✓ Cluster launched: {name}.\n⚙︎ Job submitted, ID: 1")
        case ["status", name, "--endpoint", port]:
            print(os.environ["STANDIN_URL"].removeprefix("http://"))
        case ["logs", name, "--status"]:
            failed = behaves("task-fails")
            print("Job 1: " + ("FAILED_SETUP" if failed else "RUNNING"))
            sys.exit(100 if failed else 101)
        case ["logs", name, "--no-follow", "--tail", _]:
            print("(task, pid=17) ERROR: No matching distribution found for vllm==0.32.0")
        case ["down", "-y", name]:
            if behaves("refuses"):
                fail(f"Terminating cluster {name}...failed. \nReason: RuntimeError: cannot reach the cloud.")
            known = load()
            if known.pop(name, None) is None:
                print("Cluster(s) not found (tip: see `sky status`).")
            else:
                keep(known)
                print(f"Terminating cluster {name}...done.")
        case _:
            fail(f"Error: No such option: {' '.join(args)}", 2)


def main():
    with open(os.path.join(DIR, "calls.log"), "a") as log:
        log.write(" ".join(sys.argv[1:]) + "\n")
    {"modal": modal, "sky": sky}[os.path.basename(sys.argv[0])](sys.argv[1:])


if __name__ == "__main__":
    main()
