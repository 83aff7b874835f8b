"""
The body of a request, byte for byte as it was sent.

``wsgi.input`` can be read once, and a ``before_request`` of the application may read it before the blueprint's view.
So ``KeepBodies`` wraps the application and replaces ``wsgi.input`` by a ``Body``.  It keeps a copy of what the
application reads, so ``Body.take`` still returns the whole body.

Werkzeug's ``Request.get_data`` is not used.  It cuts a chunked body at the limit without an error, returns an empty
body if the server cannot deliver chunks, and takes a body that gunicorn cut short for a complete one.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable
from typing import Any

import flask
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.wrappers import Request
from werkzeug.wsgi import get_content_length

from . import problems, servers
from .problems import RequestRefused
from .wsgi_request import ROOT

log = logging.getLogger("durable.web")

Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]

#: At most so many bytes are kept of what the application reads.
KEPT = 32 * 1024 * 1024

#: At most so many bytes are read of a body that is refused.
DISCARDED = 2 * 1024 * 1024

_PIECE = 64 * 1024
_BODY = "durable.body"


class KeepBodies:
    """
    WSGI middleware that keeps bodies, so that the blueprint can read what the application has already read.

    Args:
        prefix: The path of the blueprint.  Requests to other paths are not changed.
    """

    def __init__(self, application: Application, prefix: str) -> None:
        self._application = application
        self._prefix = prefix.encode().decode("latin-1")

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        # Werkzeug looks for a rule by the same spelling of the path.
        path = "/" + environ.get("PATH_INFO", "").lstrip("/")
        if path.startswith(self._prefix):
            environ["wsgi.input"] = Body.of(environ)
        return self._application(environ, start_response)


class Body(io.RawIOBase):
    """The body of one request, as an input stream that keeps what is read from it."""

    def __init__(self, environ: Environ) -> None:
        self.raw = environ["wsgi.input"]
        self.declared = get_content_length(environ)
        self.is_terminated = bool(environ.get("wsgi.input_terminated"))
        self.is_chunked = "HTTP_TRANSFER_ENCODING" in environ
        #: Whether WSGI middleware read bytes of the input before this.
        self.input_state = servers.rewind_input(environ)
        self._kept: list[bytes] = []
        #: How many bytes were read from the input, and how many of them are kept.
        self._position = self._size = 0
        self._is_at_end = self.declared is None and not self.is_terminated
        self._error: Exception | None = None

    @classmethod
    def of(cls, environ: Environ) -> Body:
        """Return the body of this request, always the same object."""
        if _BODY not in environ:
            environ[_BODY] = cls(environ)
        body: Body = environ[_BODY]
        return body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read for the application and keep the bytes; raise Werkzeug's error for a body that is not complete."""
        try:
            piece = self._next(len(buffer))
        except Exception as error:
            raise ClientDisconnected from error
        if self._position > KEPT:
            self._kept.clear()
            self._size = 0
        else:
            self._kept.append(piece)
            self._size += len(piece)
        buffer[: len(piece)] = piece
        return len(piece)

    def take(self, limit: int) -> bytes:
        """
        Return the whole body, and keep no copy of it.

        Raises:
            RequestRefused: The body cannot be read as it was sent, or it has more than *limit* bytes.
        """
        if self.is_chunked and self.declared is None and not self.is_terminated:
            raise RequestRefused(problems.no_length())
        if self.declared is not None and self.declared > limit:
            raise RequestRefused(problems.too_large(limit))
        if self.input_state is servers.InputState.READ:
            log.error(
                "A request was answered 503 and not recorded: WSGI middleware around the Flask application read its"
                " body from wsgi.input, and it cannot be read again.  %s",
                _FIX,
            )
            raise RequestRefused(problems.already_read())
        try:
            while self._position <= limit and (piece := self._next(min(_PIECE, limit + 1 - self._position))):
                self._kept.append(piece)
                self._size += len(piece)
        except Exception:
            # The server found wrong framing.  Gunicorn's error is not an OSError.
            raise RequestRefused(problems.bad_body(_CUT)) from None
        if self._position > limit:
            raise RequestRefused(problems.too_large(limit))
        if self.declared is not None and self._position < self.declared:
            if self.input_state is servers.InputState.UNKNOWN:
                log.warning(
                    "A request was answered 400: its body ended after %d of %d bytes.  Its sender disconnected; or, if"
                    " this happens to every request, WSGI middleware around the Flask application reads wsgi.input."
                    "  %s",
                    self._position,
                    self.declared,
                    _FIX,
                )
            raise RequestRefused(problems.bad_body(f"The body ended after {self._position} of {self.declared} bytes."))
        if self._size < self._position:
            log.error(
                "A request was answered 503 and not recorded: the application read its body of %d bytes before the"
                " blueprint, which keeps at most %d bytes.  Let before_request skip the endpoints durable.*.",
                self._position,
                KEPT,
            )
            raise RequestRefused(problems.already_read())
        body = b"".join(self._kept)
        self._kept.clear()
        return body

    def discard(self) -> None:
        """
        Read the rest of the body, up to ``DISCARDED`` bytes, and drop it.

        Call it before a refusal: a server that closes a connection with unread bytes resets it, and then
        the sender may never see the answer.
        """
        self._kept.clear()
        left = DISCARDED
        try:
            while left > 0 and (piece := self._next(min(left, _PIECE))):
                left -= len(piece)
        except Exception:
            # The rest is dropped anyway.
            return

    def _next(self, size: int) -> bytes:
        """Return up to *size* more bytes, b"" at the end.  After an error, every further read raises it again."""
        if self._error is not None:
            raise self._error
        if self.declared is not None:
            size = min(size, self.declared - self._position)
        if self._is_at_end or size <= 0:
            return b""
        try:
            piece: bytes = self.raw.read(size)
        except Exception as error:
            self._error = error
            raise
        self._position += len(piece)
        self._is_at_end = not piece
        return piece


