"""
Find the webhook of a token, record a request to it, and find the answer to a request.

``accept_request`` is the one place where a request enters a run.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from sqlalchemy.exc import IntegrityError

from .. import duration, failpoints, measures
from ..context import WebhookConfig, recorded_url
from ..engine import Engine
from ..errors import HookClosed
from ..http import Request, Response
from ..store import DriveRow, hooks, requests, runs
from ..store import accept_request as incoming
from ..tracing import RequestTrace
from ..verify import keys, presets


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The id under which a request is recorded; that of the earlier request if this one is a copy."""

    request_id: str
    is_duplicate: bool
    #: The request's span in the trace of the run.
    trace: RequestTrace = field(default_factory=RequestTrace)


class KeyReused(Exception):
    """Raised when a request has the dedupe key of an earlier one but another body; it is not recorded."""


class TooManyPending(Exception):
    """Raised when ``max_pending`` requests to a webhook are waiting; the request is not recorded."""


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
    key = keys.key_of(webhook.config.dedupe, request)
    earlier = _earlier(engine, webhook, request, key)
    if earlier is None:
        try:
            arrived = _record(engine, webhook, request, holder, key)
        except (HookClosed, TooManyPending, IntegrityError):
            # A copy may have been committed after our first check.  It is visible now.
            earlier = _earlier(engine, webhook, request, key)
            if earlier is None:
                raise
    failpoints.hit("request.recorded")
    if earlier is not None:
        engine.measures.count(measures.DUPLICATES)
        engine.webhook_counts.duplicate(earlier)
        return Accepted(request_id=earlier, is_duplicate=True)
    run_id, carried = webhook.run_id, arrived.trace_context
    engine.wake(DriveRow(run_id, arrived.queue, arrived.priority, trace_context=carried))
    carried = runs.trace_context(engine.store.vault, run_id, carried)
    received_at = duration.from_datetime(request.received_at) if request.received_at else engine.now()
    trace = engine.tracing.request(run_id, webhook.op_id, request.id, carried, received_at)
    return Accepted(request_id=request.id, is_duplicate=False, trace=trace)


def _earlier(engine: Engine, webhook: WebhookRow, request: Request, key: str | None) -> str | None:
    """Return the id of the earlier request with this dedupe key, if any; raise KeyReused if it had another body."""
    if key is None:
        return None
    with engine.store.read() as tx:
        found = requests.find_by_key(tx, webhook.run_id, webhook.op_id, key)
    if found is None:
        return None
    request_id, body = found
    if body == request.data:
        return request_id
    # Some senders change a part of the body when they send an event again, such as a count of deliveries.
    sender = (webhook.config.dedupe or {}).get("sender")
    same = bytes if sender is None else presets.find(sender).same
    if same(body) != same(request.data):
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
        answer=None if webhook.config.mode == "manual" else webhook.config.response or Response(status=202),
        limit=engine.settings.max_pending,
        at=engine.store.now(),
    )
    result = incoming.commit(engine.store, request_row, engine.dispatch.plan(request_row.at))
    if not result.is_open:
        raise HookClosed(webhook.token)
    if not result.is_recorded:
        raise TooManyPending(request_row.limit)
    return result


def answers(engine: Engine, request_ids: Collection[str]) -> dict[str, Response]:
    """Return the answers that these requests have by now, by request id."""
    with engine.store.read() as tx:
        return requests.answers(tx, request_ids)


def find_answer(engine: Engine, token: str, request_id: str) -> Response | None:
    """Return the answer to one request, or None; raise KeyError if the webhook of this token has no such request."""
    with engine.store.read() as tx:
        if not requests.is_for_token(tx, request_id, hooks.token_hash(token)):
            raise KeyError(request_id)
        return requests.answers(tx, [request_id]).get(request_id)
