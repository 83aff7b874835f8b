"""
One request of a browser that reads a stream or a published value: who may, and what is sent.

A read token permits it, or the application's own function.  The events are made in ``event_stream.py``.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable

import flask
from werkzeug.exceptions import HTTPException

from ..client import read_tokens, streams, values
from ..engine import Engine
from ..errors import RunNotFound
from ..registry import check_stream_name
from ..store import is_unavailable
from . import body, errors, event_stream, problems, schemas, servers
from .event_stream import EventBatch, Feed
from .followers import StreamName
from .hub import Holder
from .problems import RequestRefused
from .stream_source import StreamSource

log = logging.getLogger("durable.web")

#: Whether a user may read: the request, the run's id, ``"stream"`` or ``"value"``, and the name.  As ``Authorize``.
MayRead = Callable[[flask.Request, str, str, str], bool | None]

STREAMS, VALUES = "streams/", "values/"

#: Where a request's environment has the feed of its answer.
FEED = "durable.feed"

_REST = re.compile(rf"({schemas.RUN_ID.strip('^$')})/(.+)", re.DOTALL)


class ReadView:
    """
    The routes on which browsers read.

    Args:
        hub: Returns the hub of this process, whose thread reads for all that follow a stream.
        may_read: Asked for a request without a token.
    """

    def __init__(self, engine: Engine, hub: Callable[[], Holder], may_read: MayRead | None) -> None:
        self._engine = engine
        self._hub = hub
        self._may_read = may_read

    def stream(self, rest: str) -> flask.Response:
        """Answer a request to ``streams/RUN/NAME`` with events; this is Flask's view."""
        return self._view("stream", rest, self._events)

    def value(self, rest: str) -> flask.Response:
        """Answer a request to ``values/RUN/NAME`` with JSON; this is Flask's view."""
        return self._view("value", rest, self._value)

    def _view(self, kind: str, rest: str, answer: Callable[[str, str], flask.Response]) -> flask.Response:
        try:
            run_id, name = self._admitted(kind, rest)
            response = answer(run_id, name)
        except RequestRefused as refused:
            response = problems.to_flask(refused.answer)
        except RunNotFound:
            response = problems.to_flask(problems.unknown_run())
        except Exception as error:
            response = problems.to_flask(errors.answer(error))
        body.discard(flask.request)
        return response

    def _admitted(self, kind: str, rest: str) -> tuple[str, str]:
        """Return the run and the name, for a caller who may read this."""
        if flask.request.method != "GET":
            raise RequestRefused(problems.wrong_method(flask.request.method, ["GET"]))
        match = _REST.fullmatch(rest)
        if match is None:
            raise RequestRefused(problems.unknown_route())
        run_id, name = match[1], match[2]
        allowed = self._is_allowed(run_id, kind, name)
        if allowed is not True:
            raise RequestRefused(problems.unauthorized() if allowed is None else problems.unreadable())
        try:
            check_stream_name(name)
        except ValueError as error:
            raise RequestRefused(problems.bad_arguments(str(error))) from None
        return run_id, name

    def _is_allowed(self, run_id: str, kind: str, name: str) -> bool | None:
        """Whether the caller may read this; None for an unknown caller."""
        given = flask.request.authorization
        bearer = given.token if given is not None and given.type == "bearer" else None
        token = flask.request.args.get("token") or bearer
        if token is not None:
            grant = read_tokens.verify(self._engine.settings.signing_key, token, self._engine.now())
            return None if grant is None else grant.permits(run_id, kind, name)
        if self._may_read is None:
            return None
        try:
            allowed = self._may_read(flask.request, run_id, kind, name)
        except HTTPException as error:
            raise RequestRefused(problems.from_abort(error)) from None
        if allowed not in (True, False, None):
            # Only True counts.  A coroutine is truthy, and so is an object for an anonymous user.
            log.error(
                "The function read= of create_blueprint returned a %s: its caller got 403.", type(allowed).__name__
            )
        return None if allowed is None else allowed is True

    # Streams

    def _events(self, run_id: str, name: str) -> flask.Response:
        """Answer with the items of a stream from a number on, as they come."""
        # The id of the last event counts more: the browser sends the URL with each try again.
        last = event_stream.start_after(flask.request.headers.get("Last-Event-ID"))
        asked = flask.request.args.get("start", "0")
        if not re.fullmatch("[0-9]{1,18}", asked, re.ASCII):
            raise RequestRefused(problems.bad_arguments("start: it must be the number of an item, from 0 on."))
        start = int(asked) if last is None else last
        try:
            stream = (streams.key_of(self._engine, run_id), name)
            # A browser that comes back after the end would come back for ever.
            if last is not None and self._is_over(stream, last):
                return flask.Response(status=204, headers=[("Cache-Control", "no-store")])
            feed = self._feed(stream, start)
        except Exception as error:
            if not is_unavailable(error):
                raise
            # A browser gives up for good at any other status than 200.  So it comes back in two seconds.
            errors.answer(error)
            return flask.Response([event_stream.AGAIN], headers=list(event_stream.HEADERS))
        # The ASGI application sends the events itself, without a thread.
        flask.request.environ[FEED] = feed
        response = flask.Response(event_stream.events(feed), headers=list(event_stream.HEADERS))
        # Also when the client has left before the first event.
        response.call_on_close(feed.close)
        return response

    def _is_over(self, stream: StreamName, number: int) -> bool:
        page = StreamSource(self._engine).page(stream, number)
        return page.is_over and not page.items

    def _feed(self, stream: StreamName, number: int) -> Feed:
        """Return a follower; or what there is now, if this process cannot hold another connection."""
        environ = flask.request.environ
        limit = servers.held_limit(environ, self._engine.settings.max_held) if servers.can_hold(environ) else 0
        is_gone = servers.client_watch(environ)
        follower = self._hub().follow(stream, number, limit, is_gone) if limit > 0 else None
        return _Rest(self._engine, stream, number) if follower is None else follower

    # Values

    def _value(self, run_id: str, name: str) -> flask.Response:
        """Answer with the latest value of a name."""
        found = next((each for each in values.list_values(self._engine, run_id) if each["name"] == name), None)
        if found is None:
            raise RequestRefused(problems.unknown_value())
        text = json.dumps(found, separators=(",", ":"), default=str)
        return problems.Exact(text, 200, [("Content-Type", "application/json"), ("Cache-Control", "no-store")])


class _Rest:
    """What a stream has now; then the connection ends, and the browser comes back for what follows."""

    def __init__(self, engine: Engine, stream: StreamName, number: int) -> None:
        self.number = number
        self._source = StreamSource(engine)
        self._stream = stream

    def next(self, timeout_secs: float) -> EventBatch:
        """Return the next page; after the last one, end the connection."""
        batch = self._source.page(self._stream, self.number)
        if not batch.items and not batch.is_over:
            return EventBatch(is_cut=True)
        self.number = batch.items[-1][0] + 1 if batch.items else self.number
        return batch

    def close(self) -> None:
        """Nothing to release."""
