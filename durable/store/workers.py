"""Rows of live processes, their heartbeats, and the lease that lets one process at a time sweep."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from . import pauses
from .database import Store
from .schema import leases, workers
from .statements import Prepared

#: What a heartbeat writes beside its time.
_BEATS = ("names", "queues", "pool", "versions", "clock_ahead", "progress", "limits")
_TAKE_LEASE = Prepared(
    text(
        "UPDATE durable_leases SET owner = :owner, token = token + 1, expires_at = :until"
        " WHERE name = :name AND (owner = :owner OR expires_at < :now)"
    )
)
_LEASE = Prepared(select(leases.c.name).where(leases.c.name == bindparam("name")))
_LOOK = Prepared(
    select(
        leases.c.owner,
        leases.c.expires_at,
        select(func.count()).select_from(workers).scalar_subquery().label("processes"),
    ).where(leases.c.name == bindparam("name"))
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """A process that runs steps."""

    id: str
    host: str
    boot_id: str
    pid: int
    pid_started: int
    started_at: int
    beat_at: int
    names: str
    queues: str | None = None
    pool: str | None = None
    versions: str | None = None
    clock_ahead: int | None = None
    progress: str | None = None
    limits: str | None = None
    deaf_since: int | None = None


@dataclass(frozen=True, slots=True)
class LastBeat:
    """The last heartbeat of a process, and which process it is."""

    id: str
    host: str
    boot_id: str
    pid: int
    pid_started: int
    beat_at: int


@dataclass(frozen=True, slots=True)
class SeenLease:
    """
    A lease, as a process sees it that may not have it.

    Attributes:
        owner: None once it was released.
        expires_at: From then on any process may take it.
        processes: How many processes there are, which may all want it.
    """

    owner: str | None
    expires_at: int
    processes: int


def beat(tx: Connection, worker: Worker, now: Any) -> None:
    """
    Record a heartbeat; inserts the process's row the first time, or when it was deleted as dead.

    Args:
        now: The database's clock, as SQL without parameters.
    """
    row = {name: getattr(worker, name) for name in workers.c.keys()}  # noqa: SIM118
    if _beat(str(now)).changed(tx, {name: row[name] for name in ("id", *_BEATS)}) == 0:
        tx.execute(insert(workers).values(**(row | {"started_at": now, "beat_at": now})))


def commit_beat(store: Store, worker: Worker) -> list[pauses.Cause]:
    """As ``beat``, in a transaction of its own.  Return what is paused by name."""
    with store.single_statement() as tx:
        if tx.dialect.name == "postgresql":
            row = _beat_and_read(store.sql_now_text).one(tx, {name: getattr(worker, name) for name in ("id", *_BEATS)})
            if row is not None:
                return [pauses.Cause(*each) for each in json.loads(row.paused or "[]")]
        beat(tx, worker, store.sql_now)
        return pauses.active(tx)


@lru_cache(maxsize=4)
def _beat(now: str) -> Prepared:
    return Prepared(text(_update(now)))


@lru_cache(maxsize=4)
def _beat_and_read(now: str) -> Prepared:
    """The same for PostgreSQL, with what is paused: no more statements than without."""
    paused = "SELECT CAST(json_agg(json_build_array(kind, name)) AS text) FROM durable_pauses WHERE resuming_at IS NULL"
    return Prepared(text(f"{_update(now)} RETURNING ({paused}) AS paused"))


def _update(now: str) -> str:
    changes = ", ".join(f"{name} = :{name}" for name in _BEATS)
    return f"UPDATE durable_workers SET beat_at = {now}, {changes} WHERE id = :id"


def alive(tx: Connection, since: int = 0) -> list[Worker]:
    """Processes with a heartbeat at *since* or later, oldest heartbeat first."""
    query = select(workers).where(workers.c.beat_at >= since).order_by(workers.c.beat_at)
    return [Worker(**row) for row in tx.execute(query).mappings()]


def last_beats(tx: Connection) -> list[LastBeat]:
    """The last heartbeat of each process, oldest first."""
    query = select(*(workers.c[name] for name in LastBeat.__slots__)).order_by(workers.c.beat_at)
    return [LastBeat(*row) for row in tx.execute(query)]


def registered(tx: Connection, since: int = 0) -> set[str]:
    """The names of workflows and steps that at least one process with a heartbeat since *since* has registered."""
    # Many processes run the same program: DISTINCT reads each list of names once.
    lists = tx.execute(select(workers.c.names).where(workers.c.beat_at >= since).distinct()).scalars()
    return {name for names in lists for name in json.loads(names)}


def is_known(tx: Connection, name: str, queue: str | None, since: int) -> bool | None:
    """
    Whether a process that takes messages from this queue has registered the name of a workflow or step.

    None when no process at all has.  Only processes with a heartbeat since *since* count.  A process whose queues are
    not known takes from every queue, and every process takes from a queue that is not known (None).
    """
    rows = tx.execute(select(workers.c.names, workers.c.queues).where(workers.c.beat_at >= since).distinct())
    found = [row.queues for row in rows if name in json.loads(row.names)]
    if not found:
        return None
    return queue is None or any(queues is None or queue in json.loads(queues) for queues in found)


def consumers(tx: Connection, queue: str, since: int) -> list[str | None]:
    """The pool of each process with a heartbeat since *since* that takes messages from this queue."""
    rows = tx.execute(select(workers.c.pool, workers.c.queues).where(workers.c.beat_at >= since))
    return [row.pool for row in rows if row.queues is None or queue in json.loads(row.queues)]


def count(tx: Connection) -> int:
    """How many processes have a row."""
    return int(tx.execute(select(func.count()).select_from(workers)).scalar_one())


def progress(tx: Connection) -> list[str | None]:
    """What each process has reported of its progress in its queues."""
    return list(tx.execute(select(workers.c.progress)).scalars())


def remove(tx: Connection, worker_id: str) -> None:
    """Delete the row of a process that has ended or is dead."""
    tx.execute(delete(workers).where(workers.c.id == worker_id))


def mark_deaf(tx: Connection, host: str, boot_id: str, pids: Collection[int], since: int | None) -> None:
    """Record since when the worker of these processes takes no messages; None: it does."""
    mine = (workers.c.host == host, workers.c.boot_id == boot_id, workers.c.pid.in_(pids))
    tx.execute(update(workers).where(*mine).values(deaf_since=since))


def take_lease(store: Store, name: str, owner: str, now: int, ttl: int) -> bool:
    """Take or renew the lease for *ttl* microseconds; False while another process has it."""
    parameters = {"name": name, "owner": owner, "now": now, "until": now + ttl}
    with store.single_statement() as tx:
        if _TAKE_LEASE.changed(tx, parameters) == 1:
            return True
    with store.read() as tx:
        if _LEASE.one(tx, {"name": name}) is not None:
            return False
    # There is no row yet.  A process that inserts it at the same moment may be first.
    try:
        with store.begin() as tx:
            tx.execute(insert(leases).values(name=name, owner=owner, token=1, expires_at=now + ttl))
    except IntegrityError:
        return False
    return True


def look_at_lease(tx: Connection, name: str) -> SeenLease | None:
    """Return a lease, without a lock or a write; None before it was taken for the first time."""
    row = _LOOK.one(tx, {"name": name})
    return None if row is None else SeenLease(*row)


def drop_lease(tx: Connection, name: str, owner: str, free_at: int = 0) -> None:
    """Release the lease: another process can take it at *free_at*, and need not wait until it expires."""
    mine = (leases.c.name == name) & (leases.c.owner == owner)
    tx.execute(update(leases).where(mine).values(owner=None, expires_at=free_at))
