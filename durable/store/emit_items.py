"""
Emit items: add them to streams, and close streams.

On PostgreSQL, what a step emits to a stream that is there is one statement.  Elsewhere, and in any other case, it is
several in one transaction.  What was emitted to a stream after its end is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, select, text, update

from ..registry import StreamOptions
from . import claims, vault
from .claims import Claim
from .database import Store
from .runs import find
from .schema import runs, stream_items, streams
from .statements import Prepared, array
from .streams import place_of
from .transitions import ENDED
from .upsert import upsert


class NewItem(NamedTuple):
    """
    An item that is emitted to a stream, or the stream's end.

    Attributes:
        item: The encoded item; None closes the stream.
        begins: Whether this is the first item of an attempt in the stream: earlier ones of the step may be void.
    """

    name: str
    item: str | None
    at: int
    options: StreamOptions
    begins: bool = False


@dataclass(frozen=True, slots=True)
class StreamEmitter:
    """The attempt of a step that emits."""

    run_id: str
    op_id: str
    attempt: int


class Written(NamedTuple):
    """
    What came of items that a step has emitted.

    Attributes:
        key: The run that the streams belong to; None if nothing is written, since the attempt was given up, or its run
            has ended.
        dropped: The streams to which something was emitted after their end; of each, how many items were written.
    """

    key: str | None
    dropped: Mapping[str, int] = {}


# The statement for PostgreSQL: each part writes only if the part before it has found or written a row.

_ENDED = ", ".join(f"'{status}'" for status in ENDED)
_AT_ONCE = Prepared(
    text(
        "WITH held AS (SELECT run_id FROM durable_steps"
        " WHERE run_id = :run AND op_id = :step AND claim = :claim FOR UPDATE),"
        " owner AS (SELECT coalesce(durable_runs.first_run_id, durable_runs.id) AS id FROM durable_runs, held"
        f" WHERE durable_runs.id = held.run_id AND durable_runs.status NOT IN ({_ENDED})),"
        " stream AS (UPDATE durable_streams SET next_number = next_number + :count, keep = CAST(:keep AS bigint),"
        " step_run_id = CAST(:ends_run AS varchar), step_id = CAST(:ends_step AS varchar) FROM owner"
        " WHERE durable_streams.run_id = owner.id AND durable_streams.name = :name"
        " AND durable_streams.closed_at IS NULL"
        " RETURNING durable_streams.run_id, durable_streams.next_number),"
        " written AS (INSERT INTO durable_stream_items (run_id, name, number, at, step_id, attempt, discards, item)"
        " SELECT stream.run_id, :name, stream.next_number - :count + new.place - 1, new.at, :step,"
        " CAST(:attempt AS integer), false, new.item FROM stream,"
        " unnest(CAST(:times AS bigint[]), CAST(:items AS text[])) WITH ORDINALITY AS new (at, item, place))"
        " SELECT run_id, next_number FROM stream"
    )
)


def commit(store: Store, held: Claim, items: Sequence[NewItem]) -> Written:
    """Write what an attempt has emitted, in a transaction of its own."""
    if store.dialect == "postgresql" and _is_simple(store, items):
        like = items[0]
        ends = like.options.until == "step"
        parameters = {"run": held.run_id, "step": held.op_id, "claim": held.claim, "attempt": held.attempt}
        parameters |= {"name": like.name, "count": len(items), "keep": like.options.keep}
        parameters |= {"ends_run": held.run_id if ends else None, "ends_step": held.op_id if ends else None}
        parameters |= {"times": array(each.at for each in items), "items": array(each.item for each in items)}
        with store.single_statement() as tx:
            row = _AT_ONCE.one(tx, parameters)
        if row is not None:
            if like.options.keep is not None and row.next_number > like.options.keep:
                store.write(lambda tx: _trim(tx, row.run_id, like.name, row.next_number - like.options.keep))
            return Written(row.run_id)
        # The stream is not there yet, or it is closed, or the attempt was given up.
    return store.write(lambda tx: write(tx, held, items))


def _is_simple(store: Store, items: Sequence[NewItem]) -> bool:
    """Whether the items go to one stream as they are, and none closes it or discards others."""
    like = items[0]
    return store.vault.cipher is None and all(
        each.name == like.name
        and each.item is not None
        and each.options == like.options
        and not (each.begins and each.options.on_retry == "discard")
        for each in items
    )


def write(tx: Connection, held: Claim, items: Sequence[NewItem], *, is_retry: bool = False) -> Written:
    """
    Write what an attempt has emitted, in a transaction of the caller's.

    Args:
        is_retry: Whether an earlier transaction with these items may have been committed.
    """
    key = key_of(tx, held.run_id) if claims.is_held(tx, held) else None
    if key is None:
        return Written(None)
    emitter = StreamEmitter(held.run_id, held.op_id, held.attempt)
    if is_retry and is_written(tx, key, items, emitter):
        return Written(key)
    return Written(key, append(tx, key, items, emitter))


def key_of(tx: Connection, run_id: str) -> str | None:
    """The run that the streams of this one belong to; None if the run has ended or is gone."""
    row = tx.execute(select(runs.c.status, runs.c.first_run_id).where(runs.c.id == run_id)).one_or_none()
    return None if row is None or row.status in ENDED else row.first_run_id or run_id


def append(
    tx: Connection, key: str, emitted: Sequence[NewItem], emitter: StreamEmitter | None = None
) -> dict[str, int]:
    """
    Add items to streams of a run, and close them, in the order of the calls.

    Args:
        key: The run that the streams belong to.
        emitter: The step that emits; None for the workflow.

    Returns:
        The names of the streams to which something was emitted after their end, which is dropped; of each, how many
        items were written.
    """
    dropped: dict[str, int] = {}
    # In the order of the names, so that two writers do not wait for each other.
    for name in sorted({each.name for each in emitted}):
        mine = [each for each in emitted if each.name == name]
        end = next((place for place, each in enumerate(mine) if each.item is None), None)
        items = mine if end is None else mine[:end]
        if not _extend(tx, key, mine[0], items, emitter):
            dropped[name] = 0
            continue
        if end is not None:
            _close(tx, mine[end].at, streams.c.run_id == key, streams.c.name == name)
            if len(mine) > end + 1:
                dropped[name] = end
    return dropped


def _extend(tx: Connection, key: str, like: NewItem, items: Sequence[NewItem], emitter: StreamEmitter | None) -> bool:
    """Add items to the stream of *like*, which is made if it is not there; False if it is closed."""
    name, options = like.name, like.options
    mine = (streams.c.run_id == key, streams.c.name == name)
    ends = emitter if options.until == "step" else None
    changes = {
        "next_number": streams.c.next_number + len(items),
        "keep": options.keep,
        "step_run_id": None if ends is None else ends.run_id,
        "step_id": None if ends is None else ends.op_id,
    }
    move_on = update(streams).where(*mine, streams.c.closed_at.is_(None)).values(changes)
    if tx.execute(move_on).rowcount == 0:
        row = {"run_id": key, "name": name, "next_number": 0, "created_at": like.at}
        upsert(tx, streams, [row], lambda new: {"created_at": streams.c.created_at})
        if tx.execute(move_on).rowcount == 0:
            return False
    if not items:
        return True
    following = int(tx.execute(select(streams.c.next_number).where(*mine)).scalar_one())
    has_discarded = False
    if emitter is not None and options.on_retry == "discard" and any(each.begins for each in items):
        own = (stream_items.c.step_id == emitter.op_id, stream_items.c.number < following - len(items))
        gone = delete(stream_items).where(stream_items.c.run_id == key, stream_items.c.name == name, *own)
        has_discarded = tx.execute(gone).rowcount > 0
    first = following - len(items)
    kept = items if options.keep is None else items[-options.keep :]
    _insert(tx, key, name, following - len(kept), kept, emitter, discards=first if has_discarded else None)
    if options.keep is not None and following > options.keep:
        _trim(tx, key, name, following - options.keep)
    return True


def _trim(tx: Connection, key: str, name: str, first: int) -> None:
    """Delete the items before number *first*."""
    mine = (stream_items.c.run_id == key, stream_items.c.name == name, stream_items.c.number < first)
    tx.execute(delete(stream_items).where(*mine))


_INSERT_ALL = Prepared(
    text(
        "INSERT INTO durable_stream_items (run_id, name, number, at, step_id, attempt, discards, item)"
        " SELECT :run, :name, new.number, new.at, :step, CAST(:attempt AS integer), new.number = :discards, new.item"
        " FROM unnest(CAST(:numbers AS bigint[]), CAST(:times AS bigint[]), CAST(:items AS text[]))"
        " AS new (number, at, item)"
    )
)


def _insert(
    tx: Connection,
    key: str,
    name: str,
    first: int,
    items: Sequence[NewItem],
    emitter: StreamEmitter | None,
    *,
    discards: int | None,
) -> None:
    own_vault = vault.of(tx)
    sealed = [
        own_vault.seal(tx, key, place_of(name, number), each.item) or "" for number, each in enumerate(items, first)
    ]
    step_id, attempt = (None, None) if emitter is None else (emitter.op_id, emitter.attempt)
    if tx.dialect.name == "postgresql":
        parameters = {"run": key, "name": name, "step": step_id, "attempt": attempt}
        parameters |= {"discards": -1 if discards is None else discards}
        columns = {"times": array(each.at for each in items), "items": array(sealed)}
        columns["numbers"] = array(range(first, first + len(items)))
        _INSERT_ALL.changed(tx, parameters | columns)
        return
    common = {"run_id": key, "name": name, "step_id": step_id, "attempt": attempt}
    rows = [
        common | {"number": number, "at": each.at, "discards": number == discards, "item": item}
        for number, (each, item) in enumerate(zip(items, sealed, strict=True), first)
    ]
    tx.execute(insert(stream_items), rows)


def is_written(tx: Connection, key: str, items: Sequence[NewItem], emitter: StreamEmitter) -> bool:
    """Whether these items of an attempt are there; no two of an attempt have the same time."""
    last = next((each for each in reversed(items) if each.item is not None), None)
    if last is None:
        return False
    mine = (stream_items.c.run_id == key, stream_items.c.name == last.name, stream_items.c.at == last.at)
    own = (stream_items.c.step_id == emitter.op_id, stream_items.c.attempt == emitter.attempt)
    return tx.execute(select(stream_items.c.number).where(*mine, *own).limit(1)).one_or_none() is not None


def close_of_step(tx: Connection, run_id: str, op_id: str, now: int) -> bool:
    """Close the streams that end with this step; whether there is one."""
    run = find(tx, run_id)
    if run is None:
        return False
    ends = (streams.c.step_run_id == run_id, streams.c.step_id == op_id)
    return _close(tx, now, streams.c.run_id == (run.first_run_id or run_id), *ends)


def _close(tx: Connection, now: int, *where: Any) -> bool:
    closed = tx.execute(update(streams).where(*where, streams.c.closed_at.is_(None)).values(closed_at=now))
    return closed.rowcount > 0