_CUT = "The body ended early, or is framed wrongly."
_FIX = (
    f"Let the middleware skip paths below {ROOT}, or put a copy back with environ['wsgi.input'] = io.BytesIO(body); or"
    " register the blueprint after app.wsgi_app is wrapped."
)


def read(request: Request, limit: int) -> bytes:
    """Return the body as it was sent, of at most *limit* bytes, and keep no copy; raise RequestRefused if it cannot."""
    return Body.of(request.environ).take(limit)


def discard(request: Request) -> None:
    """Read and drop the rest of the body; call it before a refusal is answered."""
    Body.of(request.environ).discard()


def raise_limits(request: flask.Request, limit: int) -> None:
    """
    Let the application read a body of *limit* bytes, even if its MAX_CONTENT_LENGTH is lower.

    Without this, a ``before_request`` that reads the body would refuse a body that the webhook accepts.
    """
    # One more byte: Werkzeug refuses a chunked body of exactly the limit before it reads its end.
    if request.max_content_length is not None:
        request.max_content_length = max(request.max_content_length, limit + 1)
    if request.max_form_memory_size is not None:
        request.max_form_memory_size = max(request.max_form_memory_size, limit + 1)


def refused_by_application(_error: RequestEntityTooLarge) -> flask.Response:
    """Answer a request for which a ``before_request`` of the application raised 413, and log its limits."""
    request = flask.request
    log.warning(
        "The application answered 413 to a request below %s, before the blueprint's view.  Its MAX_CONTENT_LENGTH is"
        " %s, its MAX_FORM_MEMORY_SIZE %s, its MAX_FORM_PARTS %s.  Raise the limit, or let before_request skip the"
        " endpoints durable.*.",
        ROOT,
        request.max_content_length,
        request.max_form_memory_size,
        request.max_form_parts,
    )
    discard(request)
    return problems.to_flask(problems.too_large_for_application(request.max_content_length))


def cut_in_application(_error: ClientDisconnected) -> flask.Response:
    """Answer a request for which a ``before_request`` of the application read a body that is not complete."""
    discard(flask.request)
    return problems.to_flask(problems.bad_body(_CUT))
