"""
One request to the URL of a webhook or of a receiver: check it, record it, answer it.

``Receiver.flow`` does it from top to bottom, as a generator that yields before each wait (see ``flow.py``); Flask's
view and the ASGI application run the same one.  The order of its steps is part of the interface:

1. The address and the state of the webhook come before the method: a closed webhook answers 410 to every request.
2. The body is read before anything looks into it.
3. The signature is checked before the dedupe key: only the real sender can use up a key.
4. The request is recorded before it is answered, and a connection is held only for a recorded request.
5. After the request is recorded, no failure becomes an error answer: the sender would send the request again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import flask
from werkzeug.wrappers import Request as Incoming

from .. import measures
from ..client import KeyReused, TooManyPending, new_request_id
from ..engine import Engine
from ..errors import ConfigurationError, HookClosed
from ..http import Request, Response
from ..store import pushed_answers
from ..tracing import RequestTrace
from . import (
    body,
    errors,
    gunicorn,
    limits,
    prefer,
    problems,
    record_request,
    servers,
    shutdown,
    wsgi_request,
)
from .fetch import Fetcher
from .flow import DropBody, Flow, Hold, run_in_thread
from .hub import Holder, Hub
from .prefer import Preference
from .problems import Exact, RequestRefused
from .read_request import read_and_verify
from .record_request import Accepted, Endpoint
from .stream_source import StreamSource
from .waiters import Waiter
from .wsgi_request import ReceiverTarget, Target

log = logging.getLogger("durable.web")

#: Added to the answer of a copy whose request was answered before; a copy that was held gets the answer without it.
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
        self._read_and_verify = partial(read_and_verify, engine, new_id or new_request_id, Fetcher())
        #: By the engine's process id.  A child process has another id than its parent, and so a hub of its own.
        self._hubs: dict[str, Holder] = {}
        self._schema_is_good = False
        self._has_warned = False
        self._failed_lookups = limits.FailedLookups()

    def view(self, token: str) -> flask.Response:
        """Answer one request to a webhook; this is Flask's view.  No token reaches a log."""
        return run_in_thread(self.flow(flask.request, wsgi_request.parse_target(token), secret=token))

    def receiver_view(self, name: str) -> flask.Response:
        """Answer one request to a receiver; this is Flask's view."""
        return run_in_thread(self.flow(flask.request, wsgi_request.parse_receiver(name), secret=name))

    def flow(self, incoming: Incoming, target: Target | ReceiverTarget | None, secret: str) -> Flow[Exact]:
        """Answer one request; *target* is None for a path that names nothing.  Every error becomes an answer."""
        response: Exact | _Held
        try:
            response = yield from self._receive(incoming, target)
        except RequestRefused as refused:
            response = yield from _refuse(incoming, refused.answer)
        except Exception as error:
            response = yield from _refuse(incoming, errors.answer(error, secret=secret))
        counter = measures.POLLS if target is not None and target.request_id is not None else measures.REQUESTS
        # A held connection keeps in memory what it needs, and nothing else of its request.
        del incoming, target, secret
        if isinstance(response, _Held):
            held = response
            try:
                yield held.hold
                answer = held.hold.end(self.engine.measures) or held.late.answer()
            finally:
                held.hub.close(held.hold.waiter)
            response = self._answer(held.trace, answer)
        self.engine.measures.count(counter, str(response.status_code))
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

    def _receive(self, incoming: Incoming, target: Target | ReceiverTarget | None) -> Flow[Exact | _Held]:
        """One request, from its address to its answer, or until its connection is held."""
        if target is None:
            raise RequestRefused(problems.unknown())
        self.check_schema()
        if target.request_id is not None:
            return self._poll(incoming, target, target.request_id)
        webhook = self._find(incoming, target)
        if not webhook.is_open:
            return (yield from self._repeat_on_closed(incoming, webhook))

        request, handshake_answer = yield from self._read_and_verify(incoming, webhook)
        if handshake_answer is not None:
            return problems.to_flask(handshake_answer)
        if webhook.config.mode != "manual":
            accepted = self._record(webhook, request, holder=None)
            if accepted.is_duplicate:
                return self._repeat_answer(incoming, webhook, accepted.request_id)
            return self._answer(accepted.trace, accepted.answer or problems.ACCEPTED)

        hub = self.hub()
        preference = prefer.parse(incoming.headers.get("Prefer"))
        # The waiter is opened before the request is committed: a worker may answer before this thread continues.
        waiter = None if preference.wait_secs == 0 else self.open_waiter(hub, incoming, request.id)
        held: _Held | None = None
        try:
            accepted = self._record(webhook, request, holder=None if waiter is None else self.engine.process_id)
            answer = accepted.answer
            if answer is None and (accepted.is_duplicate or waiter is None):
                answer = self._find_answer(accepted.request_id)
            if answer is not None:
                return self._answer(accepted.trace, answer, _REPLAYED if accepted.is_duplicate else ())
            late = self._late(incoming, webhook, accepted.request_id, preference)
            if waiter is None:
                return self._answer(accepted.trace, late.answer())
            if accepted.is_duplicate:
                hub.attach(waiter, accepted.request_id)
            hub.recorded(waiter)
            held = _Held(hub, Hold(waiter, self._hold_secs(webhook, preference)), accepted.trace, late)
            return held
        finally:
            if waiter is not None and held is None:
                hub.close(waiter)

    def _answer(self, trace: RequestTrace, answer: Response, extra: Iterable[tuple[str, str]] = ()) -> Exact:
        """Answer a recorded request, with *extra* headers, and end its span."""
        trace.answered(answer.status, self.engine.now())
        return problems.to_flask(answer, extra)

    def _find(self, incoming: Incoming, target: Target | ReceiverTarget) -> Endpoint:
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
            raise self._unknown(incoming)
        return found

    def hub(self) -> Holder:
        """Return the hub of this process."""
        process_id = self.engine.process_id
        if process_id not in self._hubs:
            # Made at the first request and not at the import, because gevent may patch threads after the import.
            self._hubs.setdefault(process_id, self._make_hub(self.engine))
        return self._hubs[process_id]

    def _hold_secs(self, webhook: Endpoint, preference: Preference) -> float:
        """Return how long a connection is held: the webhook's timeout or the setting, or less if the caller prefers."""
        timeout = self.engine.settings.hold_timeout if webhook.config.timeout is None else webhook.config.timeout
        wanted_secs = math.inf if preference.wait_secs is None else preference.wait_secs
        return min(timeout / 1_000_000, wanted_secs)

    def _poll(self, incoming: Incoming, target: Target | ReceiverTarget, request_id: str) -> Exact:
        """Answer a poll: with the answer to one earlier request, if there is one by now."""
        try:
            answer = record_request.find_answer(self.engine, target, request_id)
        except KeyError:
            raise self._unknown(incoming) from None
        if incoming.method != "GET":
            raise RequestRefused(problems.wrong_method(incoming.method, ["GET"]))
        if answer is None:
            return problems.to_flask(problems.pending(request_id, self._location(incoming, target, request_id)))
        return problems.to_flask(answer, [("Durable-Recorded", "true")])

    def _repeat_on_closed(self, incoming: Incoming, webhook: Endpoint) -> Flow[Exact]:
        """
        Answer a copy of a request that came before the webhook closed; its sender may have lost the answer.

        Any other request gets 410, also if it is wrong in another way.
        """
        if webhook.config.dedupe is None:
            raise RequestRefused(problems.closed())
        try:
            request, handshake_answer = yield from self._read_and_verify(incoming, webhook)
            if handshake_answer is not None:
                # A handshake may be unsigned, so it must not get the answer of a signed request.
                raise RequestRefused(problems.closed())
            accepted = self._record(webhook, request, holder=None)
            return self._repeat_answer(incoming, webhook, accepted.request_id)
        except RequestRefused as refused:
            answer = problems.key_reused() if refused.answer.status == 422 else problems.closed()
            raise RequestRefused(answer) from None

    def _repeat_answer(self, incoming: Incoming, webhook: Endpoint, request_id: str) -> Exact:
        """Answer a copy of an earlier request like that request."""
        answer = self._find_answer(request_id)
        if answer is None:
            return problems.to_flask(self._late(incoming, webhook, request_id, Preference()).answer())
        return problems.to_flask(answer, _REPLAYED)

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

    def open_waiter(self, hub: Holder, incoming: Incoming, request_id: str | None) -> Waiter | None:
        """Return a waiter for the answer; None if this process cannot hold the connection."""
        assert request_id is not None, "a request is recorded under its id"
        environ = incoming.environ
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

    def _late(self, incoming: Incoming, webhook: Endpoint, request_id: str, preference: Preference) -> _Late:
        """Return what is answered while there is no answer."""
        on_timeout = None if preference.respond_async else webhook.config.on_timeout
        location = self._location(incoming, webhook.target, request_id)
        return _Late(on_timeout, request_id, location, preference.respond_async)

    def _find_answer(self, request_id: str) -> Response | None:
        """Return the recorded answer, if there is one and it can be read now."""
        try:
            return record_request.answers(self.engine, [request_id]).get(request_id)
        except Exception as error:
            # The request is recorded.  An error answer would make its sender send it again.
            log.warning("The answer to a recorded request cannot be read: %s", type(error).__name__)
            return None

    def _unknown(self, incoming: Incoming) -> RequestRefused:
        """Return the refusal for an unknown webhook: 404, or 429 for an address that asked for too many of them."""
        retry_after_secs = self._failed_lookups.count(incoming.remote_addr)
        if retry_after_secs is None:
            return RequestRefused(problems.unknown())
        return RequestRefused(problems.too_many_lookups(retry_after_secs))

    def _location(self, incoming: Incoming, target: Target | ReceiverTarget, request_id: str) -> str:
        """Return the URL to poll for the answer."""
        base = wsgi_request.base_of(self.engine.settings.public_url, incoming)
        return f"{base}{target.path}/requests/{request_id}"


class _Late(NamedTuple):
    """The answer while there is none: the webhook's ``on_timeout``, unless the sender asked for 202."""

    on_timeout: Response | None
    request_id: str
    location: str
    preferred: bool

    def answer(self) -> Response:
        return self.on_timeout or problems.pending(self.request_id, self.location, preferred=self.preferred)


class _Held(NamedTuple):
    """A recorded request whose connection is held."""

    hub: Holder
    hold: Hold
    trace: RequestTrace
    late: _Late


def _refuse(incoming: Incoming, answer: Response) -> Flow[Exact]:
    yield DropBody()
    body.discard(incoming)
    return problems.to_flask(answer)


def _make_hub(engine: Engine) -> Hub:
    answers = partial(record_request.answers, engine)
    return Hub(
        answers,
        engine.notifier,
        engine.process_id,
        StreamSource(engine),
        lambda: gunicorn.is_stopping() or shutdown.is_stopping(),
        partial(pushed_answers.read, engine.store.vault),
    )
