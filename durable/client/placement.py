"""
Where a request to a receiver belongs: the run that it starts, the hook that it resumes, or neither.

Everything here happens in the transaction that records the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from .. import codec, context, events, greenlets
from ..context import ReceiverDefinition, ResumeRoute, StartRoute, Unroutable
from ..engine import Engine
from ..errors import HookPayloadError, SerializationError
from ..http import Response, problem
from ..store import (
    Cause,
    DriveRow,
    Hook,
    LimitKey,
    RequestOutcome,
    due_turns,
    hooks,
    pauses,
    received,
    requests,
    run_log,
)
from .arrival import Arrival, Settled, unroutable

#: Names of hooks without a type, which receive the request itself.
_UNTYPED = ("hook", "webhook")

_ACCEPTED = Response(status=202)
NO_HOOK = problem(404, "no-open-hook", "Not found", "No run waits for this request.")


class TooManyPending(Exception):
    """Raised when ``max_pending`` requests to a hook are waiting; the request is not recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where a request belongs, and the columns of its row."""

    outcome: RequestOutcome
    rule: str | None = None
    run_id: str | None = None
    op_id: str = events.ROOT
    answer: Response | None = None
    detail: str | None = None
    token: str | None = None
    waits_for: str | None = None
    waits_until: int | None = None
    started_for: str | None = None
    #: What the message for the run's turn is made from.
    drive: DriveRow | None = None
    #: The limits that a new run waits for.
    limit_keys: Sequence[LimitKey] = ()


def find_place(engine: Engine, tx: Connection, receiver: ReceiverDefinition, arrival: Arrival) -> Placement:
    """Start the run, or give the request to the open hook; say what becomes of a request that does neither."""
    route = arrival.route
    if isinstance(route, Settled):
        return Placement(outcome=route.outcome, rule=route.rule, answer=route.answer, detail=route.detail)
    if isinstance(route, StartRoute):
        return _start(engine, tx, receiver, arrival)
    hook = hooks.lock_open(tx, route.token)
    if hook is None:
        return _without_hook(engine, tx, receiver, arrival, route)
    try:
        event = _event_for(engine, tx, receiver, hook, arrival.request_id, route)
    except Unroutable as reason:
        settled = unroutable(receiver, arrival.request, reason)
        return Placement(outcome=settled.outcome, rule=settled.rule, answer=settled.answer, detail=settled.detail)
    run_log.post(tx, hook.run_id, event, engine.dispatch.plan(event.at))
    (drive,) = due_turns.drives(tx, [hook.run_id])
    return Placement(
        outcome=RequestOutcome.RESUMED,
        rule=route.rule.label,
        run_id=hook.run_id,
        op_id=hook.op_id,
        answer=_static_answer(receiver),
        token=route.token,
        drive=drive,
    )


def held_place(engine: Engine, tx: Connection, receiver: ReceiverDefinition, arrival: Arrival) -> Placement | None:
    """What becomes of a request to a paused receiver: it is routed after the resume; None for any other request."""
    if isinstance(arrival.route, Settled) or not engine.pauses.has(pauses.RECEIVER, receiver.name):
        return None
    if not pauses.is_active(tx, Cause(pauses.RECEIVER, receiver.name)):
        return None
    return Placement(outcome=RequestOutcome.WAITING, answer=_static_answer(receiver))


def _start(engine: Engine, tx: Connection, receiver: ReceiverDefinition, arrival: Arrival) -> Placement:
    run = arrival.run
    assert run is not None, "a route that starts a run comes with the run"
    created = run.create(engine, tx)
    return Placement(
        outcome=RequestOutcome.STARTED,
        rule=f"start {run.row.name}",
        run_id=created.run_id,
        answer=_static_answer(receiver),
        drive=created.drive,
        limit_keys=created.limit_keys,
    )


def _event_for(
    engine: Engine, tx: Connection, receiver: ReceiverDefinition, hook: Hook, request_id: str, route: ResumeRoute
) -> events.HookReceived:
    """
    What the hook's run receives.

    Raises:
        Unroutable: The hook cannot receive it.
        TooManyPending: Too many requests to the hook are waiting.
    """
    limit, is_held = engine.settings.max_pending, receiver.config.mode == "manual"
    if 0 < limit <= requests.count_pending(tx, hook.run_id, hook.op_id, held=is_held, limit=limit):
        raise TooManyPending(f"{limit} requests to the hook are waiting already, as many as max_pending allows.")
    now = engine.store.now()
    if route.payload is None:
        if hook.name not in _UNTYPED:
            raise Unroutable(
                route.rule.label,
                f"the hook's payloads are {hook.name}, not requests: give resume a function payload=... that returns"
                " one",
            )
        return events.HookReceived(at=now, op_id=hook.op_id, request_id=request_id)
    (payload,) = route.payload
    if hook.config is not None:
        raise Unroutable(route.rule.label, "the token is a webhook's, which receives the request: remove payload=")
    definition = context.definitions.get(hook.name)
    try:
        if definition is not None and definition.validators:
            # They are the author's code, which may block.
            payload = greenlets.in_thread(definition.validate, hook.token, payload)
        elif definition is not None:
            payload = definition.fit(hook.token, payload)
        text = codec.encode(payload, "payload")
    except (HookPayloadError, SerializationError) as error:
        raise Unroutable(route.rule.label, str(error)) from error
    except SQLAlchemyError:  # a validator may ask a database, which answers when the request comes again
        raise
    except Exception as error:
        described = f"the validation of the payload raised {type(error).__name__}: {error}"
        raise Unroutable(route.rule.label, described) from error
    return events.HookReceived(at=now, op_id=hook.op_id, payload=text)


def _without_hook(
    engine: Engine, tx: Connection, receiver: ReceiverDefinition, arrival: Arrival, route: ResumeRoute
) -> Placement:
    """What becomes of a request for whose token no hook is open."""
    rule, token, now = route.rule, route.token, engine.store.now()
    answer = _static_answer(receiver)
    place = Placement(outcome=RequestOutcome.MISSED, rule=rule.label, token=token, answer=answer or NO_HOOK)
    if rule.missing == "accept":
        return replace(place, outcome=RequestOutcome.ACCEPTED, answer=answer or _ACCEPTED)
    if rule.missing == "reject":
        return replace(place, outcome=RequestOutcome.REJECTED, answer=NO_HOOK)
    hashed = hooks.token_hash(token)
    if rule.missing == "start" and received.running_for(tx, hashed) is None:
        received.forget_ended(tx, hashed)
        return replace(_start(engine, tx, receiver, arrival), token=token, started_for=hashed)
    until = now + rule.wait if arrival.waits_until is None else arrival.waits_until
    if until <= now:
        return place
    return replace(place, outcome=RequestOutcome.WAITING, waits_for=hashed, waits_until=until, answer=answer)


def _static_answer(receiver: ReceiverDefinition) -> Response | None:
    """The answer that needs no step; None if a step gives it."""
    return None if receiver.config.mode == "manual" else receiver.config.response or _ACCEPTED
