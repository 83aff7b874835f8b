"""
Streams: numbered items that runs emit, and that readers follow.

The streams of a run belong to its first generation, whose id is the stream's ``run_id``: later generations go on with
the numbers.  A writer locks the stream's row until it commits, so that a reader who has seen an item misses none
before it.  Whether a stream is over, its row says, or the run has ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, or_, select, text, update

from ..registry import StreamOptions
from . import vault
from .generations import latest
from .runs import find
from .schema import runs, stream_items, streams
from .statements import Prepared, array
from .transitions import ENDED, RunStatus
from .upsert import upsert

#: The most items that one statement reads or writes.
PAGE = 500


@dataclass(frozen=True, slots=True)
class NewItem:
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


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item as it is stored; ``place`` is what it is encrypted for, see ``Vault.seal``."""

    number: int
    at: int
    step_id: str | None
    attempt: int | None
    discards: bool
    stored: str

    def place(self, name: str) -> str:
        return _place(name, self.number)


@dataclass(frozen=True, slots=True)
class Head:
    """
    Where a stream is.

    Attributes:
        next_number: The number of the next item.
        is_over: Whether no item can follow.
    """

    next_number: int
    is_over: bool


class StreamRow(NamedTuple):
    """A stream of a run, as people see it; ``items`` is how many were ever emitted."""

    name: str
    items: int
    keep: int | None
    created_at: int
    closed_at: int | None


# Writing


def key_of(tx: Connection, run_id: str) -> str | None:
    """The run that the streams of this one belong to; None if the run has ended or is gone."""
    row = tx.execute(select(runs.c.status, runs.c.first_run_id).where(runs.c.id == run_id)).one_or_none()
    return None if row is None or row.status in ENDED else row.first_run_id or run_id


def append(tx: Connection, key: str, emitted: Sequence[NewItem], emitter: StreamEmitter | None = None) -> set[str]:
    """
    Add items to streams of a run, and close them, in the order of the calls.

    Args:
        key: The run that the streams belong to.
        emitter: The step that emits; None for the workflow.

    Returns:
        The names of the streams that were closed already; what was emitted to them is dropped.
    """
    closed = set()
    # In the order of the names, so that two writers do not wait for each other.
    for name in sorted({each.name for each in emitted}):
        mine = [each for each in emitted if each.name == name]
        end = next((place for place, each in enumerate(mine) if each.item is None), None)
        items = mine if end is None else mine[:end]
        if not _extend(tx, key, mine[0], items, emitter):
            closed.add(name)
            continue
        if end is not None:
            _close(tx, mine[end].at, streams.c.run_id == key, streams.c.name == name)
            closed |= {name} if len(mine) > end + 1 else set()
    return closed


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
        outdated = stream_items.c.number < following - options.keep
        tx.execute(delete(stream_items).where(stream_items.c.run_id == key, stream_items.c.name == name, outdated))
    return True


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
        own_vault.seal(tx, key, _place(name, number), each.item) or "" for number, each in enumerate(items, first)
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


# Reading


class StreamPlace(NamedTuple):
    """A position in a stream: the number of the next item to read."""

    key: str
    name: str
    number: int


_HEADS = (
    select(
        runs.c.id,
        runs.c.status,
        streams.c.name,
        func.coalesce(streams.c.next_number, 0).label("next_number"),
        streams.c.closed_at,
    )
    .outerjoin(streams, and_(streams.c.run_id == runs.c.id, streams.c.name.in_(bindparam("names", expanding=True))))
    .where(runs.c.id.in_(bindparam("keys", expanding=True)))
)


def heads(tx: Connection, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], Head]:
    """Where these streams are, each a run that streams belong to and a name; one statement for all."""
    keys, names = {key for key, _ in wanted}, {name for _, name in wanted}
    statuses: dict[str, str] = {}
    found: dict[tuple[str, str], Any] = {}
    for row in tx.execute(_HEADS, {"keys": sorted(keys), "names": sorted(names)}):
        statuses[row.id] = row.status
        if row.name is not None:
            found[row.id, row.name] = row
    # Of a run that has continued as new, its last generation says whether it has ended.
    for key in [key for key, status in statuses.items() if status == RunStatus.CONTINUED]:
        last = latest(tx, key)
        statuses[key] = RunStatus.CONTINUED if last is None else last.status
    return {
        (key, name): Head(
            next_number=int(found[key, name].next_number) if (key, name) in found else 0,
            is_over=statuses.get(key) not in _OPEN or ((key, name) in found and found[key, name].closed_at is not None),
        )
        for key, name in wanted
    }


_OPEN = frozenset(set(RunStatus) - set(ENDED))


def page(tx: Connection, place: StreamPlace, limit: int = PAGE) -> list[StoredItem]:
    """The items of a stream from a place on."""
    return pages(tx, [place], limit)[place.key, place.name]


def pages(tx: Connection, places: Iterable[StreamPlace], limit: int = PAGE) -> dict[tuple[str, str], list[StoredItem]]:
    """
    The items of several streams, each from its place on, in one statement for all.

    Args:
        limit: How many items at most, of all streams; the first streams come first.
    """
    found: dict[tuple[str, str], list[StoredItem]] = {(each.key, each.name): [] for each in places}
    wanted = or_(
        *(
            and_(
                stream_items.c.run_id == each.key,
                stream_items.c.name == each.name,
                stream_items.c.number >= each.number,
            )
            for each in places
        )
    )
    columns = stream_items.c
    order = (columns.run_id, columns.name, columns.number)
    for row in tx.execute(select(stream_items).where(wanted).order_by(*order).limit(limit)):
        item = StoredItem(row.number, row.at, row.step_id, row.attempt, bool(row.discards), row.item)
        found[row.run_id, row.name].append(item)
    return found


def load(tx: Connection, key: str, name: str, item: StoredItem) -> str:
    """
    The encoded item.

    Raises:
        DecryptionError: This process does not have the key.
    """
    return vault.of(tx).unseal(key, item.place(name), item.stored) or "null"


def of_run(tx: Connection, key: str, limit: int | None = None) -> list[StreamRow]:
    """The streams of a run by name."""
    columns = (streams.c.name, streams.c.next_number, streams.c.keep, streams.c.created_at, streams.c.closed_at)
    query = select(*columns).where(streams.c.run_id == key).order_by(streams.c.name).limit(limit)
    return [StreamRow(*row) for row in tx.execute(query)]


def _place(name: str, number: int) -> str:
    return f"stream {number} {name}"
