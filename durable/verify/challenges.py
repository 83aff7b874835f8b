"""Answers to handshakes."""

from __future__ import annotations

from ..http import Response

#: What a stranger wrote is sent back: it must not be taken for a page.
_AS_TEXT = [("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]


def echo(text: str) -> Response:
    """*text* as plain text."""
    return Response(text, 200, [*_AS_TEXT, ("Cache-Control", "no-store")])


def forbidden() -> Response:
    """A handshake that does not know what it would have to."""
    return Response("", 403, [("Cache-Control", "no-store")])
