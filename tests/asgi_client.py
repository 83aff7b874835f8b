"""A test client for ASGI applications, which is used as Flask's is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, MutableMapping
from functools import cache
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from werkzeug.test import Client

Scope = MutableMapping[str, Any]


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of all clients of this process, on a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="asgi-client", daemon=True).start()
    return loop


def client_of(app: Callable[..., Any]) -> Client:
    """Return a client of an ASGI application; the application runs in an event loop, and the caller waits."""
    return Client(AsWsgi(app))


class AsWsgi:
    """An ASGI application as a WSGI application: what a server receives by WSGI, it gets by ASGI."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        exchange = Exchange(environ)
        asyncio.run_coroutine_threadsafe(exchange.run(self.app), _loop()).result(60)
        status = HTTPStatus(exchange.status)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in exchange.headers]
        start_response(f"{status.value} {status.phrase}", headers)
        return [exchange.body]


class Exchange:
    """One request, whose body arrives in two pieces, and its answer."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.scope = scope_of(environ)
        sent = environ["wsgi.input"].read()
        middle = len(sent) // 2
        self._pieces = [sent[:middle], sent[middle:]]
        length = environ.get("CONTENT_LENGTH") or ""
        self._is_cut = length.isdigit() and int(length) > len(sent)
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    async def run(self, app: Callable[..., Any]) -> None:
        await app(self.scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if self._pieces:
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces) or self._is_cut}
        if not self._is_cut:
            # The client stays until it has its answer.
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], message["headers"]
        elif self.scope["method"] != "HEAD":
            self.body += message["body"]


def scope_of(environ: dict[str, Any]) -> Scope:
    """Return the scope of a request that a test describes by WSGI's variables."""
    raw_path = environ["REQUEST_URI"].partition("?")[0]
    headers = [
        (name.removeprefix("HTTP_").replace("_", "-").lower().encode(), str(value).encode("latin-1"))
        for name, value in environ.items()
        if name.startswith("HTTP_") or (name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value)
    ]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": environ["SERVER_PROTOCOL"].removeprefix("HTTP/"),
        "method": environ["REQUEST_METHOD"],
        "scheme": environ["wsgi.url_scheme"],
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": environ["QUERY_STRING"].encode("latin-1"),
        "root_path": environ.get("SCRIPT_NAME", ""),
        "headers": headers,
        "client": (environ.get("REMOTE_ADDR", "127.0.0.1"), 50_000),
        "server": (environ["SERVER_NAME"], int(environ["SERVER_PORT"])),
    }
