"""
Headers that cannot change, what they may hold on the wire, and heads as text.

What servers make of a bad header ranges from a 500 to response splitting, and
Werkzeug looks only for line ends in values.  So names and values are checked
here, before anything is recorded (RFC 9110 §5).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from werkzeug.datastructures import Headers, ImmutableHeadersMixin

from ..errors import SerializationError

#: What a header argument may be: pairs, a mapping (also of lists), or Werkzeug's Headers.
HeadersLike = Headers | Mapping[str, Any] | Iterable[tuple[str, Any]]

MAX_HEADERS = 100
MAX_HEADERS_SIZE = 16 * 1024

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

#: Of one connection, not of the message (RFC 9110 §7.6.1), or the server's to say.
_DROPPED = re.compile(
    "connection|keep-alive|proxy-authenticate|proxy-authorization|proxy-connection|te|trailer"
    "|transfer-encoding|upgrade|content-length|date|server",
    re.IGNORECASE,
)

#: What proves who sends: not to be shown.
_SECRET = re.compile(
    "authorization|proxy-authorization|cookie|set-cookie|.*signature.*|.*hmac.*|.*secret.*|.*api-?key|.*-token",
    re.IGNORECASE,
)

_VERSION = 1


class FrozenHeaders(ImmutableHeadersMixin, Headers):  # type: ignore[misc]  # as Werkzeug's own
    """Headers that cannot be changed; equal when names (in any case) and values are, in order."""

    def __init__(self, headers: HeadersLike | None = None) -> None:
        super().__init__()
        for name, value in Headers(cast(Any, headers)):
            Headers.add(self, name, value)

    def copy(self) -> Headers:  # type: ignore[override]
        """A copy that can be changed."""
        return Headers(list(self))

    def __repr__(self) -> str:
        """For people and logs: without the values that prove who sends."""
        shown = [(name, "..." if is_secret(name) else value) for name, value in self]
        return f"{type(self).__name__}({shown!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and _lowered(self) == _lowered(other)

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(_lowered(self))


def is_secret(name: str) -> bool:
    """Whether a header's value must not be shown: credentials, cookies, signatures."""
    return _SECRET.fullmatch(name) is not None


def wire_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """
    The headers as every WSGI server sends them; those of the connection left out.

    Raises:
        ValueError: For a name or value that a server would refuse or repair, and for too many.
    """
    kept = []
    for name, value in headers:
        _check(name, value)
        if not _DROPPED.fullmatch(name):
            kept.append((name, value))
    size = sum(len(name) + len(value) for name, value in kept)
    if len(kept) > MAX_HEADERS or size > MAX_HEADERS_SIZE:
        raise ValueError(
            f"The response has {len(kept)} headers of {size} bytes in all; it may have"
            f" {MAX_HEADERS} of {MAX_HEADERS_SIZE}.  Put data into the body."
        )
    return kept


def _check(name: object, value: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a header name: it may hold letters, digits and !#$%&'*+-.^_`|~ only.")
    if _CONTROL.search(value) or value != value.strip(" \t"):
        raise ValueError(f"The value of header {name!r}, {value!r}, has a control character or outer blanks.")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(
            f"The value of header {name!r}, {value!r}, has characters outside Latin-1: percent-encode them."
        ) from None


def write_head(**fields: object) -> str:
    """A head as ASCII text, with the version of its form."""
    return json.dumps({"v": _VERSION, **fields}, separators=(",", ":"))


def read_head(text: str, what: str) -> dict[str, Any]:
    """The fields that ``write_head`` wrote, headers frozen."""
    fields: dict[str, Any] = json.loads(text)
    version = fields.pop("v", None)
    if version != _VERSION:
        raise SerializationError(
            what, f"its head has version {version!r}, this code reads {_VERSION}: update durable-celery here."
        )
    fields["headers"] = FrozenHeaders([(name, value) for name, value in fields["headers"]])
    return fields


def _lowered(headers: Headers) -> tuple[tuple[str, str], ...]:
    return tuple((name.lower(), value) for name, value in headers)
