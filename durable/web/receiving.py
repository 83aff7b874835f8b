"""
One request to a webhook's address: check, record, answer.

The order matters.  The address and its state come before the method, so that
a closed webhook is gone for everybody; the body is read before anything else
looks at it; it is recorded before it is answered; and only what is recorded is
held.  Once it is recorded nothing may make the answer an error: its sender
would send it again.
"""

from __future__ import annotations

import logging
import os
import secrets
import traceback
from functools import partial
from typing import Any

import flask
from werkzeug.datastructures import Headers
from werkzeug.exceptions import BadRequest, LengthRequired, RequestEntityTooLarge

from .. import duration, hooks
from ..errors import HookClosed, SchemaOutOfDate
from ..http import Request, Response
from ..store import unreachable
from . import answers, gunicorn, reading, servers
from .holding import Hub, Waiter
from .masking import mask

log = logging.getLogger("durable.web")

#: These never deliver: previewers and browsers send them on their own.
_NEVER = frozenset({"HEAD", "OPTIONS"})


class Refused(Exception):
    """Raised when a request is not recorded; ``answer`` says why."""

    def __init__(self, answer: Response) -> None:
        super().__init__(answer)
        self.answer = answer


class Receiver:
    """What the blueprint does, for one engine."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        #: By pid: a hub of before a fork is not this process's.
        self._hubs: dict[int, Hub] = {}
        self._schema_is_good = False
        self._warned_in: int | None = None

    def view(self, token: str) -> flask.Response:
        """Flask's view: whatever happens becomes an answer, and no token reaches a log."""
        try:
            return self._answer(token)
        except Refused as refused:
            answer = refused.answer
        except Exception as error:
            answer = _failure(error, token)
        reading.discard_body(flask.request)
        return answers.to_flask(answer)

    def check_schema(self) -> None:
        """
        Raise SchemaOutOfDate for a database with another schema.

        One that cannot be reached now is asked again at the first request.
        """
        if self._schema_is_good:
            return
        self.engine.check_schema()
        self._schema_is_good = True

    def _answer(self, rest: str) -> flask.Response:
        target = reading.parse_target(rest)
        if target is None:
            raise Refused(answers.unknown())
        self.check_schema()
        if target.request_id is not None:
            return self._poll(target.token, target.request_id)
        row = self._find(target.token)
        if row.config.mode == "manual":
            return answers.to_flask(self._record_and_hold(row))
        self._record(row, _new_id(), holder=None)
        return answers.to_flask(row.config.response or answers.ACCEPTED)

    def _poll(self, token: str, request_id: str) -> flask.Response:
        try:
            answer = hooks.find_answer(self.engine, token, request_id)
        except KeyError:
            raise Refused(answers.unknown()) from None
        if flask.request.method != "GET":
            raise Refused(answers.wrong_method(flask.request.method, ["GET"]))
        if answer is None:
            return answers.to_flask(answers.pending(request_id, self._location(token, request_id)))
        return answers.to_flask(answer, [("Durable-Recorded", "true")])

    def _find(self, token: str) -> hooks.WebhookRow:
        """The open webhook that takes this request's method."""
        row = hooks.find_webhook(self.engine, token)
        if row is None:
            raise Refused(answers.unknown())
        if not row.open:
            raise Refused(answers.closed())
        method = flask.request.method
        if method in _NEVER or method not in row.config.methods:
            raise Refused(answers.wrong_method(method, row.config.methods))
        return row

    def _record(self, row: hooks.WebhookRow, request_id: str, *, holder: str | None) -> None:
        """Read the request and commit it.  Nothing of it stays in memory after this."""
        asked = flask.request
        request = Request(
            id=request_id,
            method=asked.method,
            url=reading.exact_url(asked.environ),
            headers=Headers(list(asked.headers)),
            data=self._body(row),
            remote_addr=asked.remote_addr,
            received_at=duration.to_datetime(self.engine.now()),
        )
        try:
            hooks.accept_request(self.engine, row, request, holder=holder)
        except HookClosed:
            raise Refused(answers.closed()) from None

    def _body(self, row: hooks.WebhookRow) -> bytes:
        limit = row.config.max_body
        if limit is None:
            limit = self.engine.settings.max_body
        try:
            return reading.read_body(flask.request, limit)
        except LengthRequired:
            raise Refused(answers.no_length()) from None
        except RequestEntityTooLarge:
            raise Refused(answers.too_large(limit)) from None
        except BadRequest as error:
            raise Refused(answers.bad_body(error.description or "")) from None

    def _record_and_hold(self, row: hooks.WebhookRow) -> Response:
        request_id = _new_id()
        hub = self._hub_of_this_process()
        # First subscribe, then commit and send, then look: an answer may be there at once.
        waiter = self._open(hub, request_id)
        if waiter is None:
            self._record(row, request_id, holder=None)
            answer = self._look_once(request_id)
        else:
            try:
                self._record(row, request_id, holder=self.engine.process_id)
                hub.hint(request_id)
                answer = self._wait(row, waiter)
            finally:
                hub.close(waiter)
        if answer is not None:
            return answer
        return row.config.on_timeout or answers.pending(request_id, self._location(row.token, request_id))

    def _open(self, hub: Hub, request_id: str) -> Waiter | None:
        environ = flask.request.environ
        limit = servers.held_limit(environ, self.engine.settings.max_held) if servers.can_hold(environ) else 0
        if limit <= 0:
            self._warn_once()
            return None
        return hub.open(request_id, limit, servers.client_watch(environ))

    def _wait(self, row: hooks.WebhookRow, waiter: Waiter) -> Response | None:
        _release_session()
        timeout = self.engine.settings.hold_timeout if row.config.timeout is None else row.config.timeout
        return waiter.wait(timeout / 1_000_000)

    def _look_once(self, request_id: str) -> Response | None:
        try:
            return hooks.answers(self.engine, [request_id]).get(request_id)
        except Exception as error:
            # It has been recorded: an error now would make its sender send it again.
            log.warning("The answer to a request could not be looked for: %s", type(error).__name__)
            return None

    def _location(self, token: str, request_id: str) -> str:
        """Where to poll; below ``public_url``, else relative, never by the Host header."""
        asked = flask.request
        base = self.engine.settings.public_url
        if base is None:
            base = asked.root_path.rstrip("/") + asked.path.partition(reading.PATH)[0]
        return f"{base}{reading.PATH}{token}/requests/{request_id}"

    def _hub_of_this_process(self) -> Hub:
        hub = self._hubs.get(os.getpid())
        if hub is not None:
            return hub
        engine = self.engine
        made = Hub(partial(hooks.answers, engine), engine.notifier, engine.process_id, gunicorn.is_stopping)
        return self._hubs.setdefault(os.getpid(), made)

    def _warn_once(self) -> None:
        if self._warned_in != os.getpid():
            self._warned_in = os.getpid()
            log.warning(
                "This process holds no connections, so manual webhooks are answered 202 at once and their"
                " senders have to poll: it serves one request at a time, or max_held is 0.  Run gunicorn with"
                " --worker-class gthread --threads 32."
            )


def _new_id() -> str:
    """144 random bits: with it the answer can be polled."""
    return secrets.token_urlsafe(18)


def _failure(error: Exception, token: str) -> Response:
    if unreachable(error):
        cause = getattr(error, "orig", None) or error
        log.warning(
            "A webhook request was refused, the database is unreachable: %s: %s",
            type(cause).__name__,
            _masked(str(cause), token),
        )
        return answers.unavailable()
    if isinstance(error, SchemaOutOfDate):
        log.error("A webhook request was refused.  %s", error)
        return answers.unavailable()
    text = "".join(traceback.format_exception(error))
    log.error("A webhook request could not be handled\n%s", _masked(text, token))
    return answers.internal()


def _masked(text: str, token: str) -> str:
    return mask(text.replace(token, "...") if token else text)


def _release_session() -> None:
    """Give back the database connection that Flask-SQLAlchemy may hold for the application's own hooks."""
    session = getattr(flask.current_app.extensions.get("sqlalchemy"), "session", None)
    if session is None or not session.registry.has():
        return
    if not (session.new or session.dirty or session.deleted):
        session.remove()
