"""
From outside into the log: payloads for hooks, requests for webhooks, answers to them.

Whoever has news for a run commits it to the run's inbox and sends a drive.  A
crash between the two, or a broker that is down, only delays: the sweep sends
the drive.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from . import codec, context, duration, events, failpoints
from .current import refuse_in_workflow
from .drive import send_drive
from .engine import Engine
from .errors import HookClosed, HookNotFound, HookPayloadError
from .http import Request, Response
from .store import arrivals, hooks, log, requests
from .store.hooks import Hook as HookRow
from .verify import keys, presets
from .webhooks import recorded_url

_LOOK_AGAIN_SECS = 0.05


@dataclass(frozen=True, slots=True)
class HookInfo:
    """What ``get_hook`` tells."""

    token: str
    run_id: str
    metadata: Any
    created_at: datetime
    is_webhook: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookConfig:
    """How a webhook takes and answers requests; durations in microseconds, sizes in bytes."""

    methods: tuple[str, ...] = ("POST",)
    mode: str = "default"
    response: Response | None = None
    timeout: int | None = None
    on_timeout: Response | None = None
    max_body: int | None = None
    verification: presets.Verification | None = None
    dedupe: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, text: str) -> WebhookConfig:
        known = json.loads(text)
        return cls(
            methods=tuple(known["methods"]),
            mode=known["mode"],
            response=_response(known.get("response")),
            timeout=known.get("timeout"),
            on_timeout=_response(known.get("on_timeout")),
            max_body=known.get("max_body"),
            verification=presets.Verification.from_json(known["verify"]) if known.get("verify") else None,
            dedupe=known.get("dedupe"),
        )


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


def _response(known: dict[str, Any] | None) -> Response | None:
    return None if known is None else Response.from_head(known["head"], base64.b64decode(known["body_b64"]))


def resume_hook(engine: Engine, token: str, payload: object, wait: Any = None) -> str:
    """
    Put *payload* into the inbox of the run that holds this token open; its id.

    Returns once the payload is committed; the run may not have seen it yet.  Calling twice delivers twice.

    Args:
        token: The hook's token.
        payload: Anything that may cross (docs/values.md).
        wait: How long to wait for a hook that is about to be created, as ``sleep`` takes it.

    Raises:
        HookNotFound: Nobody holds the token open; nothing is recorded.
        HookPayloadError: It does not fit the type of the hook; nothing is recorded.
        SerializationError: It cannot cross; nothing is recorded.
    """
    refuse_in_workflow("resume_hook")
    engine.check_schema()
    deadline = time.monotonic() + (duration.to_micros(wait) / 1_000_000 if wait is not None else 0)
    while True:
        hook = engine.store.write(lambda tx: _deliver(engine, tx, token, payload))
        if hook is not None:
            break
        if time.monotonic() >= deadline:
            raise HookNotFound(token)
        time.sleep(_LOOK_AGAIN_SECS)
    failpoints.hit("hook.recorded")
    send_drive(engine, hook.run_id)
    return hook.run_id


def _deliver(engine: Engine, tx: Connection, token: str, payload: object) -> HookRow | None:
    hook = hooks.lock_open(tx, token)
    if hook is not None:
        now = engine.store.now()
        text = _fitting(hook, payload)
        news = events.HookReceived(at=now, op_id=hook.op_id, payload=text)
        log.post(tx, hook.run_id, news, engine.dispatch.plan(now))
    return hook


def _fitting(hook: HookRow, payload: object) -> str:
    """The payload as text; for a hook whose type this process knows, as that type."""
    if hook.config is not None and not isinstance(payload, Request):
        raise HookPayloadError(hook.token, [{"loc": (), "msg": "a webhook takes a durable.Request"}])
    known = context.definitions.get(hook.name)
    return codec.encode(payload if known is None else known.validate(hook.token, payload), "payload")


def get_hook(engine: Engine, token: str) -> HookInfo:
    """What is known of an open hook; HookNotFound when nobody holds the token."""
    refuse_in_workflow("get_hook")
    engine.check_schema()
    with engine.store.read() as tx:
        hook = hooks.find(tx, token)
        if hook is None or not hook.open:
            raise HookNotFound(token)
        told = hooks.metadata_of(tx, hook)
        known = requests.load(tx, codec.request_ids(told or ""))
    return HookInfo(
        token=hook.token,
        run_id=hook.run_id,
        metadata=None if told is None else codec.decode(told, known),
        created_at=duration.to_datetime(hook.created_at),
        is_webhook=hook.config is not None,
    )


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
    engine.dispatch.drive(webhook.run_id, arrived.queue, arrived.priority)
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
) -> arrivals.Arrived:
    """Commit a request that comes in.  Errors: those of ``accept_request``; IntegrityError: its key is there since."""
    engine.store.vault.stow_ahead(webhook.run_id, [request.data])
    arrival = requests.Arrival(
        run_id=webhook.run_id,
        op_id=webhook.op_id,
        request=request,
        holder=holder,
        dedupe_key=key,
        answer=_static_answer(webhook.config),
        limit=engine.settings.max_pending,
        at=engine.store.now(),
    )

    def act(tx: Connection) -> arrivals.Arrived:
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
        if not requests.belongs(tx, request_id, hooks.token_hash(token)):
            raise KeyError(request_id)
        return requests.answers(tx, [request_id]).get(request_id)


def respond(engine: Engine, request_id: str, response: Response) -> bool:
    """Answer a request from outside a step; False when it has been answered."""
    with engine.store.begin() as tx:
        holder = requests.answer(tx, request_id, response, engine.store.now())
    if holder is None:
        return False
    failpoints.hit("response.recorded")
    engine.hint(holder, request_id)
    return True
