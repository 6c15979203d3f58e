"""Serves one GGUF model over HTTP with llama.cpp's own server, through the `xllamacpp` wheel.

scalebeam starts this file with the Python of the venv that `scalebeam setup llama.cpp` made. The
server inside the wheel is llama.cpp's `llama-server`: /health, /v1/models, /v1/chat/completions,
/v1/completions, /metrics, continuous batching.

Prints `listening URL` on standard output once the model is loaded and requests are answered. Ends with
status 0 on SIGTERM or SIGINT, with 1 when the server cannot start.
"""

import argparse
import os
import signal
import sys
import threading


def parse_arguments():
    parser = argparse.ArgumentParser(description="Serve a GGUF model over HTTP with llama.cpp.")
    parser.add_argument("--model", required=True, metavar="PATH", help="the GGUF file")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on; 0 picks a free one")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads that compute")
    parser.add_argument("--parallel", type=int, default=8, metavar="N", help="requests batched at once")
    parser.add_argument(
        "--ctx", type=int, default=16384, metavar="N", help="context tokens, divided among the slots"
    )
    parser.add_argument("--alias", default="", metavar="NAME", help="model name that clients use")
    parser.add_argument(
        "--no-cache-prompt", action="store_true", help="compute every prompt anew, shared prefix or not"
    )
    parser.add_argument("--verbose", action="store_true", help="llama.cpp's own log, on standard error")
    return parser.parse_args()


def server_parameters(xllamacpp, arguments):
    parameters = xllamacpp.CommonParams()
    parameters.model.path = arguments.model
    parameters.hostnames = [arguments.host]
    parameters.port = arguments.port
    parameters.n_ctx = arguments.ctx
    parameters.n_parallel = arguments.parallel
    parameters.cpuparams.n_threads = arguments.threads
    parameters.cpuparams_batch.n_threads = arguments.threads
    parameters.endpoint_metrics = True
    parameters.endpoint_slots = True
    parameters.warmup = True
    parameters.cache_prompt = not arguments.no_cache_prompt
    # llama.cpp would keep up to 8 GiB of finished prompts in host memory: under a load that grows
    # until it disturbs what is being measured. Prefixes still in a slot are reused all the same.
    parameters.cache_ram_mib = 0
    if arguments.alias:
        parameters.model_alias = {arguments.alias}
    if not arguments.verbose:
        parameters.verbosity = 1  # errors only
    return parameters


def exit_on_signal(signals):
    """Leaves at once on SIGTERM or SIGINT, also while the model loads or answers are being streamed.

    A blocked signal stays pending until this thread takes it, so that none is lost while the native
    server starts. The server's destructor would wait for open streams; leaving does not.
    """
    signal.sigwait(signals)
    os._exit(0)


def main():
    arguments = parse_arguments()
    if not os.path.isfile(arguments.model):
        print(f"llama_serve.py: no such model file: {arguments.model}", file=sys.stderr)
        return 1

    # Before the first thread exists, so that every thread of the native server inherits the mask.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    watcher = threading.Thread(target=exit_on_signal, args=(signals,), daemon=True)
    watcher.start()

    import xllamacpp

    try:
        server = xllamacpp.Server(server_parameters(xllamacpp, arguments))
    except Exception as error:  # whatever the wheel raises from C++
        print(f"llama_serve.py: the server did not start: {error}", file=sys.stderr)
        return 1
    print(f"listening {server.listening_address}", flush=True)
    watcher.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
