"""
Rows of schedules, and of their latest runs.

Each change of a schedule increments ``version`` with ``WHERE version = <the number it read>``: of two processes that
fire it at once, the second changes no row and starts nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, text, update

from .schema import runs, schedule_runs, schedules
from .statements import Prepared
from .transitions import ENDED
from .vault import Vault

#: How many runs that have ended a schedule remembers.
KEPT_RUNS = 10

#: The place of the arguments, which encryption binds them to together with the schedule's name.
_ARGUMENTS = "schedule arguments"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleRow:
    """A schedule's row; ``arguments`` as stored until ``arguments_of``."""

    name: str
    version: int
    workflow: str
    arguments: str
    queue: str | None
    priority: int | None
    timing: str
    tz: str
    overlap: str
    catch_up: str
    jitter: int
    until_at: int | None
    declared_at: int | None
    absent_at: int | None
    created_at: int
    paused_at: int | None
    planned_at: int | None
    fire_at: int | None
    is_held: bool
    skipped: int

    @property
    def is_declared(self) -> bool:
        """Whether it is declared in code."""
        return self.declared_at is not None


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """A run of a schedule.  ``status`` is None once the run is deleted."""

    run_id: str
    planned_at: int
    status: str | None

    @property
    def is_open(self) -> bool:
        return self.status is not None and self.status not in ENDED


_COLUMNS = [schedules.c[field.name] for field in fields(ScheduleRow)]


def find(tx: Connection, name: str) -> ScheduleRow | None:
    """The schedule with this name, also one that is removed."""
    row = tx.execute(select(*_COLUMNS).where(schedules.c.name == name)).mappings().one_or_none()
    return None if row is None else ScheduleRow(**row)


def find_all(tx: Connection, names: Collection[str]) -> dict[str, ScheduleRow]:
    """The schedules with these names, by name."""
    rows = tx.execute(select(*_COLUMNS).where(schedules.c.name.in_(names))).mappings()
    return {row["name"]: ScheduleRow(**row) for row in rows}


def page(tx: Connection, *, after: str, limit: int) -> list[ScheduleRow]:
    """The schedules whose names come after *after*, in the order of their names, without removed ones."""
    query = select(*_COLUMNS).where(schedules.c.name > after, schedules.c.absent_at.is_(None))
    return [ScheduleRow(**row) for row in tx.execute(query.order_by(schedules.c.name).limit(limit)).mappings()]


def due(tx: Connection, now: int, limit: int) -> list[ScheduleRow]:
    """The schedules that are to be fired now, those of the earliest times first."""
    query = select(*_COLUMNS).where(schedules.c.fire_at <= now).order_by(schedules.c.fire_at).limit(limit)
    return [ScheduleRow(**row) for row in tx.execute(query).mappings()]


def next_fire_at(tx: Connection) -> int | None:
    """When the next schedule is to be fired."""
    found: int | None = tx.execute(select(func.min(schedules.c.fire_at))).scalar_one()
    return found


def create(tx: Connection, row: ScheduleRow) -> None:
    """Insert a schedule; raises IntegrityError when the name exists."""
    tx.execute(insert(schedules), {field.name: getattr(row, field.name) for field in fields(row)})


def change(tx: Connection, row: ScheduleRow, **changes: Any) -> bool:
    """Write *changes*, and lock the row; False when the schedule has changed since *row* was read."""
    unchanged = (schedules.c.name == row.name, schedules.c.version == row.version)
    changed = tx.execute(update(schedules).where(*unchanged).values(version=row.version + 1, **changes))
    return changed.rowcount == 1


_MOVE = Prepared(
    text(
        "UPDATE durable_schedules SET version = version + 1, planned_at = :planned_at, fire_at = :fire_at,"
        " is_held = :is_held, skipped = :skipped WHERE name = :name AND version = :version"
    )
)


