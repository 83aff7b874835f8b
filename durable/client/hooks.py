"""
Payloads for hooks, and answers to webhook requests.

A payload is committed to the run's inbox, then a turn is sent.  If the process crashes between the two, or the broker
is down, the sweep sends the turn later.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from .. import codec, context, duration, events, failpoints, greenlets
from ..engine import Engine, NextCheck, Waiting, wait_in_loop, wait_in_thread
from ..errors import HookNotFound, HookPayloadError
from ..http import Request, Response
from ..replay import request_of
from ..sandbox import refuse_in_workflow
from ..store import DriveRow, due_turns, hooks, requests, run_log, runs
from ..store import Hook as HookRow

_POLL_SECS = 0.05


@dataclass(frozen=True, slots=True)
class HookInfo:
    """An open hook, as ``get_hook`` returns it."""

    token: str
    run_id: str
    metadata: Any
    created_at: datetime
    is_webhook: bool


@dataclass(frozen=True, slots=True)
class NewQuestion:
    """
    The request that stands for a payload whose sender waits for a reply.

    Attributes:
        id: The id under which the reply is recorded.
        holder: The process that waits for the reply; None: no process.
    """

    id: str
    holder: str | None

    def row(self, hook: HookRow, now: int) -> requests.IncomingRequest:
        """What is recorded."""
        return requests.IncomingRequest(
            run_id=hook.run_id,
            op_id=hook.op_id,
            request=request_of(self.id, duration.to_datetime(now)),
            holder=self.holder,
            dedupe_key=None,
            answer=None,
            limit=0,
            at=now,
        )


@dataclass(frozen=True, slots=True)
class Delivered:
    """A payload that is committed to a run's inbox."""

    hook: HookRow
    run: DriveRow
    item_id: int


def resume_hook(engine: Engine, token: str, payload: object, wait: Any = None, wait_taken: Any = None) -> str:
    """
    Put *payload* into the inbox of the run that holds this token open, and return the run's id.

    Returns once the payload is committed; without *wait_taken* the run may not have seen it yet.  Two calls deliver two
    payloads.

    Args:
        token: The hook's token.
        payload: Any value that has a JSON form (docs/reference/values.md).
        wait: How long to wait for a hook that is about to be created, as ``sleep`` takes it.
        wait_taken: How long to wait until a turn of the run has taken the payload in, as ``sleep`` takes it.  When the
            time is over, the call returns all the same: the payload is committed, and a turn will take it in.

    Raises:
        HookNotFound: No hook with this token is open.  Nothing is recorded.
        HookPayloadError: The payload does not fit the type of the hook, or a validator refuses it.
        SerializationError: The payload has no JSON form.

    Nothing is recorded then.
    """
    refuse_in_workflow("resume_hook")
    return wait_in_thread(_resume_hook(engine, token, payload, wait, wait_taken))


async def aresume_hook(engine: Engine, token: str, payload: object, wait: Any = None, wait_taken: Any = None) -> str:
    """Do the same as ``resume_hook`` in an event loop."""
    refuse_in_workflow("aresume_hook")
    return await wait_in_loop(engine.loop_calls, _resume_hook(engine, token, payload, wait, wait_taken))


def _resume_hook(engine: Engine, token: str, payload: object, wait: Any, wait_taken: Any) -> Waiting[str]:
    taken_secs = _secs(wait_taken, "wait_taken")
    delivered = yield from delivering(engine, token, payload, wait)
    run_id = delivered.run.run_id
    if taken_secs:
        until = time.monotonic() + taken_secs
        with engine.completions.expected(run_id) as taken:
            while (left := until - time.monotonic()) > 0 and _is_waiting(engine, delivered.item_id):
                yield NextCheck(taken, left)
    return run_id


def deliver(
    engine: Engine, token: str, payload: object, wait: Any = None, *, question: NewQuestion | None = None
) -> Delivered:
    """
    Commit a payload to the inbox of the run that holds this token open, and send a turn of the run.

    Args:
        question: What its reply is recorded under; None if its sender waits for no reply.

    Raises:
        HookNotFound, HookPayloadError, SerializationError: Nothing is recorded; see ``resume_hook``.
    """
    return wait_in_thread(delivering(engine, token, payload, wait, question=question))


