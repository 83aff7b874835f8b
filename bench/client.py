"""What a stranger sends over HTTP."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit


def post(url: str, body: bytes) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    return _ask("POST", url, body, {"Content-Type": "application/json"})


def get(url: str) -> tuple[int, bytes]:
    """The same without a body."""
    return _ask("GET", url, None, {})


def is_up(port: int) -> bool:
    """Whether the web process answers."""
    try:
        return get(f"http://127.0.0.1:{port}/")[0] > 0
    except OSError:
        return False


def _ask(method: str, url: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    try:
        connection.request(method, parts.path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
