"""The API server of kube_api.py for pods: at an address that they reach, by TLS.

Certificates are made by the `openssl` program, of an authority that is made for this. TLS is taken off by one thread
for each connection, which alone reads and writes it, since a connection of the `ssl` module is not for two at a time;
what answers behind it is a server at the loopback address.
"""

import os
import selectors
import socket
import ssl
import subprocess
import threading
from http.server import ThreadingHTTPServer

CHUNK = 65536


class Server:
    """Where it listens, and what its certificate is to be trusted by."""

    def __init__(self, address, ca):
        self.address, self.ca = address, ca


def serve(host, folder, handler):
    """Serves `handler` at `host`, with certificates in `folder`."""
    ca, chain, key = certificates(host, os.path.join(folder, "tls"))
    plain = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    plain.daemon_threads = True
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    # WebSockets are of HTTP/1.1.
    context.set_alpn_protocols(["http/1.1"])
    listener = socket.create_server((host, 0))
    threading.Thread(target=accept, args=(listener, context, plain.server_address), daemon=True).start()
    return Server(listener.getsockname(), ca)


def certificates(host, folder):
    """Paths of an authority's certificate, and of a certificate by it for `host` with its key."""
    os.makedirs(folder)
    ca, ca_key, chain, key, request, names = (
        os.path.join(folder, name) for name in ("ca.crt", "ca.key", "server.crt", "server.key", "server.csr", "names"))
    with open(names, "w") as file:
        file.write(f"subjectAltName = IP:{host}\n")
    new = ["openssl", "req", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    sign = ["openssl", "x509", "-req", "-days", "2", "-CAcreateserial"]
    for words in (
        [*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", ca_key, "-out", ca],
        [*new, "-subj", "/CN=kubernetes", "-keyout", key, "-out", request],
        [*sign, "-in", request, "-CA", ca, "-CAkey", ca_key, "-extfile", names, "-out", chain],
    ):
        subprocess.run(words, check=True, capture_output=True)
    return ca, chain, key


def accept(listener, context, behind):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=relay, args=(connection, context, behind), daemon=True).start()


def relay(connection, context, behind):
    try:
        with context.wrap_socket(connection, server_side=True) as near, socket.create_connection(behind) as far:
            pass_on(near, far)
    except OSError:
        # Either side has gone.
        pass


def pass_on(near, far):
    """Bytes of either side to the other, until one ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(near, selectors.EVENT_READ, far)
        selector.register(far, selectors.EVENT_READ, near)
        while True:
            for key, _ in selector.select():
                data = key.fileobj.recv(CHUNK)
                # What was decrypted already is not seen by the selector.
                while data and getattr(key.fileobj, "pending", int)():
                    data += key.fileobj.recv(CHUNK)
                if not data:
                    return
                key.data.sendall(data)
