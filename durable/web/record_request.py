"""
Find the webhook of a token or the receiver of a name, record a request to it, and find the answer to a request.

``accept_request`` is the one place where a request to a webhook enters a run; for receivers it is ``client.receive``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from sqlalchemy.exc import IntegrityError

from .. import context, duration, failpoints, greenlets, measures
from ..client import KeyReused, TooManyPending, receive
from ..context import ReceiverDefinition, WebhookConfig, recorded_url
from ..engine import Engine
from ..errors import HookClosed
from ..http import Request, Response
from ..store import DriveRow, Refusals, hooks, requests, runs
from ..store import accept_request as incoming
from ..tracing import RequestTrace
from ..verify import keys
from .wsgi_request import ReceiverTarget, Target


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookRow:
    """A webhook, as it is stored when a request arrives."""

    run_id: str
    op_id: str
    token: str
    #: ``webhook.url``, as the workflow got it.
    url: str | None
    is_open: bool
    config: WebhookConfig

    @property
    def target(self) -> Target:
        """Its address below the blueprint's path."""
        return Target(self.token, None)

    def __str__(self) -> str:
        """For logs, without the token."""
        return f"a webhook of run {self.run_id}"

    def accept(self, engine: Engine, request: Request, holder: str | None) -> Accepted:
        """Commit a request; see ``accept_request``."""
        return accept_request(engine, self, request, holder=holder)

    def count_refused(self, engine: Engine, last: Refusals) -> None:
        """Count a request whose sender is not verified, for the dashboard."""
        engine.webhook_counts.refused((self.run_id, self.op_id), last)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiverEndpoint:
    """A receiver, as the receiving view sees it."""

    definition: ReceiverDefinition
    url: str | None
    is_open: bool = True

    @property
    def config(self) -> WebhookConfig:
        """How it accepts and answers requests."""
        return self.definition.config

    @property
    def target(self) -> ReceiverTarget:
        """Its address below the blueprint's path."""
        return ReceiverTarget(self.definition.name, None)

    def __str__(self) -> str:
        """For logs."""
        return f"the receiver {self.definition.name!r}"

    def accept(self, engine: Engine, request: Request, holder: str | None) -> Accepted:
        """Commit a request, or the events of a batch; see ``client.receive.accept``."""
        receptions = receive.accept(engine, self.definition, request, holder=holder)
        for each in receptions:
            if each.is_duplicate:
                engine.measures.count(measures.DUPLICATES)
                engine.webhook_counts.duplicate(each.request_id)
        # A batch has one answer: that of an event that has reached a run or waits for one, if there is such an event.
        fresh = [each for each in receptions if not each.is_duplicate]
        first = next((each for each in fresh if each.answer != self.definition.unmatched), (fresh or receptions)[0])
        trace = RequestTrace()
        if first.run_id is not None and first.drive is not None:
            carried = runs.trace_context(engine.store.vault, first.run_id, first.drive.trace_context)
            received_at = duration.from_datetime(request.received_at) if request.received_at else engine.now()
            trace = engine.tracing.request(first.run_id, first.op_id, first.request_id, carried, received_at)
        return Accepted(request_id=first.request_id, is_duplicate=first.is_duplicate, answer=first.answer, trace=trace)

    def count_refused(self, engine: Engine, last: Refusals) -> None:
        """Count requests that the receiver has refused."""
        engine.webhook_counts.refused(self.definition.name, last)


