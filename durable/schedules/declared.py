"""
Schedules that are declared in code, and their rows: changes and removals follow a deploy.

Each worker process writes what its code declares, once.  Of two processes with different code, the one that loaded its
code later decides.  A schedule that no live process declares any more is removed; its row stays for a week, so that a
process that declares it again, after a restart for example, goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from ..engine import Engine
from ..errors import ConfigurationError
from ..sandbox import log_records
from ..store import ScheduleRow, schedules
from . import plan
from .definition import ScheduleDefinition

#: How long the row of a removed schedule stays.
KEPT = 7 * 86_400_000_000
#: Before a schedule's name, in the list of names that a process has registered.
PREFIX = "schedule:"
_BATCH = 100
#: How often a write is tried again when other processes change the schedules at that moment.
_TRIES = 10

#: Every schedule that this process declares, by name, and where.
definitions: dict[str, ScheduleDefinition] = {}
_places: dict[str, str] = {}

log = log_records.get("durable.schedules")


def declare(definition: ScheduleDefinition, place: str) -> None:
    """
    Add a schedule to those that this process declares.

    Args:
        place: ``file:line``.  A reloader imports the same lines again; then the later declaration counts.
    """
    before = _places.get(definition.name)
    if before is not None and before != place:
        raise ConfigurationError(
            f"Two schedules are named {definition.name!r}: {before} and {place}.  Give one of them another name."
        )
    definitions[definition.name] = definition
    _places[definition.name] = place


def clear() -> None:
    """Forget all declarations; for tests."""
    definitions.clear()
    _places.clear()


def registered_names() -> list[str]:
    """The declared schedules, as a process lists them among the names that it has registered."""
    return [f"{PREFIX}{name}" for name in definitions]


def write_all(engine: Engine) -> None:
    """Write what this process declares."""
    loaded_at = engine.loaded_at()
    ordered = [definitions[name] for name in sorted(definitions)]
    for begin in range(0, len(ordered), _BATCH):
        write(engine, ordered[begin : begin + _BATCH], loaded_at)


def write_missing(engine: Engine) -> None:
    """
    Write what this process declares and nobody has written: a web process may start before the first worker.

    What workers have removed stays removed, since a web process may have older code.
    """
    with engine.store.read() as tx:
        known = {name for name, _ in schedules.declared(tx)}
    missing = [definition for name, definition in sorted(definitions.items()) if name not in known]
    for begin in range(0, len(missing), _BATCH):
        write(engine, missing[begin : begin + _BATCH], engine.loaded_at())


def write(engine: Engine, given: Sequence[ScheduleDefinition], declared_at: int | None) -> None:
    """
    Create schedules, or change them; what is the same already costs one read.

    Args:
        declared_at: When the process loaded the code that declares them; None for one made at run time.
    """
    for _ in range(_TRIES):
        with engine.store.read() as tx:
            found = schedules.find_all(tx, [each.name for each in given])
        differing = [each for each in given if not _is_written(engine, each, found.get(each.name), declared_at)]
        if not differing:
            return
        # Another process may create one of them meanwhile, or fire it: then it is looked at again.
        with suppress(IntegrityError):
            engine.store.write(lambda tx: _write_all(engine, tx, differing, found, declared_at))  # noqa: B023
    names = ", ".join(each.name for each in differing)
    raise RuntimeError(f"These schedules change all the time, and could not be written: {names}.")


def _write_all(
    engine: Engine,
    tx: Connection,
    differing: Sequence[ScheduleDefinition],
    found: Mapping[str, ScheduleRow],
    declared_at: int | None,
) -> None:
    for each in differing:
        _write(engine, tx, each, found.get(each.name), declared_at)


def _is_written(
    engine: Engine, definition: ScheduleDefinition, row: ScheduleRow | None, declared_at: int | None
) -> bool:
    """Whether nothing is to be written: the row is the same, or a process with later code has written it."""
    if row is None:
        return False
    if (row.declared_at is None) != (declared_at is None) or row.absent_at is not None:
        return False
    return (row.declared_at or 0) > (declared_at or 0) or definition.is_in(engine.store, row)


def _write(
    engine: Engine, tx: Connection, definition: ScheduleDefinition, row: ScheduleRow | None, declared_at: int | None
) -> None:
    now = engine.now()
    columns = definition.columns(engine.store, tx)
    position = _position(definition, row, now)
    if row is None:
        made: dict[str, Any] = columns | {"planned_at": position.planned_at, "fire_at": position.fire_at}
        schedules.create(
            tx,
            ScheduleRow(
                name=definition.name,
                version=1,
                declared_at=declared_at,
                absent_at=None,
                created_at=now,
                paused_at=None,
                is_held=False,
                skipped=0,
                **made,
            ),
        )
        return
    schedules.change(
        tx,
        row,
        declared_at=declared_at,
        absent_at=None,
        planned_at=position.planned_at,
        fire_at=None if row.paused_at is not None else position.fire_at,
        is_held=row.is_held and position.planned_at == row.planned_at,
        **columns,
    )


def _position(definition: ScheduleDefinition, row: ScheduleRow | None, now: int) -> plan.Position:
    """Where the schedule goes on: where it was, unless its times have changed."""
    timing, jitter = definition.timing, definition.jitter
    if row is None or row.timing != timing.to_json() or row.until_at != definition.until:
        return plan.first(definition.name, timing, jitter, definition.until, now)
    return plan.position_at(definition.name, jitter, row.planned_at)


def remove_absent(engine: Engine, registered: Iterable[str]) -> None:
    """
    Remove the schedules that no live process declares.

    Args:
        registered: The names that live processes have registered.
    """
    alive = {name.removeprefix(PREFIX) for name in registered if name.startswith(PREFIX)}
    with engine.store.read() as tx:
        known = schedules.declared(tx)
    now = engine.now()
    gone = sorted(name for name, absent_at in known if absent_at is None and name not in alive)
    old = [name for name, absent_at in known if absent_at is not None and absent_at < now - KEPT]
    if gone:
        log.info("No process declares these schedules any more: %s.", ", ".join(gone))
        engine.store.write(lambda tx: schedules.set_absent(tx, gone, now))
    for name in old:
        engine.store.write(lambda tx, name=name: schedules.remove(tx, name))  # type: ignore[misc]