def move(
    tx: Connection, row: ScheduleRow, *, planned_at: int | None, fire_at: int | None, is_held: bool, skipped: int
) -> bool:
    """As ``change``, to the next planned time: many schedules move at midnight."""
    position = {"planned_at": planned_at, "fire_at": fire_at, "is_held": is_held, "skipped": skipped}
    return _MOVE.changed(tx, {"name": row.name, "version": row.version, **position}) == 1


def remove(tx: Connection, name: str) -> bool:
    """Delete a schedule.  Its runs stay."""
    tx.execute(delete(schedule_runs).where(schedule_runs.c.schedule == name))
    return tx.execute(delete(schedules).where(schedules.c.name == name)).rowcount == 1


def seal_arguments(own_vault: Vault, tx: Connection, name: str, digest: str, args: str) -> str:
    """The arguments of a schedule as they are stored."""
    return own_vault.seal(tx, f"schedule:{name}", _ARGUMENTS, f"{digest} {args}") or ""


def arguments_of(own_vault: Vault, row: ScheduleRow) -> tuple[str, str]:
    """The digest of the arguments, and the encoded arguments; DecryptionError without the key."""
    digest, _, args = (own_vault.unseal(f"schedule:{row.name}", _ARGUMENTS, row.arguments) or "").partition(" ")
    return digest, args


# Declared in code


def declared(tx: Connection) -> list[tuple[str, int | None]]:
    """The schedules that are declared in code, each with the time since which no process declares it."""
    # SQLite uses the index for a comparison, and not for IS NOT NULL.
    query = select(schedules.c.name, schedules.c.absent_at).where(schedules.c.declared_at > 0)
    return [(row.name, row.absent_at) for row in tx.execute(query)]


def set_absent(tx: Connection, names: Collection[str], now: int) -> None:
    """Remove schedules that no live process declares: they do not fire, and are kept in case one does again."""
    tx.execute(
        update(schedules)
        .where(schedules.c.name.in_(names), schedules.c.declared_at.is_not(None), schedules.c.absent_at.is_(None))
        .values(absent_at=now, fire_at=None, version=schedules.c.version + 1)
    )


# Runs


_ADD_RUN = Prepared(
    text("INSERT INTO durable_schedule_runs (schedule, run_id, planned_at) VALUES (:schedule, :run_id, :planned_at)")
)


def add_run(tx: Connection, name: str, run_id: str, planned_at: int) -> None:
    """Note a run of the schedule."""
    _ADD_RUN.changed(tx, {"schedule": name, "run_id": run_id, "planned_at": planned_at})


def latest_runs(tx: Connection, names: Collection[str]) -> dict[str, list[ScheduledRun]]:
    """The runs of these schedules that go on, and the latest that have ended; by schedule, the latest time first."""
    query = (
        select(schedule_runs, runs.c.status)
        .join(runs, runs.c.id == schedule_runs.c.run_id, isouter=True)
        .where(schedule_runs.c.schedule.in_(names))
        .order_by(schedule_runs.c.planned_at.desc(), schedule_runs.c.run_id)
    )
    found: dict[str, list[ScheduledRun]] = {name: [] for name in names}
    for row in tx.execute(query):
        found[row.schedule].append(ScheduledRun(row.run_id, row.planned_at, row.status))
    return found


def forget_runs(tx: Connection, name: str, known: Sequence[ScheduledRun]) -> None:
    """Forget the runs among *known*, the latest first, that have ended and are not among the latest."""
    ended = [run.run_id for run in known if not run.is_open][KEPT_RUNS:]
    if ended:
        forgotten = (schedule_runs.c.schedule == name, schedule_runs.c.run_id.in_(ended))
        tx.execute(delete(schedule_runs).where(*forgotten))


def keys_in_use(tx: Connection, keys: Collection[str]) -> set[str]:
    """Those of these idempotency keys that have started a run."""
    return set(tx.execute(select(runs.c.idempotency_key).where(runs.c.idempotency_key.in_(keys))).scalars())
