"""
One request to the URL of a webhook or of a receiver: check it, record it, answer it.

``Receiver._receive`` does it from top to bottom.  The order of its steps is part of the interface:

1. The address and the state of the webhook come before the method: a closed webhook answers 410 to every request.
2. The body is read before anything looks into it.
3. The signature is checked before the dedupe key: only the real sender can use up a key.
4. The request is recorded before it is answered, and a connection is held only for a recorded request.
5. After the request is recorded, no failure becomes an error answer: the sender would send the request again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import partial

import flask
from werkzeug.datastructures import Headers

from .. import duration, measures
from ..client import KeyReused, TooManyPending, new_request_id
from ..engine import Engine
from ..errors import ConfigurationError, HookClosed
from ..http import Request, Response
from ..store import Refusals
from . import body, errors, gunicorn, limits, prefer, problems, record_request, servers, verification, wsgi_request
from .fetch import Fetcher
from .hub import Holder, Hub, Waiter
from .prefer import Preference
from .problems import NotVerified, RequestRefused
from .record_request import Accepted, Endpoint
from .stream_source import StreamSource
from .wsgi_request import ReceiverTarget, Target

log = logging.getLogger("durable.web")

#: Methods that never deliver: link previewers and browsers send them on their own.
_NEVER_DELIVER = frozenset({"HEAD", "OPTIONS"})

#: Added to the answer of a request that repeats an earlier one.
_REPLAYED = (("Idempotent-Replayed", "true"),)


class Receiver:
    """
    The webhook routes of a blueprint, for one engine.

    Args:
        make_hub: Makes the hub that holds this process's connections.
        new_id: Makes the id of a request.  A client that knows the id can poll the answer.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        make_hub: Callable[[Engine], Holder] | None = None,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        self.engine = engine
        self._make_hub = make_hub or _make_hub
        self._new_id = new_id or new_request_id
        #: By the engine's process id.  A child process has another id than its parent, and so a hub of its own.
        self._hubs: dict[str, Holder] = {}
        self._schema_is_good = False
        self._has_warned = False
        self._failed_lookups = limits.FailedLookups()
        self._fetch = Fetcher()

    def view(self, token: str) -> flask.Response:
        """Answer one request to a webhook; this is Flask's view.  No token reaches a log."""
        return self._view(wsgi_request.parse_target(token), secret=token)

    def receiver_view(self, name: str) -> flask.Response:
        """Answer one request to a receiver; this is Flask's view."""
        return self._view(wsgi_request.parse_receiver(name), secret=name)

    def _view(self, target: Target | ReceiverTarget | None, secret: str) -> flask.Response:
        """Answer one request.  Every error becomes an answer."""
        try:
            response = self._receive(target)
        except RequestRefused as refused:
            response = _refuse(refused.answer)
        except Exception as error:
            response = _refuse(errors.answer(error, secret=secret))
        is_poll = target is not None and target.request_id is not None
        self.engine.measures.count(measures.POLLS if is_poll else measures.REQUESTS, str(response.status_code))
        return response

    def check_schema(self) -> None:
        """
        Check the database's schema, until one check has succeeded.

        Raises:
            SchemaOutOfDate: The schema of the database is too old.
        """
        if not self._schema_is_good:
            self.engine.check_schema()
            self._schema_is_good = True

    def _receive(self, target: Target | ReceiverTarget | None) -> flask.Response:
        """One request, from its address to its answer.  *target* is None for a path that names nothing."""
        if target is None:
            raise RequestRefused(problems.unknown())
        self.check_schema()
        if target.request_id is not None:
            return self._poll(target, target.request_id)
        webhook = self._find(target)
        if not webhook.is_open:
            return self._repeat_on_closed(webhook)

        request, handshake_answer = self._read_and_verify(webhook)
        if handshake_answer is not None:
            return problems.to_flask(handshake_answer)
        if webhook.config.mode != "manual":
            accepted = self._record(webhook, request, holder=None)
            if accepted.is_duplicate:
                return self._repeat_answer(webhook, accepted.request_id)
            return self._answer(accepted, accepted.answer or problems.ACCEPTED)

        hub = self.hub()
        preference = prefer.parse(flask.request.headers.get("Prefer"))
        # The waiter is opened before the request is committed: a worker may answer before this thread continues.
        waiter = None if preference.wait_secs == 0 else self.open_waiter(hub, request.id)
        try:
            accepted = self._record(webhook, request, holder=None if waiter is None else self.engine.process_id)
            del request  # A held connection keeps no body in memory.
            answer = accepted.answer
            if answer is None and (accepted.is_duplicate or waiter is None):
                answer = self._find_answer(accepted.request_id)
            if answer is not None:
                return self._answer(accepted, answer)
            if waiter is None:
                return self._answer(accepted, self._pending(webhook, accepted.request_id, preference))
            if accepted.is_duplicate:
                hub.attach(waiter, accepted.request_id)
            hub.recorded(waiter)
            answer = self.wait(waiter, self._hold_secs(webhook, preference))
        finally:
            if waiter is not None:
                hub.close(waiter)
        return self._answer(accepted, answer or self._pending(webhook, accepted.request_id, preference))

    def _answer(self, accepted: Accepted, answer: Response) -> flask.Response:
        """Answer a recorded request, and end its span."""
        accepted.trace.answered(answer.status, self.engine.now())
        return problems.to_flask(answer)

    def _find(self, target: Target | ReceiverTarget) -> Endpoint:
        """Return the webhook or the receiver; raise RequestRefused, with 404, if there is none."""
        found: Endpoint | None
        if isinstance(target, Target):
            found = record_request.find_webhook(self.engine, target.token)
        else:
            found = record_request.find_receiver(self.engine, target.name)
            if found is None:
                log.warning(
                    "A request was answered 404: this web application has no receiver %r.  If it is yours, import the"
                    " module that defines it.",
                    target.name,
                )
        if found is None:
            raise self._unknown()
        return found

    def hub(self) -> Holder:
        """Return the hub of this process."""
        process_id = self.engine.process_id
        if process_id not in self._hubs:
            # Made at the first request and not at the import, because gevent may patch threads after the import.
            self._hubs.setdefault(process_id, self._make_hub(self.engine))
        return self._hubs[process_id]

    def wait(self, waiter: Waiter, secs: float) -> Response | None:
        """Wait for the answer; return None when there is none in time."""
        _release_session()
        began = time.monotonic_ns()
        answer = waiter.wait(secs)
        outcome = "unanswered" if answer is None else "answered"
        self.engine.measures.observe(measures.HOLD_SECONDS, (time.monotonic_ns() - began) // 1000, outcome)
        return answer

    def _hold_secs(self, webhook: Endpoint, preference: Preference) -> float:
        """Return how long a connection is held: the webhook's timeout or the setting, or less if the caller prefers."""
        timeout = self.engine.settings.hold_timeout if webhook.config.timeout is None else webhook.config.timeout
        wanted_secs = math.inf if preference.wait_secs is None else preference.wait_secs
        return min(timeout / 1_000_000, wanted_secs)

    def _poll(self, target: Target | ReceiverTarget, request_id: str) -> flask.Response:
        """Answer a poll: with the answer to one earlier request, if there is one by now."""
        try:
            answer = record_request.find_answer(self.engine, target, request_id)
        except KeyError:
            raise self._unknown() from None
        if flask.request.method != "GET":
            raise RequestRefused(problems.wrong_method(flask.request.method, ["GET"]))
        if answer is None:
            return problems.to_flask(problems.pending(request_id, self._location(target, request_id)))
        return problems.to_flask(answer, [("Durable-Recorded", "true")])

    def _repeat_on_closed(self, webhook: Endpoint) -> flask.Response:
        """
        Answer a copy of a request that came before the webhook closed; its sender may have lost the answer.

        Any other request gets 410, also if it is wrong in another way.
        """
        if webhook.config.dedupe is None:
            raise RequestRefused(problems.closed())
        try:
            request, handshake_answer = self._read_and_verify(webhook)
            if handshake_answer is not None:
                # A handshake may be unsigned, so it must not get the answer of a signed request.
                raise RequestRefused(problems.closed())
            return self._repeat_answer(webhook, self._record(webhook, request, holder=None).request_id)
        except RequestRefused as refused:
            answer = problems.key_reused() if refused.answer.status == 422 else problems.closed()
            raise RequestRefused(answer) from None

    def _repeat_answer(self, webhook: Endpoint, request_id: str) -> flask.Response:
        """Answer a copy of an earlier request like that request."""
        answer = self._find_answer(request_id)
        if answer is None:
            return problems.to_flask(self._pending(webhook, request_id, Preference()))
        return problems.to_flask(answer, _REPLAYED)

    def _read_and_verify(self, webhook: Endpoint) -> tuple[Request, Response | None]:
        """
        Read the whole request and verify its sender.

        Returns:
            The request; and the answer, if the request is a handshake, which is not recorded.
        """
        incoming = flask.request
        delivers = incoming.method in webhook.config.methods and incoming.method not in _NEVER_DELIVER
        if not delivers and not verification.takes_handshakes_by(webhook, incoming.method):
            raise RequestRefused(problems.wrong_method(incoming.method, webhook.config.methods))
        headers = list(incoming.headers)
        if limits.has_large_headers(headers):
            raise RequestRefused(problems.headers_too_large(limits.MAX_HEADERS, limits.MAX_HEADERS_SIZE))
        max_body = self.engine.settings.max_body if webhook.config.max_body is None else webhook.config.max_body
        request = Request(
            id=self._new_id(),
            method=incoming.method,
            url=wsgi_request.exact_url(incoming.environ),
            headers=Headers(headers),
            data=body.read(incoming, max_body),
            remote_addr=incoming.remote_addr,
            received_at=duration.to_datetime(self.engine.now()),
        )
        unsigned_answer = verification.answer_unsigned_handshake(webhook, request, self._fetch)
        if unsigned_answer is not None:
            return request, unsigned_answer
        if not delivers:
            raise RequestRefused(problems.wrong_method(incoming.method, webhook.config.methods))
        try:
            return request, verification.verify(webhook, request, self._fetch)
        except NotVerified as refused:
            sender = "" if webhook.config.verification is None else webhook.config.verification.by
            self.engine.measures.count(measures.NOT_VERIFIED, sender)
            reason = "".join(c if c.isprintable() else " " for c in refused.reason)
            last = Refusals(1, self.engine.now(), reason)
            webhook.count_refused(self.engine, last)
            raise

    def _record(self, webhook: Endpoint, request: Request, *, holder: str | None) -> Accepted:
        """Record the request, or find the earlier one that it repeats; raise RequestRefused if it can do neither."""
        try:
            return webhook.accept(self.engine, request, holder)
        except HookClosed:
            raise RequestRefused(problems.closed()) from None
        except KeyReused:
            raise RequestRefused(problems.key_reused()) from None
        except TooManyPending:
            raise RequestRefused(problems.too_many_pending()) from None
        except ConfigurationError as error:
            log.error("A request to %s was answered 503: %s", webhook, error)
            raise RequestRefused(problems.unavailable()) from None

    def open_waiter(self, hub: Holder, request_id: str | None) -> Waiter | None:
        """Return a waiter for the answer; None if this process cannot hold the connection."""
        assert request_id is not None, "a request is recorded under its id"
        environ = flask.request.environ
        limit = servers.held_limit(environ, self.engine.settings.max_held) if servers.can_hold(environ) else 0
        if limit > 0:
            return hub.open(request_id, limit, servers.client_watch(environ))
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "This process cannot hold connections: it serves one request at a time, or max_held is 0.  Requests to"
                " manual webhooks get 202 at once, and their senders have to poll.  Run gunicorn with"
                " --worker-class gthread --threads 32."
            )
        return None

    def _pending(self, webhook: Endpoint, request_id: str, preference: Preference) -> Response:
        """Return the answer while there is none: the webhook's ``on_timeout``, unless the sender asked for 202."""
        if webhook.config.on_timeout is not None and not preference.respond_async:
            return webhook.config.on_timeout
        location = self._location(webhook.target, request_id)
        return problems.pending(request_id, location, preferred=preference.respond_async)

    def _find_answer(self, request_id: str) -> Response | None:
        """Return the recorded answer, if there is one and it can be read now."""
        try:
            return record_request.answers(self.engine, [request_id]).get(request_id)
        except Exception as error:
            # The request is recorded.  An error answer would make its sender send it again.
            log.warning("The answer to a recorded request cannot be read: %s", type(error).__name__)
            return None

    def _unknown(self) -> RequestRefused:
        """Return the refusal for an unknown webhook: 404, or 429 for an address that asked for too many of them."""
        retry_after_secs = self._failed_lookups.count(flask.request.remote_addr)
        if retry_after_secs is None:
            return RequestRefused(problems.unknown())
        return RequestRefused(problems.too_many_lookups(retry_after_secs))

    def _location(self, target: Target | ReceiverTarget, request_id: str) -> str:
        """Return the URL to poll for the answer."""
        base = wsgi_request.base_of(self.engine.settings.public_url, flask.request)
        return f"{base}{target.path}/requests/{request_id}"


def _refuse(answer: Response) -> flask.Response:
    body.discard(flask.request)
    return problems.to_flask(answer)


def _make_hub(engine: Engine) -> Hub:
    answers = partial(record_request.answers, engine)
    return Hub(answers, engine.notifier, engine.process_id, StreamSource(engine), gunicorn.is_stopping)


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
