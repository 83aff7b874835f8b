"""Real WSGI and ASGI servers in processes of their own, and a client that sends bytes as they are."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PYWSGI = """
from gevent import monkey; monkey.patch_all()
import importlib, sys
from gevent.pywsgi import WSGIServer
module, _, name = sys.argv[2].partition(":")
application = getattr(importlib.import_module(module), name)
WSGIServer(("127.0.0.1", int(sys.argv[1])), application, log=None).serve_forever()
"""

_WERKZEUG = """
import importlib, sys
from werkzeug.serving import WSGIRequestHandler, run_simple
module, _, name = sys.argv[2].partition(":")
application = getattr(importlib.import_module(module), name)
WSGIRequestHandler.protocol_version = "HTTP/1.1"
run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True)
"""


#: Those that serve ASGI applications.
ASGI = ("uvicorn", "uvicorn-h11", "hypercorn")


def _command(kind: str, port: int, target: str, threads: int) -> list[str]:
    gunicorn = ["gunicorn", "--bind", f"127.0.0.1:{port}", "--access-logfile", "-", "--graceful-timeout", "20"]
    commands = {
        "sync": [*gunicorn, "--worker-class", "sync"],
        "gthread": [*gunicorn, "--worker-class", "gthread", "--threads", str(threads)],
        "gevent": [*gunicorn, "--worker-class", "gevent"],
        "uvicorn": ["uvicorn", f"--port={port}", "--http=httptools", "--timeout-graceful-shutdown=20"],
        "uvicorn-h11": ["uvicorn", f"--port={port}", "--http=h11", "--timeout-graceful-shutdown=20"],
        "hypercorn": ["hypercorn", "--bind", f"127.0.0.1:{port}", "--access-logfile", "-", "--graceful-timeout", "20"],
        "waitress": ["waitress", f"--listen=127.0.0.1:{port}", f"--threads={threads}"],
    }
    if kind in ("pywsgi", "werkzeug"):
        return ["-c", _PYWSGI if kind == "pywsgi" else _WERKZEUG, str(port), target]
    if kind == "waitress":
        return ["-m", *commands[kind], "--channel-request-lookahead=1", target]
    return ["-m", *commands[kind], target]


@dataclass
class Server:
    """A server that listens."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def send(self, request: bytes, *, half_close: bool = False) -> bytes:
        """Everything the server answers to these bytes until it closes, or is silent for 10 s."""
        with self.connect() as sock:
            sock.sendall(request)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


def read_all(sock: socket.socket) -> bytes:
    """All bytes until the other side closes."""
    received = b""
    while chunk := sock.recv(65536):
        received += chunk
    return received


def read_one(sock: socket.socket) -> bytes:
    """One answer that says its length; the connection stays open."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(sock)
    length = int(header_of(received, "Content-Length") or 0)
    while len(body_of(received)) < length:
        received += _more(sock)
    return received


def _more(sock: socket.socket) -> bytes:
    received = sock.recv(65536)
    assert received, "the server closed the connection in the middle of an answer"
    return received


def post(path: str, body: bytes, *headers: str, keep: bool = False) -> bytes:
    """The bytes of a POST; its connection is closed by the server after the answer unless *keep*."""
    lines = [f"POST {path} HTTP/1.1", "Host: hooks.test", *headers]
    if not keep:
        lines.append("Connection: close")
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body: bytes, size: int = 1000) -> bytes:
    """*body* in chunks, for ``Transfer-Encoding: chunked``."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def header_of(answer: bytes, name: str) -> str | None:
    """The value of one header, None when it isn't there."""
    for line in answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name.lower():
            return value.strip()
    return None


@contextmanager
def serve(
    kind: str,
    target: str,
    folder: Path,
    *extra: str,
    threads: int = 8,
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run *target*, ``module:application`` found in *folder*, under a server of this kind."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = _command(kind, port, target, threads)
    log = folder / f"{kind}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command[:-1], *extra, command[-1]],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), **(env or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_listening(process, port, log)
        yield Server(port, process, log)
    finally:
        _stop(process)


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                sock.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                if sock.recv(1):
                    return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"The server does not answer.\n{log.read_text()}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        os.killpg(process.pid, number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
