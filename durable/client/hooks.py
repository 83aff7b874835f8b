"""
From outside into the log: payloads for hooks, requests for webhooks, answers to them.

Whoever has news for a run commits it to the run's inbox and sends a drive.  A
crash between the two, or a broker that is down, only delays: the sweep sends
the drive.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from .. import codec, context, duration, events, failpoints
from ..engine import Engine, send_drive
from ..errors import HookNotFound, HookPayloadError
from ..http import Request, Response
from ..sandbox import refuse_in_workflow
from ..store import Hook as HookRow
from ..store import hooks, requests, run_log

_LOOK_AGAIN_SECS = 0.05


@dataclass(frozen=True, slots=True)
class HookInfo:
    """What ``get_hook`` tells."""

    token: str
    run_id: str
    metadata: Any
    created_at: datetime
    is_webhook: bool


def resume_hook(engine: Engine, token: str, payload: object, wait: Any = None) -> str:
    """
    Put *payload* into the inbox of the run that holds this token open; its id.

    Returns once the payload is committed; the run may not have seen it yet.  Calling twice delivers twice.

    Args:
        token: The hook's token.
        payload: Anything that may cross (docs/reference/values.md).
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
        run_log.post(tx, hook.run_id, news, engine.dispatch.plan(now))
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


def respond(engine: Engine, request_id: str, response: Response) -> bool:
    """Answer a request from outside a step; False when it has been answered."""
    with engine.store.begin() as tx:
        holder = requests.answer(tx, request_id, response, engine.store.now())
    if holder is None:
        return False
    failpoints.hit("response.recorded")
    engine.hint(holder, request_id)
    return True
