"""
Streams: numbered items that runs emit, and that readers follow.

The streams of a run belong to its first generation, whose id is the stream's ``run_id``: later generations go on with
the numbers.  A writer locks the stream's row until it commits, so that a reader who has seen an item misses none
before it.  Whether a stream is over, its row says, or the run has ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, bindparam, func, or_, select, union_all

from . import vault
from .generations import latest
from .schema import runs, stream_items, streams
from .transitions import ENDED, RunStatus

#: The most items that one statement reads or writes.
PAGE = 500
#: Of how many open runs of each status ``count_open`` and ``longest`` look at the streams: those that started last.
NEWEST = 10_000


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
        return place_of(name, self.number)


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


class LongStream(NamedTuple):
    """A stream with many items: of which run, and how many are stored."""

    run_id: str
    name: str
    keep: int | None
    items: int


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


def _of_open_runs(*columns: Any) -> Select[Any]:
    """A query for the streams that are not closed, of the ``NEWEST`` runs of each status that go on."""
    newest = [
        select(func.coalesce(runs.c.first_run_id, runs.c.id).label("key"))
        .where(runs.c.status == status)
        .order_by(runs.c.created_at.desc())
        .limit(NEWEST)
        .subquery()
        for status in (RunStatus.RUNNING, RunStatus.BLOCKED)
    ]
    keys = union_all(*(select(each.c.key) for each in newest)).subquery()
    return (
        select(*columns).join_from(keys, streams, streams.c.run_id == keys.c.key).where(streams.c.closed_at.is_(None))
    )


def count_open(tx: Connection) -> int:
    """How many streams are open, of the runs that were started last."""
    return int(tx.execute(_of_open_runs(func.count())).scalar_one())


def longest(tx: Connection, most: int, limit: int) -> list[LongStream]:
    """
    Open streams that have far more items than their ``keep`` says, and those without ``keep`` that have over *most*.

    The items of a stream are counted from the oldest that is there.
    """
    items = stream_items.alias()
    first = select(func.min(items.c.number)).where(items.c.run_id == streams.c.run_id, items.c.name == streams.c.name)
    stored = streams.c.next_number - first.scalar_subquery()
    columns = (streams.c.run_id, streams.c.name, streams.c.keep, stored.label("stored"))
    found = _of_open_runs(*columns).where(streams.c.next_number > 2 * PAGE).subquery()
    # An attempt that dies between the two leaves less than a page for the next one to delete.
    is_long = or_(found.c.stored > 2 * found.c.keep + 2 * PAGE, and_(found.c.keep.is_(None), found.c.stored > most))
    query = select(found).where(is_long).order_by(found.c.stored.desc(), found.c.run_id, found.c.name)
    return [LongStream(*row) for row in tx.execute(query.limit(limit))]


def place_of(name: str, number: int) -> str:
    """What an item is encrypted for; see ``Vault.seal``."""
    return f"stream {number} {name}"
