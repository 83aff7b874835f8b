"""
``Response``: the answer to a webhook request; which responses may be sent.

``Response`` accepts anything of the right types.  ``checked`` accepts only what every WSGI server sends without changes
(RFC 9110 §15).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from werkzeug import wrappers
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.urls import iri_to_uri

from .headers import FrozenHeaders, HeadersLike, read_head, wire_headers, write_head

if TYPE_CHECKING:
    from pydantic_core import core_schema

#: The most bytes of a body.  The database keeps it.
MAX_BODY = 1024 * 1024

_TEXT = "text/plain; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_WITHOUT_BODY = (204, 205, 304)
_STATUS_LINE = re.compile(r"([0-9]{3})(?: [\x20-\x7e]*)?")


@dataclass(frozen=True, init=False)
class Response:
    """
    A complete answer; it is never streamed.

    Args:
        body: bytes, or a str that is sent as UTF-8.
        content_type: Replaces the header ``Content-Type``.  Without either, a str is ``text/plain`` and
            bytes are ``application/octet-stream``.
    """

    body: bytes
    status: int
    headers: Headers

    def __init__(
        self,
        body: bytes | bytearray | memoryview | str = b"",
        status: int = 200,
        headers: HeadersLike | None = None,
        content_type: str | None = None,
    ) -> None:
        if not isinstance(body, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"A body is bytes or str, not {type(body).__name__}.  For objects use Response.json().")
        given = Headers(cast(Any, headers))
        if content_type is not None:
            given["Content-Type"] = content_type
        elif body and "Content-Type" not in given:
            given["Content-Type"] = _TEXT if isinstance(body, str) else "application/octet-stream"
        object.__setattr__(self, "body", _encoded(body))
        object.__setattr__(self, "status", status)
        object.__setattr__(self, "headers", FrozenHeaders(given))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        """For annotations: pydantic checks the type, not the fields."""
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(cls)

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.content_type or '(no content type)'} {len(self.body)} bytes>"

    @property
    def data(self) -> bytes:
        """The body, under Werkzeug's name."""
        return self.body

    @property
    def content_type(self) -> str | None:
        """The header ``Content-Type``, with its parameters."""
        return self.headers.get("Content-Type")

    @classmethod
    def json(cls, obj: object, status: int = 200) -> Response:
        """A JSON response (RFC 8259: no NaN).  Dates, Decimal, UUID, Enum, dataclasses and models are converted."""
        try:
            text = json.dumps(obj, default=_plain, allow_nan=False, separators=(",", ":"))
        except RecursionError:
            raise ValueError("The response's object is nested too deeply for JSON.") from None
        return cls(text, status, content_type="application/json")

    @classmethod
    def text(cls, text: str, status: int = 200) -> Response:
        """A plain text response."""
        return cls(text, status, content_type=_TEXT)

    @classmethod
    def html(cls, html: str, status: int = 200) -> Response:
        """An HTML response."""
        return cls(html, status, content_type=_HTML)

    @classmethod
    def redirect(cls, url: str, status: int = 303) -> Response:
        """A redirect without a body.  With 303 the sender requests *url* by GET (RFC 9110 §15.4.4)."""
        if status not in (301, 302, 303, 307, 308):
            raise ValueError(f"{status!r} is not a redirect: use 303, or 307 to have the same request sent again.")
        return cls(b"", status, [("Location", iri_to_uri(url))])

    @classmethod
    def empty(cls, status: int = 204) -> Response:
        """A response without a body."""
        return cls(b"", status)

    @classmethod
    def coerce(cls, value: object) -> Response:
        """
        Turn anything that a Flask view may return into a Response, as Flask does.

        A str, bytes or an iterator becomes HTML; a dict or list becomes JSON; a tuple is ``(body, status, headers)``,
        ``(body, status)`` or ``(body, headers)``.  Files and generators are read to their end.

        Raises:
            TypeError: For anything else.
            ValueError: If the status is not a number, or the body exceeds the limit.
        """
        body: object = value
        status: Any = None
        headers: Any = None
        if isinstance(value, tuple):
            if len(value) == 3:
                body, status, headers = value
            elif len(value) == 2 and isinstance(value[1], (Headers, dict, tuple, list)):
                body, headers = value
            elif len(value) == 2:
                body, status = value
            else:
                raise TypeError(
                    f"A tuple of {len(value)} is not a response: use (body, status, headers), (body, status) or"
                    " (body, headers)."
                )
        answer = _from_body(body)
        if status is not None:
            answer = replace(answer, status=_code(status))
        if headers:
            merged = Headers(list(answer.headers))
            merged.update(headers)
            answer = replace(answer, headers=merged)
        return answer

    def checked(self) -> Response:
        """
        This response, without the headers that the server sets.

        Raises:
            ValueError: If a server would reject or change it, or sending it would do harm.
        """
        status = _code(self.status)
        if self.body and status in _WITHOUT_BODY:
            raise ValueError(f"A response with status {status} has no body, but this one has {len(self.body)} bytes.")
        _check_size(len(self.body))
        return replace(self, status=status, headers=Headers(wire_headers(self.headers)))

    def head_json(self) -> str:
        """Everything but the body, as ASCII text for the store."""
        return write_head(status=self.status, headers=list(self.headers))

    @classmethod
    def from_head(cls, head: str, body: bytes) -> Response:
        """The response that the store has as ``head_json`` and body."""
        values = read_head(head, "response")
        return cls(body, values["status"], values["headers"])


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    request_id: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
) -> Response:
    """
    An error response with problem details (RFC 9457), which caches may not store.

    Args:
        code: A stable code for programs, e.g. ``webhook-closed``; "" for none.
    """
    document: dict[str, object] = {
        "type": f"urn:durable:problem:{code}" if code else "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
    }
    if code:
        document["code"] = code
    if request_id is not None:
        document["request_id"] = request_id
    private = [("Cache-Control", "no-store"), ("Referrer-Policy", "no-referrer")]
    text = json.dumps(document, separators=(",", ":"))
    return Response(text, status, [*private, *headers], "application/problem+json")


