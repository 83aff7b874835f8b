"""
What became of each request to a receiver: which rule it matched, and which run it has started or resumed.

The request itself is a row of ``requests``.  It belongs to the run that it has reached, which answers it; a request
that has reached no run belongs to none, and ``owner`` names the place of its values instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, update

from . import vault
from .distinct import distinct
from .hooks import Refusals
from .schema import hooks, received, receivers, requests, runs
from .transitions import ENDED
from .upsert import upsert


class RequestOutcome(StrEnum):
    """What became of a request to a receiver, as it is recorded."""

    #: It has started a run.
    STARTED = "started"
    #: An open hook of a run has received it.
    RESUMED = "resumed"
    #: It waits for a hook that is about to be created, or for its receiver, which is paused.
    WAITING = "waiting"
    #: No such hook was created in time.
    MISSED = "missed"
    #: No hook was open, and the rule says that this is all right.
    ACCEPTED = "accepted"
    #: No hook was open, and the rule says to refuse the request.
    REJECTED = "rejected"
    #: No rule matched it.
    IGNORED = "ignored"
    #: A function of a rule raised, or returned something that cannot be used.
    UNROUTABLE = "unroutable"


#: What can be routed again: the request has reached no run, and waits for none.
UNREACHED = (
    RequestOutcome.UNROUTABLE,
    RequestOutcome.MISSED,
    RequestOutcome.IGNORED,
    RequestOutcome.ACCEPTED,
    RequestOutcome.REJECTED,
)
#: What is routed again unless the caller names other outcomes: a person expected these to reach a run.
LOST = (RequestOutcome.UNROUTABLE, RequestOutcome.MISSED)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedRow:
    """A row.  ``detail`` is as it is stored; ``detail_of`` decrypts it."""

    request_id: str
    receiver: str
    received_at: int
    dedupe_key: str | None = None
    outcome: str
    rule: str | None = None
    run_id: str | None = None
    token: str | None = None
    waits_for: str | None = None
    waits_until: int | None = None
    started_for: str | None = None
    detail: str | None = None


_ROW = select(*received.c)


def owner(request_id: str) -> str:
    """In place of a run's id, what the values of a request are stored under that has reached no run."""
    return f"receiver:{request_id}"


def create(tx: Connection, row: ReceivedRow) -> None:
    """Insert the row; raises IntegrityError when a request with its key, or a start for its token, came meanwhile."""
    tx.execute(insert(received), _values(tx, row))


def change(tx: Connection, row: ReceivedRow) -> None:
    """Write all columns of a row that this transaction has locked; raises IntegrityError as ``create`` does."""
    tx.execute(update(received).where(received.c.request_id == row.request_id).values(_values(tx, row)))


def remove(tx: Connection, request_id: str) -> None:
    """Delete a row, and its request."""
    for table, column in ((received, received.c.request_id), (requests, requests.c.id)):
        tx.execute(delete(table).where(column == request_id))


def _values(tx: Connection, row: ReceivedRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in received.c.keys()}  # noqa: SIM118
    return values | {"detail": vault.of(tx).seal(tx, owner(row.request_id), "detail", row.detail)}


def detail_of(tx: Connection, row: ReceivedRow) -> str | None:
    """The row's detail, decrypted.  Raises what ``Vault.unseal`` and ``Vault.fetch`` raise."""
    own_vault, place = vault.of(tx), owner(row.request_id)
    return own_vault.fetch(tx, place, own_vault.unseal(place, "detail", row.detail))


def find_by_key(tx: Connection, receiver: str, key: str) -> ReceivedRow | None:
    """The receiver's request with this dedupe key."""
    return _one(tx, received.c.receiver == receiver, received.c.dedupe_key == key)


def find(tx: Connection, request_id: str) -> ReceivedRow | None:
    """The row of this request."""
    return _one(tx, received.c.request_id == request_id)


def lock(tx: Connection, request_id: str, outcomes: Collection[str]) -> ReceivedRow | None:
    """The row of this request, locked until this transaction ends; None if another process has routed it meanwhile."""
    query = _ROW.where(received.c.request_id == request_id, received.c.outcome.in_(outcomes))
    row = tx.execute(query.with_for_update()).mappings().one_or_none()
    return None if row is None else ReceivedRow(**row)


def _one(tx: Connection, *where: Any) -> ReceivedRow | None:
    row = tx.execute(_ROW.where(*where)).mappings().one_or_none()
    return None if row is None else ReceivedRow(**row)


def running_for(tx: Connection, token_hash: str) -> str | None:
    """The run that a request has started for this token, unless it has ended."""
    is_running = runs.c.status.not_in(ENDED)
    query = select(received.c.run_id).join(runs, runs.c.id == received.c.run_id)
    return tx.execute(query.where(received.c.started_for == token_hash, is_running)).scalar_one_or_none()


def forget_ended(tx: Connection, token_hash: str) -> None:
    """Let another request start a run for this token, if the run that one has started for it has ended."""
    # The condition is in the statement itself: another process may have committed a start a moment ago.
    has_ended = received.c.run_id.in_(select(runs.c.id).where(runs.c.status.in_(ENDED)))
    tx.execute(update(received).where(received.c.started_for == token_hash, has_ended).values(started_for=None))


