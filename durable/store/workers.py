"""Processes alive, by their beats, and the lease that lets one of them sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from ..schema import leases, workers


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


def beat(tx: Connection, worker: Worker, now: Any) -> None:
    """Say that the process lives; inserts its row the first time, or when it was taken for dead."""
    beaten = tx.execute(update(workers).where(workers.c.id == worker.id).values(beat_at=now, names=worker.names))
    if beaten.rowcount == 0:
        row = {name: getattr(worker, name) for name in workers.c.keys()}  # noqa: SIM118
        tx.execute(insert(workers).values(**(row | {"started_at": now, "beat_at": now})))


def alive(tx: Connection) -> list[Worker]:
    """Every process that has a row, in the order in which they beat last."""
    return [Worker(**row) for row in tx.execute(select(workers).order_by(workers.c.beat_at)).mappings()]


def remove(tx: Connection, worker_id: str) -> None:
    """The process has ended, or is taken for dead."""
    tx.execute(delete(workers).where(workers.c.id == worker_id))


def take_lease(tx: Connection, name: str, owner: str, now: Any, ttl: int) -> bool:
    """Take or renew the lease for *ttl* microseconds; False while somebody else has it."""
    mine = (leases.c.owner == owner) | (leases.c.expires_at < now)
    taken = tx.execute(
        update(leases)
        .where(leases.c.name == name, mine)
        .values(owner=owner, token=leases.c.token + 1, expires_at=now + ttl)
    )
    if taken.rowcount == 1:
        return True
    if tx.execute(select(leases.c.name).where(leases.c.name == name)).one_or_none() is not None:
        return False
    return _first_lease(tx, name, owner, now, ttl)


def _first_lease(tx: Connection, name: str, owner: str, now: Any, ttl: int) -> bool:
    try:
        with tx.begin_nested():
            tx.execute(insert(leases).values(name=name, owner=owner, token=1, expires_at=now + ttl))
    except IntegrityError:
        return False
    return True


def drop_lease(tx: Connection, name: str, owner: str) -> None:
    """Give the lease back, so that another process need not wait until it expires."""
    tx.execute(update(leases).where(leases.c.name == name, leases.c.owner == owner).values(owner=None, expires_at=0))
