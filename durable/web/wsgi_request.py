"""Read a WSGI request as its sender wrote it: what it names, its URL, and whether its framing is clear."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from werkzeug.wrappers import Request

#: The path of the blueprint, below ``public_url``; and those of its webhooks and receivers.
ROOT = "/.well-known/workflow/v1/"
PATH = ROOT + "webhook/"
RECEIVE = ROOT + "receive/"

# Used with fullmatch, since $ also matches before a trailing newline.
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
_REQUEST = r"(?:/requests/([A-Za-z0-9_-]{20,64}))?/?"
_TARGET = re.compile(r"([A-Za-z0-9_-]{20,128})" + _REQUEST)
_RECEIVER = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})" + _REQUEST)


class Target(NamedTuple):
    """What a path names: a webhook, or one request to it."""

    token: str
    request_id: str | None

    @property
    def path(self) -> str:
        """The path of the webhook."""
        return PATH + self.token


class ReceiverTarget(NamedTuple):
    """What a path names: a receiver, or one request to it."""

    name: str
    request_id: str | None

    @property
    def path(self) -> str:
        """The path of the receiver."""
        return RECEIVE + self.name


def parse_target(rest: str) -> Target | None:
    """Parse the part of the path after ``PATH``, with or without a slash at the end; None if it names nothing."""
    match = _TARGET.fullmatch(rest)
    return Target(match[1], match[2]) if match else None


def parse_receiver(rest: str) -> ReceiverTarget | None:
    """Parse the part of the path after ``RECEIVE``, as ``parse_target`` does."""
    match = _RECEIVER.fullmatch(rest)
    return ReceiverTarget(match[1], match[2]) if match else None


def exact_url(environ: Mapping[str, Any]) -> str:
    """
    Return the URL as it was sent.  Unlike ``request.url`` it keeps ``%2F``, ``%7e`` and ``//``.

    Some servers (granian, hypercorn, gevent's pywsgi) give only the decoded path; it is encoded again.
    """
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    if not target.startswith("/"):
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        query = environ.get("QUERY_STRING", "")
        target = quote(path.encode("latin-1"), safe="/:@!$&'()*+,;=~") + ("?" + query if query else "")
    return f"{environ['wsgi.url_scheme']}://{environ.get('HTTP_HOST') or environ['SERVER_NAME']}{target}"


def base_of(public_url: str | None, request: Request) -> str:
    """Return the URL before ``ROOT``: ``public_url``, else a relative one.  The Host header is never used."""
    return public_url if public_url is not None else request.root_path.rstrip("/") + request.path.partition(ROOT)[0]


def is_framed(environ: Mapping[str, Any]) -> bool:
    """
    Return whether the headers say in exactly one way where the body ends.

    Most servers refuse an ambiguous request themselves.  A server that accepts it may read it differently than the
    proxy before it: gevent's pywsgi ignores any transfer coding but ``chunked``, and accepts ``+3`` and ``0_3`` as
    lengths; waitress does not read the chunks of an HTTP/1.0 request; hypercorn takes an HTTP/0.9 request that has
    headers, although it cannot answer it.
    """
    if environ.get("SERVER_PROTOCOL") == "HTTP/0.9":
        return False
    length = environ.get("CONTENT_LENGTH")
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is not None:
        if coding.lower() != "chunked" or environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
            return False
        # A gateway that joined the chunks may keep this header and add the length, but then it delivers no chunks.
        if length and environ.get("wsgi.input_terminated"):
            return False
    return _LENGTH.fullmatch(length or "0") is not None
