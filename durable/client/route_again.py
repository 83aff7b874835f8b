"""Route a recorded request again: by hand after the rules were corrected, or because it waits no longer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from .. import context
from ..context import ReceiverDefinition, ResumeRule
from ..engine import Engine
from ..errors import ConfigurationError
from ..sandbox import log_records
from ..store import ReceivedRow, RequestOutcome, hooks, reason, received, requests
from ..verify import keys
from .arrival import Arrival, arrival_of, arrivals_of
from .placement import NO_HOOK, Placement, TooManyPending, find_place
from .receive import Reception, reception_of, record, row_of, send, write

log = log_records.get("durable.receivers")

#: The most requests that are routed at once, when a hook with their token is opened.
_MOST = 1_000


def route_again(
    engine: Engine, request_id: str, outcomes: Collection[str] = received.UNREACHED
) -> list[Reception] | None:
    """
    Route a recorded request again, by the rules that this process has.

    Returns:
        What became of it, or of each event if it is a batch; None if it has reached a run meanwhile, or is unknown.

    Raises:
        ConfigurationError: This process has not imported the receiver.
        TooManyPending: Too many requests to the hook are waiting; it stays as it is.
    """
    engine.check_schema()
    with engine.store.read() as tx:
        row = received.find(tx, request_id)
        request = requests.load(tx, [request_id]).get(request_id)
    if row is None or request is None or row.outcome not in outcomes:
        return None
    receiver = context.receivers.get(row.receiver)
    if receiver is None:
        raise ConfigurationError(
            f"Request {request_id} came to the receiver {row.receiver!r}, which this application does not have: add its"
            " module to the Celery app's include or imports, or name the application with --app."
        )
    is_batch = row.rule == "each" and row.outcome == RequestOutcome.UNROUTABLE
    key = keys.key_of(receiver.config.dedupe, request) if row.outcome == RequestOutcome.REJECTED else row.dedupe_key
    arrivals = (
        arrivals_of(engine, receiver, request)
        if is_batch
        else [arrival_of(engine, receiver, request, key, row.waits_until)]
    )

    def act(tx: Connection) -> list[Reception] | None:
        locked = received.lock(tx, request_id, outcomes)
        if locked is None:
            return None
        if is_batch and arrivals[0].request_id != request_id:
            received.remove(tx, request_id)
            return [record(engine, tx, receiver, each, None) for each in arrivals]
        return [_change(engine, tx, receiver, locked, arrivals[0])]

    receptions: list[Reception] | None = write(engine, act)
    send(engine, receptions or [])
    return receptions


def _change(
    engine: Engine, tx: Connection, receiver: ReceiverDefinition, row: ReceivedRow, arrival: Arrival
) -> Reception:
    """Write what becomes of a request that is recorded already."""
    if row.dedupe_key is None and arrival.key is not None:
        earlier = received.find_by_key(tx, receiver.name, arrival.key)
        if earlier is not None:
            # Its sender has sent it again, and that copy was accepted.
            return Reception(
                request_id=earlier.request_id, outcome=earlier.outcome, run_id=earlier.run_id, is_duplicate=True
            )
    place = find_place(engine, tx, receiver, arrival)
    still_waits = row.outcome == RequestOutcome.WAITING and row.waits_until is not None
    if place.outcome == RequestOutcome.WAITING and still_waits:
        return reception_of(row.request_id, place)
    if place.run_id is not None:
        requests.move(tx, row.request_id, place.run_id, place.op_id)
    key = None if place.outcome == RequestOutcome.REJECTED else arrival.key
    received.change(tx, row_of(row.receiver, row.request_id, row.received_at, key, place))
    return _answered(engine, tx, row.request_id, place)


def _answered(engine: Engine, tx: Connection, request_id: str, place: Placement) -> Reception:
    """Answer a request that nobody has answered, if its place comes with an answer."""
    holder = None
    if place.answer is not None:
        holder = requests.answer(tx, request_id, place.answer, engine.store.now())
    return replace(reception_of(request_id, place), notifies=holder or "")


# Requests that wait


def route_waiting(engine: Engine, limit: int) -> int:
    """Route requests that wait no longer: their hook is open, or their time is over.  Return how many."""
    with engine.store.read() as tx:
        due = received.due(tx, engine.now(), limit)
    return _route_each(engine, due[:limit])


def route_held(engine: Engine, receiver: str, limit: int) -> bool:
    """Route the oldest requests that came while a receiver was paused; return whether there may be more."""
    with engine.store.read() as tx:
        held = received.held(tx, receiver, limit)
    _route_each(engine, held)
    return len(held) == limit


def hooks_opened(engine: Engine, tokens: Sequence[str]) -> None:
    """Route the requests that wait for hooks with these tokens.  Never raises: the sweep routes what is left."""
    if not any(isinstance(rule, ResumeRule) for each in context.receivers.values() for rule in each.rules):
        return
    try:
        with engine.store.read() as tx:
            waiting = received.waiting_for(tx, [hooks.token_hash(token) for token in tokens], _MOST)
        _route_each(engine, waiting)
    except SQLAlchemyError as error:
        log.warning("Requests that wait for a hook are left to the sweep: %s.", reason(error))


def _route_each(engine: Engine, request_ids: Sequence[str]) -> int:
    """Route these requests; return how many wait no longer."""
    routed = 0
    for request_id in request_ids:
        try:
            routed += route_again(engine, request_id, [RequestOutcome.WAITING]) is not None
        except ConfigurationError:
            # Another process has the receiver.
            _miss_if_over(engine, request_id)
        except TooManyPending:
            log.warning("Request %s waits longer: too many requests wait at the hook that it is for.", request_id)
        except SQLAlchemyError:
            raise
        except Exception:
            # It must not keep the others waiting.
            log.exception("Request %s could not be routed.", request_id)
            _miss_if_over(engine, request_id)
    return routed


def _miss_if_over(engine: Engine, request_id: str) -> None:
    """Give a request up that has waited long enough."""

    def act(tx: Connection) -> Reception | None:
        row = received.lock(tx, request_id, [RequestOutcome.WAITING])
        if row is None or row.waits_until is None or row.waits_until > engine.store.now():
            return None
        place = Placement(outcome=RequestOutcome.MISSED, rule=row.rule, token=row.token, answer=NO_HOOK)
        received.change(tx, row_of(row.receiver, row.request_id, row.received_at, row.dedupe_key, place))
        return _answered(engine, tx, request_id, place)

    missed: Reception | None = engine.store.write(act)
    if missed is not None:
        send(engine, [missed])
