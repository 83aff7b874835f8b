"""What durable reads of the WSGI server: how many connections it can hold, whether a client left, when it stops."""

from __future__ import annotations

import io
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from durable.broker.notifier import PollingNotifier
from durable.web import gunicorn, pace, servers
from durable.web import hub as holding

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def connection() -> Iterator[Pair]:
    """The server's and the client's end of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        yield server, client


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The parts of a gunicorn gthread worker that durable reads."""
    made = SimpleNamespace(alive=True, tpool=object(), cfg=SimpleNamespace(threads=4))
    monkeypatch.setattr(gunicorn, "_found", [made])
    return made


@pytest.mark.parametrize(("threads", "limit"), [(1, 0), (2, 1), (4, 3), (32, 30), (64, 60), (500, 496)])
def test_all_threads_but_a_reserve_may_hold(worker, threads, limit):
    """One thread stays free, four of many."""
    worker.cfg.threads = threads

    assert servers.held_limit({}, None) == limit


def test_the_setting_can_only_lower_the_limit(worker):
    """A max_held above the number of threads would leave no thread for other requests."""
    assert servers.held_limit({}, 2) == 2
    assert servers.held_limit({}, 100) == 3


def test_the_setting_is_the_limit_where_threads_are_unknown():
    """For an unknown server the limit is max_held, else a fixed number."""
    assert servers.held_limit({}, 7) == 7
    assert servers.held_limit({}, None) == servers.UNKNOWN_LIMIT


def test_waitress_tells_its_threads():
    """Its environment leads to its settings."""

    class Channel:
        server = SimpleNamespace(adj=SimpleNamespace(threads=4))

        def check_client_disconnected(self) -> bool:
            return True

    environ = {"waitress.client_disconnected": Channel().check_client_disconnected}

    assert servers.held_limit(environ, None) == 3
    assert servers.client_watch(environ)()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SERVER_SOFTWARE": "a", "wsgi.multithread": True}, True),
        ({"SERVER_SOFTWARE": "a", "wsgi.multithread": False, "wsgi.input": io.BytesIO()}, False),
        ({"wsgi.multithread": False, "wsgi.input": object()}, False),
        ({"wsgi.multithread": False, "wsgi.input": io.BytesIO()}, True),
    ],
    ids=["threads", "one request at a time", "an unknown server", "a test client"],
)
def test_who_can_hold(environ, expected):
    """Servers with threads, and Flask's test client, which waits in its caller's thread."""
    assert servers.can_hold(environ) is expected


@pytest.mark.parametrize("name", ["gunicorn.socket", "gunicorn.sock", "werkzeug.socket"])
def test_a_client_that_is_there_is_not_gone(connection, name):
    """A client that is silent, or has sent its next request, has not left; the check reads no byte."""
    server, client = connection
    is_gone = servers.client_watch({name: server})

    assert not is_gone()
    client.sendall(b"GET")
    assert not is_gone()
    assert server.recv(3) == b"GET"


def test_a_client_that_closed_is_gone(connection):
    """End of file, and a connection reset."""
    server, client = connection
    is_gone = servers.client_watch({"gunicorn.socket": server})

    client.close()

    assert is_gone()
    server.close()
    assert is_gone()


def test_a_tls_connection_can_be_watched(connection):
    """ssl's wrapper refuses MSG_PEEK; the socket below it does not."""
    server, client = connection
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    wrapped = context.wrap_socket(server, server_side=True, do_handshake_on_connect=False)
    is_gone = servers.client_watch({"gunicorn.socket": wrapped})

    assert not is_gone()
    client.close()
    assert is_gone()
    wrapped.close()


def test_an_unwatchable_client_is_there():
    """Without a socket, the connection is held until the timeout."""
    assert not servers.client_watch({})()


def test_the_worker_is_found_among_the_callers(monkeypatch):
    """Without our hook, the first hold finds the gunicorn worker that calls it."""
    base = pytest.importorskip("gunicorn.workers.base")

    class Worker(base.Worker):
        def __init__(self) -> None:
            pass

        def handle(self) -> Any:
            return gunicorn.current_worker()

    monkeypatch.setattr(gunicorn, "_found", [])
    made = Worker()

    assert gunicorn.current_worker() is None
    assert made.handle() is made
    assert gunicorn.current_worker() is made


def test_sigterm_drains_at_once(worker, monkeypatch):
    """With the server hook SIGTERM releases held connections at once, then calls the handler before."""
    monkeypatch.setattr(pace, "SLOW_SECS", 60.0)
    stopped = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        gunicorn.post_worker_init(worker)
        hub = holding.Hub(lambda ids: {}, Silent(), "web-1", None)
        waiter = hub.open("a", 10, lambda: False)
        assert waiter is not None
        os.kill(os.getpid(), signal.SIGTERM)

        assert waiter._released.get(timeout=10) is None
        assert stopped.is_set()
        hub.close(waiter)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_greenlet_that_waits_holds_up_no_other_when_the_app_was_loaded_before_gevent_patched():
    """With gunicorn's ``preload_app`` and gevent, classes imported by name would still be those of threads."""
    program = (
        "import threading, durable.web.hub as holding\n"
        "import gevent.monkey\n"
        "gevent.monkey.patch_all()\n"
        "import gevent\n"
        "waiter = holding.Waiter('a', lambda: False)\n"
        "gevent.spawn(waiter.release, 'the answer')\n"
        "print(waiter.wait(10))\n"
    )

    said = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)

    assert said.stdout == "the answer\n", said.stderr


class Silent(PollingNotifier):
    """Claims that notifications arrive, and delivers none."""

    healthy = True


def test_an_input_that_was_read_from_is_rewound_where_that_gives_the_whole_body():
    """Only if the length shows that the body begins at the file's beginning, or there is no length."""

    def found(at: int, length: str | None) -> tuple[servers.InputState, bytes]:
        stream = io.BytesIO(b"abcdef")
        stream.seek(at)
        environ = {"wsgi.input": stream} | ({} if length is None else {"CONTENT_LENGTH": length})
        return servers.rewind_input(environ), stream.read()

    assert found(0, "6") == (servers.InputState.UNREAD, b"abcdef")
    assert found(3, "6") == (servers.InputState.UNREAD, b"abcdef")
    assert found(3, None) == (servers.InputState.UNREAD, b"abcdef")
    # A body that begins in the middle of a file, which a test client may get.
    assert found(3, "3") == (servers.InputState.UNREAD, b"def")
    # No length matches: the sender disconnected, or middleware has read some bytes.
    assert found(3, "9") == (servers.InputState.UNKNOWN, b"def")


def test_an_input_of_an_unknown_kind_does_not_tell_whether_it_was_read():
    """A stream that cannot seek is not changed."""

    class Pipe(io.RawIOBase):
        def seekable(self) -> bool:
            return False

    assert servers.rewind_input({"wsgi.input": Pipe()}) is servers.InputState.UNKNOWN
    assert servers.rewind_input({"wsgi.input": object()}) is servers.InputState.UNKNOWN
