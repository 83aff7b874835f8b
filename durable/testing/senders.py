"""Senders of webhook requests, in the thread of the test, and the book that they keep of what they were answered."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

import flask
from werkzeug.test import TestResponse

from ..app import Durable
from ..web import Answers, Receiver, Waiter, blueprint, record_request

PUBLIC_URL = "https://durable.test"


@dataclass
class Sent:
    """
    One request in the senders' book.

    Attributes:
        request_id: What it is recorded under, if it is; None when it was refused before it was read.
        answer: None when the process died over it.
        is_unanswered: Whether it was held, and nobody had answered when nothing was left to do.
    """

    request_id: str | None = None
    answer: TestResponse | None = None
    is_unanswered: bool = False

    @property
    def is_replayed(self) -> bool:
        """Whether it was given the answer of an earlier request."""
        return self.answer is not None and "Idempotent-Replayed" in self.answer.headers

    @property
    def location(self) -> str | None:
        """Where its sender was told to ask for the answer."""
        if self.answer is None or self.answer.status_code != 202:
            return None
        return self.answer.headers.get("Location")


class Senders:
    """
    Sends requests through the blueprint, as if from outside.

    Args:
        book: Is kept here, one entry for each request, in order.
        work: Does what there is to do; called while a connection is held.
    """

    def __init__(self, engine: Durable, book: list[Sent], work: Callable[[], None]) -> None:
        self._engine = engine
        self._book = book
        self._work = work

    def send(self, url: str, method: str, options: dict[str, Any]) -> TestResponse:
        """Send one request; its answer."""
        sent = Sent()
        self._book.append(sent)
        client = self._app(sent, f"request-{len(self._book):020}").test_client()
        sent.answer = client.open(url.removeprefix(PUBLIC_URL), base_url=PUBLIC_URL, method=method, **options)
        return sent.answer

    def _app(self, sent: Sent, request_id: str) -> flask.Flask:
        # Work is done in a context of before the request: a step in another process sees nothing of it either.
        holding = Holding(sent, partial(record_request.answers, self._engine), partial(copy_context().run, self._work))

        def new_id() -> str:
            sent.request_id = request_id
            return request_id

        app = flask.Flask("durable-testing")
        app.register_blueprint(blueprint(Receiver(self._engine, make_hub=lambda _: holding, new_id=new_id)))
        return app


class Holding:
    """
    Holds one connection of an environment, by doing what there is to do meanwhile: nobody else does it.

    So sender and steps never run at the same time, and when nothing is left to do nothing is waited for.
    """

    def __init__(self, sent: Sent, answers: Answers, work: Callable[[], None]) -> None:
        self._sent = sent
        self._answers = answers
        self._work = work

    def open(self, request_id: str, limit: int, is_gone: Callable[[], bool]) -> Waiter | None:
        """The place to wait in."""
        return Waiter(request_id, is_gone)

    def attach(self, waiter: Waiter, request_id: str) -> None:
        """It waits for the answer to an earlier request."""
        waiter.request_id = request_id

    def recorded(self, waiter: Waiter) -> None:
        """Do what there is to do; then there is an answer, or there will be none."""
        self._work()
        answer = self._answers([waiter.request_id]).get(waiter.request_id)
        self._sent.is_unanswered = answer is None
        waiter.release(answer)

    def close(self, waiter: Waiter) -> None:
        """The connection is held no longer."""
