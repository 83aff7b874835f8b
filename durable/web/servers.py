"""
What the WSGI server around a request can do: hold a connection, how many, see the client leave, end it.

PEP 3333 says none of it, so each server is asked in its own way; one that we
don't know gets the careful answer.
"""

from __future__ import annotations

import _socket
import errno
import inspect
import io
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

from . import gunicorn

Environ = Mapping[str, Any]

#: How many connections a process holds whose number of threads is unknown.
UNKNOWN_LIMIT = 100

_SOCKETS = ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket")


def can_hold(environ: Environ) -> bool:
    """Whether other requests are served while one waits: not by gunicorn's sync worker, for one."""
    return bool(environ.get("wsgi.multithread")) or _is_gevent() or _is_test_client(environ)


def held_limit(environ: Environ, setting: int | None) -> int:
    """How many connections this process may hold: its threads less a reserve, and no more than *setting*."""
    count = _threads(environ)
    limits = [] if count is None else [count - _reserve(count)]
    limits += [] if setting is None else [setting]
    return min(limits, default=UNKNOWN_LIMIT)


def client_watch(environ: Environ) -> Callable[[], bool]:
    """A function that says whether the client has left, as far as the server lets us see."""
    disconnected = environ.get("waitress.client_disconnected")
    if callable(disconnected):
        return lambda: bool(disconnected())
    for name in _SOCKETS:
        if isinstance(environ.get(name), socket.socket):
            return lambda: _is_at_end(environ[name])
    return lambda: False


def end_connection(environ: Environ) -> list[tuple[str, str]]:
    """
    See to it that nothing else is read from the connection where the server may have misread where a request ends.

    gevent's own server drops header lines that it does not understand, and all lines behind them, and takes the first
    of two lengths: so it may take the rest of a body for a request.  It is told by the headers returned here, which
    are to be sent.  waitress reads the chunks of a request that has a length too and goes on with what follows; it
    takes no such header from an application.
    """
    if environ.get("SERVER_SOFTWARE", "").startswith("gevent/"):
        return [("Connection", "close")]
    asked = _waitress_request(environ)
    if asked is not None and (asked.chunked or "HTTP_TRANSFER_ENCODING" in environ):
        asked.headers["CONNECTION"] = "close"
    return []


def rewind_input(environ: Environ) -> bool | None:
    """
    Go to the beginning of ``wsgi.input`` where that is possible (waitress keeps the body in a file).

    Returns:
        Whether bytes were taken from it that cannot be read again; None where the server does not tell.
    """
    stream = environ["wsgi.input"]
    match type(stream).__module__, type(stream).__name__:
        case "gunicorn.http.body", "Body":
            return bool(stream.buf.tell()) or _has_started(stream.reader, environ.get("CONTENT_LENGTH") or "0")
        case "gevent.pywsgi", "Input":
            return bool(stream.position) or stream.chunk_length != -1
        case "werkzeug.serving", "DechunkedInput":
            # Between two chunks it looks as at the beginning.
            return True if stream._done or stream._len else None
    if not (hasattr(stream, "seekable") and stream.seekable()):
        return None
    return _rewind(stream, environ.get("CONTENT_LENGTH"))


def _rewind(stream: Any, declared: str | None) -> bool | None:
    """To the beginning, unless the body is what is left: a test client may be given a file that has been read from."""
    position = stream.tell()
    if position == 0:
        return False
    size = stream.seek(0, io.SEEK_END)
    is_part = bool(declared) and str(size) != declared
    stream.seek(position if is_part else 0)
    return None if is_part and str(size - position) != declared else False


def _has_started(reader: Any, declared: str) -> bool:
    """Whether one of gunicorn's readers has read some of the body."""
    if hasattr(reader, "parser"):
        return reader.parser is None or inspect.getgeneratorstate(reader.parser) != inspect.GEN_CREATED
    return hasattr(reader, "length") and str(reader.length) != declared


def _reserve(threads: int) -> int:
    """Threads kept for requests that don't wait: 1 of up to 31, 4 of 64 and more."""
    return max(1, min(4, threads // 16))


def _threads(environ: Environ) -> int | None:
    worker = gunicorn.current_worker()
    if worker is not None:
        return gunicorn.threads(worker)
    adjustments = getattr(getattr(_waitress_channel(environ), "server", None), "adj", None)
    return getattr(adjustments, "threads", None)


def _waitress_channel(environ: Environ) -> Any:
    return getattr(environ.get("waitress.client_disconnected"), "__self__", None)


def _waitress_request(environ: Environ) -> Any:
    """What waitress has parsed, as it will look at it once more when it answers."""
    asked = getattr(_waitress_channel(environ), "requests", None)
    return asked[0] if asked else None


def _is_gevent() -> bool:
    """Greenlets are as good as threads; gevent's own server doesn't say that it has any."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _is_test_client(environ: Environ) -> bool:
    """Flask's test client calls the application in the caller's thread, which waits as a sender would."""
    body = environ.get("wsgi.input")
    return "SERVER_SOFTWARE" not in environ and isinstance(getattr(body, "raw", body), io.BytesIO)


def _is_at_end(sock: socket.socket) -> bool:
    """
    Whether the other side has closed its half.

    Looks without taking anything, and below gevent's and ssl's wrappers: the
    first would wait, the second refuses to.  (A TLS client that said good-bye
    before closing is not noticed: its last record stays unread.)
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
