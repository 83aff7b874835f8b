"""TODO"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from .. import failpoints
from ..context import WebhookConfig, recorded_url
from ..engine import Engine
from ..errors import HookClosed
from ..http import Request, Response
from ..store import DriveRow, hooks, requests
from ..store import accept_request as arrivals
from ..verify import keys, presets


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookRow:
    """A webhook as a request finds it."""

    run_id: str
    op_id: str
    token: str
    #: As the workflow was given it.
    url: str | None
    open: bool
    config: WebhookConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """A request that is recorded: this one, or the one that it repeats."""

    request_id: str
    is_duplicate: bool


class KeyReused(Exception):
    """Raised when a request has the dedupe key of another, and not its body; nothing is recorded."""


class TooManyPending(Exception):
    """Raised when a webhook has as many requests waiting as it may; nothing is recorded."""


def find_webhook(engine: Engine, token: str) -> WebhookRow | None:
    """The webhook of this token, open or closed; None for an unknown token and for a plain hook's."""
    with engine.store.read() as tx:
        hook = hooks.find(tx, token)
    if hook is None or hook.config is None:
        return None
    return WebhookRow(
        run_id=hook.run_id,
        op_id=hook.op_id,
        token=hook.token,
        url=recorded_url(hook.config, hook.token),
        open=hook.open,
        config=WebhookConfig.from_json(hook.config),
    )


def accept_request(engine: Engine, webhook: WebhookRow, request: Request, *, holder: str | None) -> Accepted:
    """
    Commit a request and its place in the run's inbox, then drive the run.

    One whose dedupe key was here before is not recorded again, also when the webhook has closed since.

    Args:
        webhook: Where it came in.
        request: With its id; header and body as they were sent.
        holder: The process that holds the connection, to be told of the answer.

    Raises:
        HookClosed: The webhook is closed; nothing is recorded.
        KeyReused, TooManyPending: Nothing is recorded.
        ConfigurationError: This process does not know how the webhook tells duplicates.
    """
    assert request.id is not None, "a request is recorded under its id"
    key = keys.key_of(webhook.config.dedupe, request)
    earlier = _earlier(engine, webhook, request, key)
    if earlier is None:
        try:
            arrived = _record(engine, webhook, request, holder, key)
        except (HookClosed, TooManyPending, IntegrityError):
            # A copy may have been committed between our look and our insert: now it can be seen.
            earlier = _earlier(engine, webhook, request, key)
            if earlier is None:
                raise
    failpoints.hit("request.recorded")
    if earlier is not None:
        return Accepted(request_id=earlier, is_duplicate=True)
    engine.wake(DriveRow(webhook.run_id, arrived.queue, arrived.priority))
    return Accepted(request_id=request.id, is_duplicate=False)


def _earlier(engine: Engine, webhook: WebhookRow, request: Request, key: str | None) -> str | None:
    """The id of the request that this one repeats."""
    if key is None:
        return None
    with engine.store.read() as tx:
        found = requests.find_by_key(tx, webhook.run_id, webhook.op_id, key)
    if found is None:
        return None
    request_id, body = found
    if body != request.data and not _is_same(webhook.config.dedupe or {}, body, request.data):
        raise KeyReused(request_id)
    return request_id


def _is_same(rule: dict[str, Any], body: bytes, other: bytes) -> bool:
    """Whether the sender would call two bodies the same."""
    sender = rule.get("sender")
    if sender is None:
        return False
    same = presets.find(sender).same
    return bool(same(body) == same(other))


def _record(
    engine: Engine, webhook: WebhookRow, request: Request, holder: str | None, key: str | None
) -> arrivals.RecordingResult:
    """Commit a request that comes in.  Errors: those of ``accept_request``; IntegrityError: its key is there since."""
    engine.store.vault.store_early(webhook.run_id, [request.data])
    arrival = requests.IncomingRequest(
        run_id=webhook.run_id,
        op_id=webhook.op_id,
        request=request,
        holder=holder,
        dedupe_key=key,
        answer=_static_answer(webhook.config),
        limit=engine.settings.max_pending,
        at=engine.store.now(),
    )

    def act(tx: Connection) -> arrivals.RecordingResult:
        arrived = arrivals.record(tx, arrival, engine.dispatch.plan(arrival.at))
        if not arrived.is_open:
            raise HookClosed(webhook.token)
        if not arrived.is_recorded:
            raise TooManyPending(arrival.limit)
        return arrived

    return engine.store.write(act, once=arrival.is_plain)


def _static_answer(config: WebhookConfig) -> Response | None:
    """What a webhook that holds nothing answers at once."""
    if config.mode == "manual":
        return None
    return config.response or Response(status=202)


def answers(engine: Engine, request_ids: Collection[str]) -> dict[str, Response]:
    """Those of these requests that have been answered, with their answers."""
    with engine.store.read() as tx:
        return requests.answers(tx, request_ids)


def find_answer(engine: Engine, token: str, request_id: str) -> Response | None:
    """The answer to one request, None while there is none; KeyError when this webhook has no such request."""
    with engine.store.read() as tx:
        if not requests.is_for_token(tx, request_id, hooks.token_hash(token)):
            raise KeyError(request_id)
        return requests.answers(tx, [request_id]).get(request_id)
