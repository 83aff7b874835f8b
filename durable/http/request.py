"""``Request``: a request that a webhook received."""

from __future__ import annotations

import codecs
import io
import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from werkzeug import wrappers
from werkzeug.datastructures import FileStorage, Headers, ImmutableMultiDict, MultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.formparser import FormDataParser

from .. import current, duration
from ..errors import BadRequestBody, BodyNotLoaded
from ..sandbox import guards
from . import coding
from .headers import FrozenHeaders, read_head, write_head
from .response import Response

if TYPE_CHECKING:
    from pydantic_core import core_schema

_MISSING: Any = object()

#: Codecs that a sender may not choose: they take quadratic time, or decode Python's own escapes.
_NO_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})


@dataclass(frozen=True)
class Request:
    """
    A request that a webhook received.

    ``url`` and ``data`` are exactly what was sent.  ``args``, ``form``, ``files``, ``headers`` and ``cookies`` are
    immutable dictionaries of Werkzeug.  You can create one in a test: it has no ``id``, and no sender waits for the
    answer.

    Attributes:
        id: Its id in the store, None if you created it.
        remote_addr: The sender's address, as the server saw it.
        received_at: When it was received, by the database's clock, as an aware datetime.
    """

    method: str = "POST"
    url: str = "http://localhost/"
    headers: Headers = field(default_factory=FrozenHeaders)
    #: No default in the class: reading a body that was not loaded then reaches ``__getattr__``, which raises.
    data: bytes = field(default_factory=bytes)
    id: str | None = field(default=None, kw_only=True)
    remote_addr: str | None = field(default=None, kw_only=True)
    received_at: datetime | None = field(default=None, kw_only=True)
    #: Whether it came from the store, so that the log needs only its id.
    recorded: bool = field(default=False, init=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes, not {type(self.data).__name__}: encode it first.")
        if self.received_at is not None:
            duration.from_datetime(self.received_at)
        object.__setattr__(self, "data", bytes(self.data))
        object.__setattr__(self, "headers", FrozenHeaders(self.headers))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        """For annotations: pydantic checks the type, not the fields."""
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(cls)

    def __repr__(self) -> str:
        """Without the URL, which has the token, and the headers, which have credentials."""
        return f"<Request {self.id or '(no id)'} {self.method} {self.size} bytes>"

    if not TYPE_CHECKING:  # else type checkers would accept any misspelt attribute

        def __getattr__(self, name: str) -> Any:
            """Raise BodyNotLoaded for the ``data`` of a request without its body."""
            unloaded: tuple[int, int] | None = self.__dict__.get("_unloaded")
            if name == "data" and unloaded is not None:
                raise BodyNotLoaded(self.id, *unloaded)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    @property
    def size(self) -> int:
        """How many bytes the body has, also if it is not loaded."""
        unloaded: tuple[int, int] | None = self.__dict__.get("_unloaded")
        return len(self.data) if unloaded is None else unloaded[0]

    @property
    def is_loaded(self) -> bool:
        """False for a large body in a workflow, where reading it raises BodyNotLoaded.  A step can read it."""
        return "_unloaded" not in self.__dict__

    @property
    def path(self) -> str:
        """The path of the URL, percent-decoded as in Flask."""
        return unquote(_target(self.url)[0]) or "/"

    @property
    def content_type(self) -> str | None:
        """The header ``Content-Type``, with its parameters."""
        return self.headers.get("Content-Type")

    @cached_property
    def args(self) -> MultiDict[str, str]:
        """The parameters of the query string."""
        return self._parsed().args

    @cached_property
    def cookies(self) -> ImmutableMultiDict[str, str]:
        """The cookies of the header ``Cookie``."""
        return self._parsed().cookies

    @cached_property
    def form(self) -> ImmutableMultiDict[str, str]:
        """
        The fields of a form.  Empty if the body is empty, or its content type is not that of a form.

        Bytes that are not UTF-8 are replaced by U+FFFD.  A byte order mark before the first field is left out.

        Raises:
            BadRequestBody: If a multipart body is cut off or malformed, or has more parts or larger
                fields than Werkzeug allows.
        """
        fields: ImmutableMultiDict[str, str] = self._form()[0]
        return fields

    @property
    def files(self) -> ImmutableMultiDict[str, FileStorage]:
        """The files of a multipart form, opened again each time you read this attribute.  Raises as ``form``."""
        files: ImmutableMultiDict[str, FileStorage] = self._form()[1]
        return files

    def text(self) -> str:
        """The body, decoded from its declared charset or UTF-8; U+FFFD replaces what cannot be decoded."""
        declared = self._parsed().mimetype_params.get("charset", "")
        # An unknown codec, or one from bytes to bytes, such as base64.
        with suppress(LookupError, ValueError):
            codec = codecs.lookup(declared).name
            if codec not in _NO_CHARSETS:
                return self.data.decode(codec, "replace")
        return self.data.decode("utf-8", "replace")

    def decoded_data(self, max_size: int = 10 * 1024 * 1024) -> bytes:
        """
        The body, decompressed if its ``Content-Encoding`` is gzip or deflate.

        Args:
            max_size: The most bytes of the result, 10 MiB by default.  A small body can decompress to gigabytes.

        Raises:
            BadRequestBody: If the result is larger, the body is malformed, or its coding is not supported.
        """
        if max_size < 0:
            raise ValueError(f"max_size {max_size} is not a number of bytes.")
        name = coding.coding_of(self.headers.getlist("Content-Encoding"))
        return self.data if name is None else coding.decode(self.data, name, max_size)

    def json(self, default: Any = _MISSING) -> Any:
        """
        The body as JSON, whatever its content type says; a new object at each call.

        The body is read as it was sent.  For a compressed one, call ``json.loads(request.decoded_data())``.

        Args:
            default: What to return if the body is not JSON.

        Raises:
            BadRequestBody: If it is not JSON, and there is no default.
        """
        try:
            return json.loads(self.data)
        except (ValueError, RecursionError) as error:
            if default is not _MISSING:
                return default
            name = coding.coding_of(self.headers.getlist("Content-Encoding"))
            if name is not None:
                fix = "Call json.loads(request.decoded_data())"
                if not coding.is_known(name):
                    fix = "Decompress request.data with a library for this coding, and limit the size of the result"
                raise BadRequestBody(
                    f"The body ({len(self.data)} bytes) is compressed: its Content-Encoding is {name[:100]!r}.  {fix}."
                ) from error
            why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise BadRequestBody(
                f"The body ({len(self.data)} bytes, {self.content_type or 'without a content type'}) is not JSON:"
                f" {why}.  Pass json(default=...) to accept such requests."
            ) from error

    def respond_with(self, response: object) -> bool:
        """
        Answer the sender, who waits for the response.  Call it in a step.

        The first answer wins.  For a request without an id, which you created in a test, the response is only
        checked, and the result is True.

        Args:
            response: A ``Response``, or what a Flask view may return.

        Returns:
            False if the request has an answer already, or this attempt no longer counts.

        Raises:
            NonDeterministicCall: If you call it in a workflow body.
            TypeError, ValueError: If the response cannot be sent; nothing is recorded.
        """
        guards.refuse_in_workflow("request.respond_with", "call it in a step")
        answer = Response.coerce(response).checked()
        if self.id is None:
            return True
        step = current.running_step.get()
        if step is not None:
            return step.respond(self.id, answer)
        return bool(current.current_engine().respond(self.id, answer))

    def head_json(self) -> str:
        """Everything but the body, as ASCII text for the store."""
        received = None if self.received_at is None else duration.from_datetime(self.received_at)
        return write_head(
            id=self.id,
            method=self.method,
            url=self.url,
            headers=list(self.headers),
            remote_addr=self.remote_addr,
            received_at=received,
        )

    @classmethod
    def from_head(cls, head: str, body: bytes) -> Request:
        """The request that the store has as ``head_json`` and body."""
        fields = read_head(head, "request")
        if fields["received_at"] is not None:
            fields["received_at"] = duration.to_datetime(fields["received_at"])
        request = cls(data=body, **fields)
        object.__setattr__(request, "recorded", True)
        return request

    @classmethod
    def without_body(cls, head: str, size: int, limit: int) -> Request:
        """The request without its body, of which *size* bytes exceed the *limit*: reading it raises BodyNotLoaded."""
        request = cls.from_head(head, b"")
        object.__delattr__(request, "data")
        object.__setattr__(request, "_unloaded", (size, limit))
        return request

    def _parsed(self, body: bytes = b"") -> _Parsed:
        """Werkzeug's request; with a *body* for what reads it."""
        return _Parsed(
            {
                "REQUEST_METHOD": self.method,
                "QUERY_STRING": _target(self.url)[1],
                "CONTENT_TYPE": self.content_type or "",
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_COOKIE": "; ".join(self.headers.getlist("Cookie")),
                "wsgi.input": io.BytesIO(body),
            }
        )

    def _form(self) -> tuple[Any, Any]:
        parsed = self._parsed(self.data)
        if parsed.mimetype == "application/x-www-form-urlencoded":
            # Werkzeug drops the whole form for one byte that is not UTF-8, and adds a byte order mark to the first key.
            parsed = self._parsed(self.data.decode("utf-8-sig", "replace").encode())
        try:
            return parsed.form, parsed.files
        except HTTPException as error:
            raise BadRequestBody(
                f"The body ({len(self.data)} bytes) is too large for a form: it may have {parsed.max_form_parts} parts"
                f" and {parsed.max_form_memory_size} bytes of fields.  Read request.data instead."
            ) from error
        except ValueError as error:
            raise BadRequestBody(
                f"The body ({len(self.data)} bytes, {self.content_type}) cannot be read as a form: it is cut off, or"
                " the boundary or the head of a part is malformed.  Read request.data instead."
            ) from error


class _Parsed(wrappers.Request):
    """Werkzeug's request.  It keeps files in memory, because the body is in memory already."""

    def make_form_data_parser(self) -> FormDataParser:
        """A parser that raises for a malformed body, unless it is empty.  Werkzeug's default drops the fields."""
        parser = super().make_form_data_parser()
        parser.silent = not self.content_length
        return parser

    def _get_file_stream(self, *_args: Any, **_kwargs: Any) -> io.BytesIO:
        return io.BytesIO()


def _target(url: str) -> tuple[str, str]:
    """Path and query string as sent, in ASCII.  Not by ``urlsplit``, which rejects and changes some URLs."""
    ascii_url = re.sub(r"[^\x00-\x7f]+", lambda found: quote(found[0], errors="replace"), url)
    before_query, _, query = ascii_url.partition("#")[0].partition("?")
    path = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/]*", "", before_query)
    return path, query
