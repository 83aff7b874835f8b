"""
How a request is handled on any server: by a flow, a generator that yields before it waits for something slow.

A flow's code is blocking code: SQL, and reads of the body.  What it yields says what it waits for next::

    yield ReadBody(limit)       # then it reads the body, up to so many bytes
    yield Hold(waiter, secs)    # then it waits for the answer

A flow that holds is kept for as long: before it yields ``Hold`` it forgets what it does not need any more.

A WSGI server gives each request a thread, so there the caller just continues, and the thread waits.  The ASGI
application waits in its event loop, without a thread, and continues the flow when nothing is left to wait for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import flask
from werkzeug.wrappers import Request

from .. import measures
from ..http import Response
from .hub import Holder
from .waiters import Waiter

T = TypeVar("T")

log = logging.getLogger("durable.web")


@dataclass(frozen=True, slots=True)
class ReadBody:
    """The body is read next, up to *limit* bytes."""

    limit: int


@dataclass(frozen=True, slots=True)
class DropBody:
    """The rest of the body is read and dropped next."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The waiter is waited for next, for up to *secs* seconds; of the request only its method is needed afterwards."""

    waiter: Waiter
    secs: float
    began: int = field(default_factory=time.monotonic_ns)

    def end(self, measured: measures.Measures) -> Response | None:
        """Wait for the answer, unless that was done; None when there is none in time."""
        answer = self.waiter.wait(self.secs)
        outcome = "unanswered" if answer is None else "answered"
        measured.observe(measures.HOLD_SECONDS, (time.monotonic_ns() - self.began) // 1000, outcome)
        return answer


Flow = Generator[ReadBody | DropBody | Hold, None, T]


class Holding(Protocol):
    """What the control routes need to hold a connection; the webhook view has it."""

    def hub(self) -> Holder:
        """Return the hub of this process."""

    def open_waiter(self, hub: Holder, incoming: Request, request_id: str | None) -> Waiter | None:
        """Return a waiter for the answer; None if this process cannot hold the connection."""


def run_in_thread(flow: Flow[T]) -> T:
    """Run a flow in a request of Flask.  This thread waits, and meanwhile the application keeps no connection."""
    while True:
        try:
            wait = next(flow)
        except StopIteration as end:
            result: T = end.value
            return result
        if isinstance(wait, Hold):
            _release_session()


def _release_session() -> None:
    """Release the database connection that a ``before_request`` may have taken through Flask-SQLAlchemy."""
    session = getattr(flask.current_app.extensions.get("sqlalchemy"), "session", None)
    if session is None or not session.registry.has() or session.new or session.dirty or session.deleted:
        return
    try:
        session.remove()
    except Exception as error:
        # The request is recorded, and this session belongs to the application.
        log.warning("The application's SQLAlchemy session could not be closed: %s", type(error).__name__)
