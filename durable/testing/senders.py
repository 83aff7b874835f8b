"""Send webhook requests in the thread of the test, and record their responses."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

import flask
from werkzeug.test import TestResponse

from ..app import Durable
from ..web import Answers, Follower, Receiver, StreamName, Waiter, blueprint, record_request

PUBLIC_URL = "https://durable.test"


@dataclass
class SentRequest:
    """
    One request that was sent, and its response.

    Attributes:
        request_id: The id under which it is recorded, if it is; of a held copy, that of the request which it repeats.
            None when it was refused before its body was read.
        answer: The response; None when the process crashed while it handled the request.
        is_unanswered: Whether its connection was held, and no work was left that could answer it.
    """

    request_id: str | None = None
    answer: TestResponse | None = None
    is_unanswered: bool = False

    @property
    def is_replayed(self) -> bool:
        """Whether it got the response of an earlier request."""
        return self.answer is not None and "Idempotent-Replayed" in self.answer.headers

    @property
    def location(self) -> str | None:
        """The URL at which its sender can poll for the response."""
        if self.answer is None or self.answer.status_code != 202:
            return None
        return self.answer.headers.get("Location")


class Senders:
    """
    Sends requests through the blueprint, as if from outside.

    Args:
        sent_requests: The list to which each request is added.
        work: Does all work that is due; it is called while a connection is held.
    """

    def __init__(self, engine: Durable, sent_requests: list[SentRequest], work: Callable[[], None]) -> None:
        self._engine = engine
        self._sent_requests = sent_requests
        self._work = work

    def send(self, url: str, method: str, options: dict[str, Any]) -> TestResponse:
        """Send one request, and return its response."""
        sent = SentRequest()
        self._sent_requests.append(sent)
        request_id = f"request-{len(self._sent_requests):020}"
        # Work runs in the context from before the request, as in another process, where a step cannot see it.
        hub = InlineHub(sent, partial(record_request.answers, self._engine), partial(copy_context().run, self._work))

        def new_id() -> str:
            sent.request_id = request_id
            return request_id

        app = flask.Flask("durable-testing")
        app.register_blueprint(blueprint(Receiver(self._engine, make_hub=lambda _: hub, new_id=new_id)))
        path = url.removeprefix(PUBLIC_URL)
        sent.answer = app.test_client().open(path, base_url=PUBLIC_URL, method=method, **options)
        return sent.answer


class InlineHub:
    """
    The hub of an environment: it holds one connection, and meanwhile does the work of the worker itself.

    So a sender and steps never run at the same time, and no time passes while the connection is held.
    """

    def __init__(self, sent: SentRequest, answers: Answers, work: Callable[[], None]) -> None:
        self._sent = sent
        self._answers = answers
        self._work = work

    def open(self, request_id: str, limit: int, is_gone: Callable[[], bool]) -> Waiter | None:
        """Return the waiter of this connection."""
        return Waiter(request_id, is_gone)

    def attach(self, waiter: Waiter, request_id: str) -> None:
        """Wait for the response to an earlier request."""
        waiter.request_id = self._sent.request_id = request_id

    def recorded(self, waiter: Waiter) -> None:
        """Do all work that is due.  Afterwards the response exists, or there is none."""
        self._work()
        answer = self._answers([waiter.request_id]).get(waiter.request_id)
        self._sent.is_unanswered = answer is None
        waiter.release(answer)

    def close(self, waiter: Waiter) -> None:
        """Nothing to release."""

    def follow(self, stream: StreamName, number: int, limit: int, is_gone: Callable[[], bool]) -> Follower | None:
        """Do all work that is due; then the request gets what the stream has, and ends."""
        self._work()
        return None