def delivering(
    engine: Engine, token: str, payload: object, wait: Any = None, *, question: NewQuestion | None = None
) -> Waiting[Delivered]:
    """Do what ``deliver`` does, and yield while there is no such hook yet."""
    engine.check_schema()
    began_at = engine.now()
    deadline = time.monotonic() + _secs(wait, "wait")

    def post(tx: Connection) -> Delivered | None:
        hook = hooks.lock_open(tx, token)
        if hook is None:
            return None
        text = codec.encode(_fitted(hook, payload, asks=question is not None), "payload")
        now = engine.store.now()
        received = events.HookReceived(at=now, op_id=hook.op_id, payload=text)
        if question is not None:
            requests.create(tx, question.row(hook, now))
            received = replace(received, request_id=question.id)
        item_id = run_log.post(tx, hook.run_id, received, engine.dispatch.plan(now))
        (run,) = due_turns.drives(tx, [hook.run_id])
        return Delivered(hook, run, item_id)

    while True:
        delivered = engine.store.write(post) if _is_valid(engine, token, payload) else None
        if delivered is not None:
            break
        left = deadline - time.monotonic()
        if left <= 0:
            raise HookNotFound(token)
        # Nothing notifies of a new hook.
        yield min(left, _POLL_SECS)
    failpoints.hit("hook.recorded")
    run = delivered.run
    engine.send_turns(run)
    if engine.tracing.is_on:
        carried = runs.trace_context(engine.store.vault, run.run_id, run.trace_context)
        engine.tracing.resumed(run.run_id, delivered.hook.op_id, carried, began_at, engine.now())
    return delivered


def _is_valid(engine: Engine, token: str, payload: object) -> bool:
    """
    Call the validators of the hook's type, in no transaction: they are the author's code.

    Returns:
        False if no hook with this token is open.

    Raises:
        HookPayloadError: The payload does not fit the type, or a validator refuses it.
    """
    if not any(each.validators for each in context.definitions.values()):
        return True
    with engine.store.read() as tx:
        hook = hooks.find(tx, token)
    if hook is None or not hook.open:
        return False
    definition = context.definitions.get(hook.name)
    if definition is not None:
        greenlets.in_thread(definition.validate, token, payload)
    return True


def _fitted(hook: HookRow, payload: object, *, asks: bool) -> object:
    """
    The payload as the hook takes it.  A process that knows the hook's type checks the payload against it.

    Raises:
        HookPayloadError: The hook does not take it.
    """
    definition = context.definitions.get(hook.name)
    if asks and hook.config is not None:
        refusal = "a webhook answers over HTTP: send the request to its URL"
    elif hook.config is not None and not isinstance(payload, Request):
        refusal = "a webhook takes a durable.Request"
    elif asks and definition is not None and not definition.takes_questions:
        refusal = f"the hook {hook.name!r} does not reply: declare the type of its replies, define_hook(..., reply=...)"
    else:
        return payload if definition is None else definition.fit(hook.token, payload)
    raise HookPayloadError(hook.token, [{"type": "refused", "loc": (), "msg": refusal}])


def _secs(given: Any, what: str) -> float:
    return 0 if given is None else duration.to_micros(given, what=what) / 1_000_000


def _is_waiting(engine: Engine, item_id: int) -> bool:
    with engine.store.read() as tx:
        return run_log.is_in_inbox(tx, item_id)


def new_request_id() -> str:
    """Return more than 140 random bits as text: a poll needs no more than this id."""
    # Without a leading hyphen, which the command line would take for an option.
    return secrets.token_urlsafe(18).replace("-", "_")


def get_hook(engine: Engine, token: str) -> HookInfo:
    """Return an open hook.  Raise HookNotFound when no hook with this token is open."""
    refuse_in_workflow("get_hook")
    engine.check_schema()
    with engine.store.read() as tx:
        hook = hooks.find(tx, token)
        if hook is None or not hook.open:
            raise HookNotFound(token)
        metadata = hooks.metadata_of(tx, hook)
        loaded = requests.load(tx, codec.request_ids(metadata or ""))
    return HookInfo(
        token=hook.token,
        run_id=hook.run_id,
        metadata=None if metadata is None else codec.decode(metadata, loaded),
        created_at=duration.to_datetime(hook.created_at),
        is_webhook=hook.config is not None,
    )


def respond(engine: Engine, request_id: str, response: Response) -> bool:
    """Answer a webhook request from outside a step.  Return False when it has an answer already."""
    with engine.store.begin() as tx:
        holder = requests.answer(tx, request_id, response, engine.store.now())
    if holder is None:
        return False
    failpoints.hit("response.recorded")
    engine.notify(holder, request_id)
    return True
