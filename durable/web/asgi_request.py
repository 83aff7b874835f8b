"""
Read an ASGI request as a WSGI server reads one, so that the same code handles both.

``environ_of`` makes the WSGI environment of a request; ``Input`` is its ``wsgi.input``.  Where WSGI servers differ,
both do as gunicorn does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from . import servers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Environ = dict[str, Any]


class TooManyBodies(Exception):
    """Raised when the bodies that are being received take too much memory together."""


class Room:
    """How many bytes of bodies a process may keep before they are handled.  Only the event loop's thread uses it."""

    def __init__(self, size: int) -> None:
        self.left = size


class Input:
    """
    The body of one request: filled in the event loop, then read in a thread, as ``wsgi.input`` is.

    Only one of the two happens at a time.
    """

    __slots__ = ("_is_at_end", "_pieces", "_receive", "_room", "_taken", "is_cut")

    def __init__(self, receive: Receive, room: Room) -> None:
        self._receive = receive
        self._room = room
        #: How many bytes were taken from the room.
        self._taken = 0
        self._pieces: list[bytes] = []
        self._is_at_end = False
        #: Whether the client has disconnected.
        self.is_cut = False

    async def fill(self, size: int) -> None:
        """
        Receive at least *size* bytes of body, or the rest of it.

        Raises:
            TooManyBodies: There is no room for them.
        """
        while not self._is_at_end and self._taken < size:
            piece = await self._next()
            self._taken += len(piece)
            self._room.left -= len(piece)
            if self._room.left < 0:
                raise TooManyBodies
            self._pieces.append(piece)

    async def drop(self, size: int) -> None:
        """Receive and drop the rest of the body, or *size* bytes of it."""
        self.release()
        while not self._is_at_end and size > 0:
            size -= len(await self._next())

    def release(self) -> None:
        """Forget what was received."""
        self._pieces.clear()
        self._room.left += self._taken
        self._taken = 0

    async def disconnect(self) -> None:
        """Wait until the client disconnects."""
        while not self.is_cut:
            self.is_cut = (await self._receive())["type"] == "http.disconnect"

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._is_at_end = self.is_cut = True
            return b""
        self._is_at_end |= not message.get("more_body", False)
        return bytes(message.get("body", b""))

    def read(self, size: int) -> bytes:
        """Return up to *size* bytes of what was received; raise OSError at the end of a body that was cut short."""
        while self._pieces:
            piece = self._pieces.pop(0)
            if len(piece) > size:
                self._pieces.insert(0, piece[size:])
            if piece:
                return piece[:size]
        if self.is_cut:
            raise ConnectionResetError("The client disconnected before the body was complete.")
        return b""


def environ_of(scope: Scope, body: Input) -> Environ:
    """Return the WSGI environment (PEP 3333) of a request."""
    host, port = scope.get("server") or ("localhost", None)
    address, peer_port = scope.get("client") or ("", 0)
    root, path, raw = _paths(scope)
    query = bytes(scope.get("query_string", b"")).decode("latin-1")
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": root,
        "PATH_INFO": path,
        "RAW_URI": raw + ("?" + query if query else ""),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or ""),
        "REMOTE_ADDR": address,
        "REMOTE_PORT": str(peer_port),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        servers.ASGI: True,
    }
    for name, value in scope["headers"]:
        _add_header(environ, bytes(name).decode("latin-1"), bytes(value).decode("latin-1"))
    return environ


def path_of(scope: Scope) -> str:
    """Return the PATH_INFO of a request."""
    return _paths(scope)[1]


def _add_header(environ: Environ, name: str, value: str) -> None:
    # "X_A" and "X-A" would be the same variable, so one who may not send one of them could send the other.
    if "_" in name:
        return
    key = name.upper().replace("-", "_")
    if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = "HTTP_" + key
    if key in environ:
        separator = "; " if key == "HTTP_COOKIE" else ","
        value = environ[key] + separator + value
    environ[key] = value


def _paths(scope: Scope) -> tuple[str, str, str]:
    """
    Return SCRIPT_NAME, PATH_INFO and the path as it was sent, or "" where it is unknown.

    ``path`` has lost bytes that are not UTF-8, so it is decoded again from ``raw_path``, unless middleware changed it.
    By the specification it begins with ``root_path``, but some servers cut that off.
    """
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    sent = bytes(scope.get("raw_path") or b"").partition(b"?")[0]
    raw = ""
    latin_path, latin_root = _latin(path), _latin(root)
    decoded = unquote_to_bytes(sent)
    if decoded and decoded.decode(errors="replace") in (path, root + path):
        latin_path, raw = decoded.decode("latin-1"), sent.decode("latin-1")
    if latin_root and (latin_path == latin_root or latin_path.startswith(latin_root + "/")):
        latin_path = latin_path[len(latin_root) :]
    return latin_root, latin_path, raw


def _latin(text: str) -> str:
    """Return *text* as WSGI has it: its bytes in UTF-8, each as one character."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")
