"""A WSGI request as its sender wrote it: the address looked for, the URL, and whether its framing is clear."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import flask

#: Where the blueprint listens, below ``public_url``; and where it takes webhooks.
ROOT = "/.well-known/workflow/v1/"
PATH = ROOT + "webhook/"

# fullmatch, since $ lets a trailing newline through.
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
_TARGET = re.compile(r"([A-Za-z0-9_-]{20,128})(?:/requests/([A-Za-z0-9_-]{20,64}))?/?")


class Target(NamedTuple):
    """What an address names: a webhook, or one request that it was sent."""

    token: str
    request_id: str | None


def parse_target(rest: str) -> Target | None:
    """The part of the path after ``PATH``, with or without a slash at its end; None where no webhook can be."""
    match = _TARGET.fullmatch(rest)
    return Target(match[1], match[2]) if match else None


def exact_url(environ: Mapping[str, Any]) -> str:
    """
    The URL as it was sent: ``%2F``, ``%7e`` and ``//`` as they were, which ``request.url`` is not.

    A server that does not hand the request line on (granian, hypercorn,
    gevent's pywsgi) leaves only its decoded path, which is encoded again.
    """
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    if not target.startswith("/"):
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        query = environ.get("QUERY_STRING", "")
        target = quote(path.encode("latin-1"), safe="/:@!$&'()*+,;=~") + ("?" + query if query else "")
    return f"{environ['wsgi.url_scheme']}://{environ.get('HTTP_HOST') or environ['SERVER_NAME']}{target}"


def base_of(public_url: str | None, request: flask.Request) -> str:
    """What stands before ``ROOT``: ``public_url``, else relative, never by the Host header."""
    return public_url if public_url is not None else request.root_path.rstrip("/") + request.path.partition(ROOT)[0]


def is_framed(environ: Mapping[str, Any]) -> bool:
    """
    Whether the request says in one way only where its body ends.

    Most servers refuse one that does not themselves.  Those that let it through may have read it otherwise than the
    proxy before them: gevent's pywsgi takes any coding but ``chunked`` for none, and ``+3`` and ``0_3`` for lengths;
    waitress does not read the chunks of an HTTP/1.0 request.
    """
    length = environ.get("CONTENT_LENGTH")
    if "HTTP_TRANSFER_ENCODING" in environ and not _is_chunked(environ, length):
        return False
    return _LENGTH.fullmatch(length or "0") is not None


def _is_chunked(environ: Mapping[str, Any], length: str | None) -> bool:
    if environ["HTTP_TRANSFER_ENCODING"].lower() != "chunked" or environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        return False
    # A gateway that has put the chunks together may hand the header on beside the length that it found.
    return not (length and environ.get("wsgi.input_terminated"))