#: Where requests are sent to.
Endpoint = WebhookRow | ReceiverEndpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The id under which a request is recorded; that of the earlier request if this one is a copy."""

    request_id: str
    is_duplicate: bool
    #: The answer that was recorded with it; None if a step gives it, and for a copy.
    answer: Response | None = None
    #: The request's span in the trace of the run.
    trace: RequestTrace = field(default_factory=RequestTrace)


def find_webhook(engine: Engine, token: str) -> WebhookRow | None:
    """Return the webhook of this token, open or closed; None for an unknown token, or for a hook that is no webhook."""
    with engine.store.read() as tx:
        hook = hooks.find(tx, token)
    if hook is None or hook.config is None:
        return None
    return WebhookRow(
        run_id=hook.run_id,
        op_id=hook.op_id,
        token=hook.token,
        url=recorded_url(hook.config, hook.token),
        is_open=hook.open,
        config=WebhookConfig.from_json(hook.config),
    )


def find_receiver(engine: Engine, name: str) -> ReceiverEndpoint | None:
    """Return the receiver of this name, if this process has imported it."""
    definition = context.receivers.get(name)
    if definition is None:
        return None
    public_url = engine.settings.public_url
    return ReceiverEndpoint(definition=definition, url=None if public_url is None else definition.url_below(public_url))


def accept_request(engine: Engine, webhook: WebhookRow, request: Request, *, holder: str | None) -> Accepted:
    """
    Commit a request and its item in the run's inbox, then send a turn of the run.

    A request with the dedupe key of an earlier one is not recorded again, even if the webhook has closed
    since.

    Args:
        webhook: The webhook that received it.
        request: The request, with its id.
        holder: The process that holds the connection, which is notified of the answer; None: no process.

    Raises:
        HookClosed: The webhook is closed; nothing is recorded.
        KeyReused, TooManyPending: The request is not recorded.
        ConfigurationError: This process has not imported the function that reads the dedupe key.
    """
    assert request.id is not None, "a request is recorded under its id"
    dedupe = webhook.config.dedupe
    # It may call a function of the application, which may block.
    key = None if dedupe is None else greenlets.in_thread(keys.key_of, dedupe, request)
    earlier = _earlier(engine, webhook, request, key)
    arrived: incoming.RecordingResult | None = None
    while earlier is None and arrived is None:
        try:
            arrived = _record(engine, webhook, request, holder, key)
        except (HookClosed, TooManyPending, IntegrityError) as error:
            # A copy may have been committed after our first check.  It is visible now.
            earlier = _earlier(engine, webhook, request, key)
            following = _opened_again(engine, webhook) if isinstance(error, HookClosed) else None
            if earlier is None and following is None:
                raise
            webhook = following or webhook
    failpoints.hit("request.recorded")
    if arrived is None:
        assert earlier is not None
        engine.measures.count(measures.DUPLICATES)
        engine.webhook_counts.duplicate(earlier)
        return Accepted(request_id=earlier, is_duplicate=True)
    run_id, carried = webhook.run_id, arrived.trace_context
    engine.send_turns(DriveRow(run_id, arrived.queue, arrived.priority, trace_context=carried))
    carried = runs.trace_context(engine.store.vault, run_id, carried)
    received_at = duration.from_datetime(request.received_at) if request.received_at else engine.now()
    trace = engine.tracing.request(run_id, webhook.op_id, request.id, carried, received_at)
    return Accepted(request_id=request.id, is_duplicate=False, answer=_static_answer(webhook), trace=trace)


def _opened_again(engine: Engine, webhook: WebhookRow) -> WebhookRow | None:
    """Return the webhook as the next generation of its run has it, if the run has continued as new meanwhile."""
    found = find_webhook(engine, webhook.token)
    is_another = found is not None and (found.run_id, found.op_id) != (webhook.run_id, webhook.op_id)
    return found if found is not None and found.is_open and is_another else None


def _earlier(engine: Engine, webhook: WebhookRow, request: Request, key: str | None) -> str | None:
    """Return the id of the earlier request with this dedupe key, if any; raise KeyReused if it had another body."""
    if key is None:
        return None
    with engine.store.read() as tx:
        found = requests.find_by_key(tx, hooks.token_hash(webhook.token), key)
    if found is None:
        return None
    request_id, body = found
    if not keys.is_same_body(webhook.config.dedupe, body, request.data):
        raise KeyReused(request_id)
    return request_id


def _record(
    engine: Engine, webhook: WebhookRow, request: Request, holder: str | None, key: str | None
) -> incoming.RecordingResult:
    """
    Commit the request, if the webhook is open and not full.

    Raises:
        HookClosed, TooManyPending: The request is not recorded.
        IntegrityError: A request with the same dedupe key was committed meanwhile.
    """
    engine.store.vault.store_early(webhook.run_id, [request.data])
    request_row = requests.IncomingRequest(
        run_id=webhook.run_id,
        op_id=webhook.op_id,
        request=request,
        holder=holder,
        dedupe_key=key,
        answer=_static_answer(webhook),
        limit=engine.settings.max_pending,
        at=engine.store.now(),
    )
    result = incoming.commit(engine.store, request_row, engine.dispatch.plan(request_row.at))
    if not result.is_open:
        raise HookClosed(webhook.token)
    if not result.is_recorded:
        raise TooManyPending(request_row.limit)
    return result


def _static_answer(webhook: WebhookRow) -> Response | None:
    """Return the answer that needs no step; None if a step gives it."""
    return None if webhook.config.mode == "manual" else webhook.config.response or Response(status=202)


def answers(engine: Engine, request_ids: Collection[str]) -> dict[str, Response]:
    """Return the answers that these requests have by now, by request id."""
    with engine.store.read() as tx:
        return requests.answers(tx, request_ids)


def find_answer(engine: Engine, target: Target | ReceiverTarget, request_id: str) -> Response | None:
    """Return the answer to one request, or None; raise KeyError if the webhook or receiver has no such request."""
    with engine.store.read() as tx:
        if isinstance(target, Target):
            is_known = requests.is_for_token(tx, request_id, hooks.token_hash(target.token))
        else:
            is_known = requests.is_for_receiver(tx, request_id, target.name)
        if not is_known:
            raise KeyError(request_id)
        return requests.answers(tx, [request_id]).get(request_id)
