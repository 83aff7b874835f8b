"""
Requests to receivers.  A request is recorded in the transaction that starts its run, or that gives it to a hook.

So a crash leaves both or neither, and a copy of the request finds the first one with its run.  Messages are sent after
the commit; the sweep sends those that a crash has lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from .. import events, failpoints, greenlets
from ..context import ReceiverDefinition, Unroutable
from ..engine import Engine
from ..http import Request, Response
from ..store import DriveRow, LimitKey, ReceivedRow, RequestOutcome, received, requests
from ..verify import keys
from . import run_limits
from .arrival import Arrival, arrivals_of, unroutable
from .placement import Placement, find_place, held_place

T = TypeVar("T")

#: How often a request is recorded again, because another process has recorded a copy, or started the run, meanwhile.
_TRIES = 5


class KeyReused(Exception):
    """Raised when a request has the dedupe key of an earlier one but another body; it is not recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reception:
    """
    What became of one request to a receiver.

    Attributes:
        request_id: The id under which it is recorded; that of the earlier request if this one is a copy.
        answer: The answer that was recorded with it; None if a step gives it, and for a copy.
        op_id: The hook that has received it.
        drive: What the message for the turn of its run is made from.
        limit_keys: The limits that its new run waits for.
        notifies: The process to notify of the answer; "" for none.
    """

    request_id: str
    outcome: str
    run_id: str | None = None
    op_id: str = events.ROOT
    answer: Response | None = None
    is_duplicate: bool = False
    drive: DriveRow | None = None
    limit_keys: Sequence[LimitKey] = ()
    notifies: str = ""


def accept(
    engine: Engine, receiver: ReceiverDefinition, request: Request, *, holder: str | None = None
) -> list[Reception]:
    """
    Commit a request, or each event of a batch, with what it does to runs; then send their turns.

    Args:
        request: The request, with its id; its sender is verified.
        holder: The process that holds the connection, which is notified of the answer; None: no process.

    Raises:
        KeyReused, TooManyPending: Nothing is recorded.
        ConfigurationError: This process lacks something that the receiver or its workflow needs; nothing is recorded.
    """
    # A web process sends no heartbeats.
    engine.pauses.read_if_older(engine.store, engine.settings.beat_interval / 1_000_000)
    # Functions of the application: they may block.
    arrivals = greenlets.in_thread(arrivals_of, engine, receiver, request)
    receptions = write(engine, lambda tx: [record(engine, tx, receiver, each, holder) for each in arrivals])
    send(engine, receptions)
    return receptions


def send(engine: Engine, receptions: Sequence[Reception]) -> None:
    """Send the turns of the runs that requests have reached, once that is committed."""
    failpoints.hit("request.recorded")
    engine.dispatch.send_turns([each.drive for each in receptions if each.drive is not None])
    run_limits.admit(engine, {key for each in receptions for key in each.limit_keys})
    for each in receptions:
        engine.notify(each.notifies, each.request_id)


def write(engine: Engine, act: Callable[[Connection], T]) -> T:
    """Call *act* in a transaction; again, when another process has written a row that was to be unique."""
    for _ in range(_TRIES - 1):
        try:
            return engine.store.write(act)
        except IntegrityError:
            continue
    return engine.store.write(act)


def record(
    engine: Engine, tx: Connection, receiver: ReceiverDefinition, arrival: Arrival, holder: str | None
) -> Reception:
    """Write a request that is new, and what it does to runs."""
    key, request = arrival.key, arrival.request
    earlier = None if key is None else received.find_by_key(tx, receiver.name, key)
    if earlier is not None:
        if _is_copy(tx, receiver, earlier, request):
            return Reception(
                request_id=earlier.request_id, outcome=earlier.outcome, run_id=earlier.run_id, is_duplicate=True
            )
        if receiver.each is None:
            raise KeyReused(earlier.request_id)
        reason = Unroutable("dedupe", f"the event {earlier.request_id} has the same key and another body")
        arrival, key = replace(arrival, route=unroutable(receiver, request, reason)), None
    place = held_place(engine, tx, receiver, arrival) or find_place(engine, tx, receiver, arrival)
    now = engine.store.now()
    row = requests.IncomingRequest(
        run_id=place.run_id or received.owner(arrival.request_id),
        op_id=place.op_id,
        request=request,
        holder=holder,
        dedupe_key=None,
        answer=place.answer,
        limit=0,
        at=now,
    )
    requests.create(tx, row)
    # A sender that was refused sends the request again, when there may be a hook: it must not find itself.
    key = None if place.outcome == RequestOutcome.REJECTED else key
    received.create(tx, row_of(receiver.name, arrival.request_id, now, key, place))
    return reception_of(arrival.request_id, place)


def _is_copy(tx: Connection, receiver: ReceiverDefinition, earlier: ReceivedRow, request: Request) -> bool:
    recorded = requests.load(tx, [earlier.request_id]).get(earlier.request_id)
    return recorded is None or keys.is_same_body(receiver.config.dedupe, recorded.data, request.data)


def row_of(receiver: str, request_id: str, received_at: int, key: str | None, place: Placement) -> ReceivedRow:
    return ReceivedRow(
        request_id=request_id,
        receiver=receiver,
        received_at=received_at,
        dedupe_key=key,
        outcome=place.outcome,
        rule=place.rule and place.rule[:255],
        run_id=place.run_id,
        token=place.token,
        waits_for=place.waits_for,
        waits_until=place.waits_until,
        started_for=place.started_for,
        detail=place.detail,
    )


def reception_of(request_id: str, place: Placement) -> Reception:
    return Reception(
        request_id=request_id,
        outcome=place.outcome,
        run_id=place.run_id,
        op_id=place.op_id,
        answer=place.answer,
        drive=place.drive,
        limit_keys=place.limit_keys,
    )
