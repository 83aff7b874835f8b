"""
One request to a webhook's address: check, record, answer.

The order matters.  The address and its state come before the method, so that
a closed webhook is gone for everybody; the body is read before anything else
looks at it; whose it is comes before whether it was here already, so that
nobody else can use up a key; it is recorded before it is answered; and only
what is recorded is held.  Once it is recorded nothing may make the answer an error: its sender
would send it again.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

import flask
from werkzeug.datastructures import Headers

from .. import duration
from ..errors import ConfigurationError, HookClosed
from ..http import Request, Response
from . import body, errors, gunicorn, limits, prefer, problems, record_request, servers, verification, wsgi_request
from .fetch import Fetcher
from .hub import Holder, Hub, Waiter
from .prefer import Preference
from .verification import Refused

log = logging.getLogger("durable.web")

#: These never deliver: previewers and browsers send them on their own.
_NEVER = frozenset({"HEAD", "OPTIONS"})

#: To whoever repeats a request that has been answered.
_REPLAYED = (("Idempotent-Replayed", "true"),)


class Receiver:
    """
    What the blueprint does, for one engine.

    Args:
        make_hub: Makes what holds a process's connections.
        new_id: Names a request; whoever knows the name can poll the answer.
    """

    def __init__(
        self, engine: Any, *, make_hub: Callable[[Any], Holder] | None = None, new_id: Callable[[], str] | None = None
    ) -> None:
        self.engine = engine
        self._make_hub = make_hub or _hub
        self._new_id = new_id or _new_id
        #: By pid: a hub of before a fork is not this process's.
        self._hubs: dict[int, Holder] = {}
        self._schema_is_good = False
        self._warned_in: int | None = None
        self._failed = limits.FailedLookups()
        self._fetch = Fetcher()

    def view(self, token: str) -> flask.Response:
        """Flask's view: whatever happens becomes an answer, and no token reaches a log."""
        try:
            return self._answer(token)
        except Refused as refused:
            answer = refused.answer
        except Exception as error:
            answer = errors.answer(error, token)
        body.discard(flask.request)
        return problems.to_flask(answer)

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
        target = wsgi_request.parse_target(rest)
        if target is None:
            raise Refused(problems.unknown())
        self.check_schema()
        if target.request_id is not None:
            return self._poll(target.token, target.request_id)
        row = self._find(target.token)
        if not row.open:
            return self._replay(row)
        request, handshake = self._admit(row)
        if handshake is not None:
            return problems.to_flask(handshake)
        if row.config.mode == "manual":
            wish = prefer.parse(flask.request.headers.get("Prefer"))
            accepted, waiter = self._record_held(row, request, wish)
            del request  # Nothing of it stays in memory while the connection is held.
            return self._hold(row, accepted, waiter, wish)
        accepted = self._record(row, request, holder=None)
        if accepted.is_duplicate:
            return self._recorded(row, accepted.request_id)
        return problems.to_flask(row.config.response or problems.ACCEPTED)

    def _poll(self, token: str, request_id: str) -> flask.Response:
        try:
            answer = record_request.find_answer(self.engine, token, request_id)
        except KeyError:
            raise self._unknown() from None
        if flask.request.method != "GET":
            raise Refused(problems.wrong_method(flask.request.method, ["GET"]))
        if answer is None:
            return problems.to_flask(problems.pending(request_id, self._location(token, request_id)))
        return problems.to_flask(answer, [("Durable-Recorded", "true")])

    def _unknown(self) -> Refused:
        secs = self._failed.note(flask.request.remote_addr)
        return Refused(problems.too_many_lookups(secs) if secs else problems.unknown())

    def _find(self, token: str) -> record_request.WebhookRow:
        """The webhook that takes this request's method; one that may have had it before, when it is closed."""
        row = record_request.find_webhook(self.engine, token)
        if row is None:
            raise self._unknown()
        if not row.open and row.config.dedupe is None:
            raise Refused(problems.closed())
        return row

    def _admit(self, row: record_request.WebhookRow) -> tuple[Request, Response | None]:
        """The request, whole and its sender's; with the answer when it is a handshake."""
        method = flask.request.method
        delivers = method in row.config.methods and method not in _NEVER
        if not delivers and not verification.greets(row, method):
            raise Refused(problems.wrong_method(method, row.config.methods))
        request = self._read(row)
        greeting = verification.greet(row, request, self._fetch)
        if greeting is not None:
            return request, greeting
        if not delivers:
            raise Refused(problems.wrong_method(method, row.config.methods))
        return request, verification.verify(row, request, self._fetch)

    def _replay(self, row: record_request.WebhookRow) -> flask.Response:
        """
        A closed webhook still answers what it answered before: its sender lost the first answer.

        Nothing else is told of it, so that it is gone whatever is wrong with the request.
        """
        try:
            request, handshake = self._admit(row)
            if handshake is not None:
                # It may not have been signed, and must not get what its sender was answered.
                raise Refused(problems.closed())
            return self._recorded(row, self._record(row, request, holder=None).request_id)
        except Refused as refused:
            raise Refused(problems.key_reused() if refused.answer.status == 422 else problems.closed()) from None

    def _recorded(self, row: record_request.WebhookRow, request_id: str) -> flask.Response:
        """What an earlier request was answered, to one that repeats it."""
        answer = self._look_once(request_id)
        if answer is None:
            return problems.to_flask(self._pending(row, request_id, Preference()))
        return problems.to_flask(answer, _REPLAYED)

    def _read(self, row: record_request.WebhookRow) -> Request:
        asked = flask.request
        headers = list(asked.headers)
        if limits.has_large_headers(headers):
            raise Refused(problems.headers_too_large(limits.MAX_HEADERS, limits.MAX_HEADERS_SIZE))
        return Request(
            id=self._new_id(),
            method=asked.method,
            url=wsgi_request.exact_url(asked.environ),
            headers=Headers(headers),
            data=self._body(row),
            remote_addr=asked.remote_addr,
            received_at=duration.to_datetime(self.engine.now()),
        )

    def _record(
        self, row: record_request.WebhookRow, request: Request, *, holder: str | None
    ) -> record_request.Accepted:
        try:
            return record_request.accept_request(self.engine, row, request, holder=holder)
        except HookClosed:
            raise Refused(problems.closed()) from None
        except record_request.KeyReused:
            raise Refused(problems.key_reused()) from None
        except record_request.TooManyPending:
            raise Refused(problems.too_many_pending()) from None
        except ConfigurationError as trouble:
            log.error("A request to a webhook of run %s was answered 503: %s", row.run_id, trouble)
            raise Refused(problems.unavailable()) from None

    def _body(self, row: record_request.WebhookRow) -> bytes:
        limit = row.config.max_body
        if limit is None:
            limit = self.engine.settings.max_body
        return body.read(flask.request, limit)

    def _record_held(
        self, row: record_request.WebhookRow, request: Request, wish: Preference
    ) -> tuple[record_request.Accepted, Waiter | None]:
        """Commit a request whose answer is waited for, and the place to wait in if there is one."""
        assert request.id is not None
        hub = self._hub_of_this_process()
        # First subscribe, then commit and send: the hint of an answer that is there at once finds its waiter.
        waiter = None if wish.wait_secs == 0 else self._open(hub, request.id)
        try:
            accepted = self._record(row, request, holder=None if waiter is None else self.engine.process_id)
        except BaseException:
            if waiter is not None:
                hub.close(waiter)
            raise
        return accepted, waiter

    def _hold(
        self, row: record_request.WebhookRow, accepted: record_request.Accepted, waiter: Waiter | None, wish: Preference
    ) -> flask.Response:
        hub = self._hub_of_this_process()
        try:
            if accepted.is_duplicate or waiter is None:
                known = self._look_once(accepted.request_id)
                if known is not None:
                    return problems.to_flask(known, _REPLAYED if accepted.is_duplicate else ())
            if waiter is None:
                answer = None
            else:
                if accepted.is_duplicate:
                    hub.attach(waiter, accepted.request_id)
                hub.recorded(waiter)
                answer = self._wait(row, waiter, wish)
        finally:
            if waiter is not None:
                hub.close(waiter)
        return problems.to_flask(answer or self._pending(row, accepted.request_id, wish))

    def _pending(self, row: record_request.WebhookRow, request_id: str, wish: Preference) -> Response:
        """The answer while there is none; the author's own, unless the sender asked for ours."""
        if row.config.on_timeout is not None and not wish.respond_async:
            return row.config.on_timeout
        return problems.pending(request_id, self._location(row.token, request_id), preferred=wish.respond_async)

    def _open(self, hub: Holder, request_id: str) -> Waiter | None:
        environ = flask.request.environ
        limit = servers.held_limit(environ, self.engine.settings.max_held) if servers.can_hold(environ) else 0
        if limit <= 0:
            self._warn_once()
            return None
        return hub.open(request_id, limit, servers.client_watch(environ))

    def _wait(self, row: record_request.WebhookRow, waiter: Waiter, wish: Preference) -> Response | None:
        _release_session()
        timeout = self.engine.settings.hold_timeout if row.config.timeout is None else row.config.timeout
        return waiter.wait(min(timeout / 1_000_000, math.inf if wish.wait_secs is None else wish.wait_secs))

    def _look_once(self, request_id: str) -> Response | None:
        try:
            return record_request.answers(self.engine, [request_id]).get(request_id)
        except Exception as error:
            # It has been recorded: an error now would make its sender send it again.
            log.warning("The answer to a request could not be looked for: %s", type(error).__name__)
            return None

    def _location(self, token: str, request_id: str) -> str:
        """Where to poll."""
        base = wsgi_request.base_of(self.engine.settings.public_url, flask.request)
        return f"{base}{wsgi_request.PATH}{token}/requests/{request_id}"

    def _hub_of_this_process(self) -> Holder:
        hub = self._hubs.get(os.getpid())
        return hub or self._hubs.setdefault(os.getpid(), self._make_hub(self.engine))

    def _warn_once(self) -> None:
        if self._warned_in != os.getpid():
            self._warned_in = os.getpid()
            log.warning(
                "This process holds no connections, so manual webhooks are answered 202 at once and their"
                " senders have to poll: it serves one request at a time, or max_held is 0.  Run gunicorn with"
                " --worker-class gthread --threads 32."
            )


def _hub(engine: Any) -> Hub:
    return Hub(partial(record_request.answers, engine), engine.notifier, engine.process_id, gunicorn.is_stopping)


def _new_id() -> str:
    """144 random bits: with it the answer can be polled."""
    return secrets.token_urlsafe(18)


def _release_session() -> None:
    """Give back the database connection that Flask-SQLAlchemy may hold for the application's own hooks."""
    session = getattr(flask.current_app.extensions.get("sqlalchemy"), "session", None)
    if session is None or not session.registry.has():
        return
    if not (session.new or session.dirty or session.deleted):
        session.remove()
