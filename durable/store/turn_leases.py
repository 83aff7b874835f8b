"""
Turn leases: the process that has a run's lease takes the run's turns; others leave what they have recorded to it.

A lease saves work, and nothing depends on it: two turns of one run at once are harmless, since the commit of the second
fails its fence.  So the rows need not survive a crash of the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import ColumnElement, Connection, bindparam, delete, select, text

from .database import NOW, Store
from .schema import turn_leases, workers
from .statements import Prepared

_INSERT = (
    "INSERT INTO durable_turn_leases (run_id, holder, worker_id, expires_at)"
    " VALUES (:run, :holder, :worker_id, {now} + :ttl)"
)
TAKE = _INSERT + (
    " ON CONFLICT (run_id) DO UPDATE SET holder = excluded.holder, worker_id = excluded.worker_id,"
    " expires_at = excluded.expires_at"
    " WHERE durable_turn_leases.expires_at < {now} OR durable_turn_leases.holder = excluded.holder"
)
#: SQL for PostgreSQL: whether the statement that takes a lease has waited for the commit that releases the lease.  Then
#: what else it reads is older than that commit.
HAS_WAITED = "clock_timestamp() - statement_timestamp() > interval '0.4 ms'"
#: MySQL assigns from left to right, and says of no row whether it was changed.
_TAKE_MYSQL = _INSERT + (
    " ON DUPLICATE KEY UPDATE holder = IF(expires_at < {now}, VALUES(holder), holder),"
    " worker_id = IF(holder = VALUES(holder), VALUES(worker_id), worker_id),"
    " expires_at = IF(holder = VALUES(holder), VALUES(expires_at), expires_at)"
)
_HOLDER = select(turn_leases.c.holder).where(turn_leases.c.run_id == bindparam("run"))
RELEASE = Prepared(text("DELETE FROM durable_turn_leases WHERE run_id = :run AND holder = :holder"))


def take(store: Store, run_id: str, holder: str, *, worker_id: str, ttl: int) -> bool:
    """Take or renew the lease of a run for *ttl* microseconds; False while another holder has it."""
    parameters = {"run": run_id, "holder": holder, "worker_id": worker_id, "ttl": ttl}
    with store.unsynced() as tx:
        taken = _take(store.dialect).changed(tx, parameters) > 0
        if store.dialect in ("mysql", "mariadb"):
            return tx.execute(_HOLDER, {"run": run_id}).scalar_one_or_none() == holder
        return taken


def release(store: Store, run_id: str, holder: str) -> None:
    """Release the lease, if the holder still has it."""
    with store.unsynced() as tx:
        RELEASE.changed(tx, {"run": run_id, "holder": holder})


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """Which drive has the lease of a run, and its process."""

    holder: str
    host: str
    boot_id: str
    pid: int
    pid_started: int


def find_holder(tx: Connection, run_id: str) -> LeaseHolder | None:
    """Who has the lease of a run; None when nobody has it, or a process without a row."""
    query = (
        select(turn_leases.c.holder, workers.c.host, workers.c.boot_id, workers.c.pid, workers.c.pid_started)
        .join(workers, workers.c.id == turn_leases.c.worker_id)
        .where(turn_leases.c.run_id == run_id)
    )
    row = tx.execute(query).one_or_none()
    return None if row is None else LeaseHolder(*row)


def has_expired(tx: Connection, now: int) -> bool:
    """Whether a lease has expired, as a dead process leaves it."""
    query = select(turn_leases.c.run_id).where(turn_leases.c.expires_at < now).limit(1)
    return tx.execute(query).one_or_none() is not None


def drop_expired(tx: Connection, now: int) -> list[str]:
    """Delete the leases that have expired; return their runs."""
    return _drop(tx, turn_leases.c.expires_at < now)


def drop_of(tx: Connection, worker_id: str) -> list[str]:
    """Delete the leases of a dead process; return their runs."""
    return _drop(tx, turn_leases.c.worker_id == worker_id)


def _drop(tx: Connection, which: ColumnElement[bool]) -> list[str]:
    run_ids = list(tx.execute(select(turn_leases.c.run_id).where(which)).scalars())
    if run_ids:
        tx.execute(delete(turn_leases).where(which, turn_leases.c.run_id.in_(run_ids)))
    return run_ids


@lru_cache(maxsize=4)
def _take(dialect: str) -> Prepared:
    statement = _TAKE_MYSQL if dialect in ("mysql", "mariadb") else TAKE
    return Prepared(text(statement.format(now=NOW[dialect])))
