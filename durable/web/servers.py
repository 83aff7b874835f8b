"""
What the WSGI server of a request can do: hold connections, notice that a client disconnected, close a connection.

PEP 3333 has no interface for this, so this module reads attributes of each
server's own objects.  For an unknown server it returns the safe value.
"""

from __future__ import annotations

import _socket
import enum
import errno
import inspect
import io
import resource
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

from . import gunicorn

Environ = Mapping[str, Any]

#: How many connections a process holds if its number of threads is unknown.
UNKNOWN_LIMIT = 100

#: The key of a request's environment that says that the ASGI application made it.
ASGI = "durable.asgi"
#: How many connections an ASGI process holds, if it may open so many files and these more.
ASGI_LIMIT = 10_000
OTHER_FILES = 200

_SOCKETS = ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket")


class InputState(enum.Enum):
    """Whether bytes of a request's body were read before the blueprint saw the request."""

    UNREAD = "unread"
    #: Some were read, and they cannot be read again.
    READ = "read"
    #: The server does not show whether any were read.
    UNKNOWN = "unknown"


def can_hold(environ: Environ) -> bool:
    """Return whether the server serves other requests while one waits.  Gunicorn's sync worker does not."""
    if environ.get("wsgi.multithread"):
        return True
    # gevent's own server does not set wsgi.multithread, but its threads are greenlets, which can wait.
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        return True
    # Under Flask's test client the caller's thread waits, as a sender does.
    body = environ.get("wsgi.input")
    return "SERVER_SOFTWARE" not in environ and isinstance(getattr(body, "raw", body), io.BytesIO)


def held_limit(environ: Environ, setting: int | None) -> int:
    """
    Return how many connections this process may hold, at most *setting*.

    Each takes a thread of a WSGI server, and a reserve is left; under ASGI each takes only a file.
    """
    if environ.get(ASGI):
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = ASGI_LIMIT if files == resource.RLIM_INFINITY else min(ASGI_LIMIT, max(files - OTHER_FILES, files // 2))
        return most if setting is None else min(most, setting)
    worker = gunicorn.current_worker()
    waitress = getattr(getattr(_waitress_channel(environ), "server", None), "adj", None)
    threads = gunicorn.threads(worker) if worker is not None else getattr(waitress, "threads", None)
    limits = [] if setting is None else [setting]
    if threads is not None:
        # Some threads are kept for requests that do not wait: 1 of up to 31, 4 of 64 and more.
        limits.append(threads - max(1, min(4, threads // 16)))
    return min(limits, default=UNKNOWN_LIMIT)


def client_watch(environ: Environ) -> Callable[[], bool]:
    """Return a function that checks whether the client has disconnected.  It returns False if the server hides that."""
    disconnected = environ.get("waitress.client_disconnected")
    if callable(disconnected):
        return lambda: bool(disconnected())
    for name in _SOCKETS:
        if isinstance(environ.get(name), socket.socket):
            return lambda: _is_at_end(environ[name])
    return _never


def end_connection(environ: Environ) -> list[tuple[str, str]]:
    """
    Close the connection after this answer if the server may be wrong about where the request ends.

    Otherwise it could take the rest of a body for the next request.  gevent's pywsgi drops header lines that it
    cannot parse and all lines after them, and uses the first of two lengths.  waitress reads the chunks of a request
    that has a length too, and then goes on with the connection.

    Returns:
        Headers to add to the answer.  (waitress accepts no such header from an application; here its parsed request
        is changed.)
    """
    if environ.get("SERVER_SOFTWARE", "").startswith("gevent/"):
        return [("Connection", "close")]
    # What waitress has parsed; it looks at this object once more when it answers.
    parsed = getattr(_waitress_channel(environ), "requests", None)
    if parsed and (parsed[0].chunked or "HTTP_TRANSFER_ENCODING" in environ):
        parsed[0].headers["CONNECTION"] = "close"
    return []


def _never() -> bool:
    return False


def rewind_input(environ: Environ) -> InputState:
    """Seek to the beginning of ``wsgi.input`` if possible; waitress, for example, keeps the body in a file."""
    stream = environ["wsgi.input"]
    match type(stream).__module__, type(stream).__name__:
        case "gunicorn.http.body", "Body":
            reader, is_read = stream.reader, bool(stream.buf.tell())
            if hasattr(reader, "parser"):  # A chunked body.
                is_read |= reader.parser is None or inspect.getgeneratorstate(reader.parser) != inspect.GEN_CREATED
            elif hasattr(reader, "length"):
                is_read |= str(reader.length) != (environ.get("CONTENT_LENGTH") or "0")
            return InputState.READ if is_read else InputState.UNREAD
        case "gevent.pywsgi", "Input":
            return InputState.READ if stream.position or stream.chunk_length != -1 else InputState.UNREAD
        case "werkzeug.serving", "DechunkedInput":
            # Between two chunks it looks as it does at the beginning.
            return InputState.READ if stream._done or stream._len else InputState.UNKNOWN
    if not (hasattr(stream, "seekable") and stream.seekable()):
        return InputState.UNKNOWN
    position = stream.tell()
    if position == 0:
        return InputState.UNREAD
    # Seek to the beginning, unless the rest of the file is the body: a test client may get a file in its middle.
    size = stream.seek(0, io.SEEK_END)
    declared = environ.get("CONTENT_LENGTH")
    if not declared or str(size) == declared:
        stream.seek(0)
        return InputState.UNREAD
    stream.seek(position)
    return InputState.UNREAD if str(size - position) == declared else InputState.UNKNOWN


def _waitress_channel(environ: Environ) -> Any:
    return getattr(environ.get("waitress.client_disconnected"), "__self__", None)


def _is_at_end(sock: socket.socket) -> bool:
    """
    Return whether the client has closed its side of the connection.

    It peeks, so no byte is lost.  It uses the socket below gevent's and ssl's wrappers: gevent's would
    block, and ssl's does not allow a peek.  (A TLS client that sends close_notify before it closes is
    not noticed, because that record stays unread.)
    """
    if sock.fileno() < 0:
        return True
    raw = _socket.socket(sock.family, sock.type, sock.proto, sock.fileno())
    try:
        return raw.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EINTR)
    finally:
        raw.detach()