def _from_body(body: object) -> Response:
    if isinstance(body, Response):
        return body
    if isinstance(body, HTTPException):
        body = body.get_response()
    if isinstance(body, wrappers.Response):
        with closing(body):
            return Response(_read(body.iter_encoded()), body.status_code, body.headers)
    if isinstance(body, (dict, list)):
        return Response.json(body)
    if isinstance(body, (str, bytes, bytearray)):
        return Response(body, content_type=_HTML)
    if isinstance(body, Iterator):
        with closing(cast(Any, body)) if hasattr(body, "close") else nullcontext():
            return Response(_read(body), content_type=_HTML)
    raise TypeError(
        f"{type(body).__name__} is not a response: use a Response, or what a Flask view may return"
        " (dict, list, str, bytes, a tuple of body, status and headers, a Flask response)."
    )


def _read(pieces: Iterable[str | bytes]) -> bytes:
    """A body that comes in pieces.  ValueError as soon as it is too large, because a generator may never end."""
    body = bytearray()
    for piece in pieces:
        body += _encoded(piece)
        _check_size(len(body))
    return bytes(body)


def _check_size(size: int) -> None:
    if size > MAX_BODY:
        raise ValueError(
            f"The response's body has {size} bytes or more; the limit is {MAX_BODY}."
            "  Redirect to the content, or answer in parts."
        )


def _encoded(body: str | bytes | bytearray | memoryview) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body)


def _code(status: object) -> int:
    """The status as a number.  A str has Flask's form, ``"404 NOT FOUND"``."""
    line = _STATUS_LINE.fullmatch(status) if isinstance(status, str) else None
    code = int(line[1]) if line else status
    if isinstance(code, bool) or not isinstance(code, int) or not 200 <= code <= 599:
        raise ValueError(f"{status!r} is not a final HTTP status: use an int from 200 to 599.")
    return int(code)


def _plain(value: object) -> object:
    """A value that ``json.dumps`` does not support, converted as Flask's JSON does; dates as ISO 8601."""
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    raise TypeError(f"A {type(value).__name__} has no JSON form: make it a dict, list, str or number first.")