def due(tx: Connection, now: int, limit: int) -> list[str]:
    """Requests that wait no longer: a hook with their token is open, or their time is over; at most *limit* each."""
    found = select(received.c.request_id)
    is_open = hooks.c.active_token_hash == received.c.waits_for
    opened = found.join(hooks, is_open).where(received.c.waits_until.is_not(None)).order_by(received.c.waits_until)
    over = found.where(received.c.waits_until <= now).order_by(received.c.waits_until)
    ids = [row for query in (opened, over) for row in tx.execute(query.limit(limit)).scalars()]
    return list(dict.fromkeys(ids))


def held(tx: Connection, receiver: str, limit: int) -> list[str]:
    """Requests that came while the receiver was paused, in the order in which they came."""
    query = select(received.c.request_id).where(*_is_held(receiver))
    return list(tx.execute(query.order_by(received.c.received_at, received.c.request_id).limit(limit)).scalars())


def count_held(tx: Connection, receiver: str, limit: int) -> int:
    """How many these are, counted up to *limit*."""
    some = select(received.c.request_id).where(*_is_held(receiver)).limit(limit)
    return int(tx.execute(select(func.count()).select_from(some.subquery())).scalar_one())


def _is_held(receiver: str) -> tuple[ColumnElement[bool], ...]:
    mine = (received.c.receiver == receiver, received.c.outcome == RequestOutcome.WAITING)
    return (*mine, received.c.waits_until.is_(None))


def waiting_for(tx: Connection, token_hashes: Collection[str], limit: int) -> list[str]:
    """Requests that wait for hooks with these tokens, in the order in which they came."""
    query = select(received.c.request_id).where(received.c.waits_for.in_(token_hashes))
    return list(tx.execute(query.order_by(received.c.received_at, received.c.request_id).limit(limit)).scalars())


def newest(
    tx: Connection, *, receiver: str | None, outcomes: Collection[str], limit: int, oldest_first: bool = False
) -> list[ReceivedRow]:
    """Rows of one receiver or of all, with these outcomes; none given means any."""
    query = _ROW if receiver is None else _ROW.where(received.c.receiver == receiver)
    if outcomes:
        query = query.where(received.c.outcome.in_(outcomes))
    order = [received.c.received_at, received.c.request_id]
    query = query.order_by(*(order if oldest_first else [column.desc() for column in order]))
    return [ReceivedRow(**row) for row in tx.execute(query.limit(limit)).mappings()]


def of_requests(tx: Connection, ids: Sequence[str]) -> dict[str, ReceivedRow]:
    """The rows of these requests; those to webhooks have none."""
    rows = tx.execute(_ROW.where(received.c.request_id.in_(ids))).mappings() if ids else ()
    return {row["request_id"]: ReceivedRow(**row) for row in rows}


def counts(tx: Connection) -> dict[tuple[str, str], int]:
    """How many requests there are, by receiver and outcome."""
    query = select(received.c.receiver, received.c.outcome, func.count())
    rows = tx.execute(query.group_by(received.c.receiver, received.c.outcome))
    return {(receiver, outcome): int(count) for receiver, outcome, count in rows}


def names(tx: Connection) -> list[str]:
    """The names of the receivers that have received requests, in order; at most ``MOST_VALUES``."""
    return distinct(tx, received.c.receiver)


def add_refused(tx: Connection, refused: Mapping[str, Refusals]) -> None:
    """Add what receivers have refused.  In the order of their names, as ``totals.add`` does."""
    rows = [
        {"name": name, "refused": each.count, "refused_at": each.at, "refusal": each.reason[:255]}
        for name, each in sorted(refused.items())
    ]
    upsert(
        tx,
        receivers,
        rows,
        lambda new: {
            "refused": receivers.c.refused + new.refused,
            "refused_at": new.refused_at,
            "refusal": new.refusal,
        },
    )


def refusing(tx: Connection, since: int, limit: int) -> dict[str, Refusals]:
    """The receivers that have refused a request since then, by name; the latest refusal first."""
    query = select(*receivers.c).where(receivers.c.refused_at >= since).order_by(receivers.c.refused_at.desc())
    return {
        row.name: Refusals(int(row.refused), int(row.refused_at), row.refusal) for row in tx.execute(query.limit(limit))
    }


def old(tx: Connection, before: int, limit: int) -> list[str]:
    """Requests that came before then, have reached no run and wait for none; at most *limit*."""
    return list(tx.execute(select(received.c.request_id).where(*_is_old(before)).limit(limit)).scalars())


def remove_old(tx: Connection, ids: Sequence[str], before: int) -> int:
    """Delete those of these requests that are still as ``old`` says; return how many."""
    # One that was routed again meanwhile has a run now, and stays.
    query = select(received.c.request_id).where(received.c.request_id.in_(ids), *_is_old(before))
    found = list(tx.execute(query.with_for_update()).scalars())
    tx.execute(delete(requests).where(requests.c.id.in_(found)))
    tx.execute(delete(received).where(received.c.request_id.in_(found)))
    return len(found)


def _is_old(before: int) -> tuple[Any, ...]:
    waits = or_(received.c.waits_until.is_not(None), received.c.outcome == RequestOutcome.WAITING)
    return received.c.run_id.is_(None), received.c.received_at < before, ~waits
