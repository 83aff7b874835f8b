"""``Schedule``: the handle of a schedule, and how an engine makes and finds one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from .. import current, duration
from ..engine import Engine
from ..errors import ConfigurationError, ScheduleNotFound
from ..registry import Run
from ..sandbox import refuse_in_workflow
from ..store import ScheduledRun, ScheduleRow, schedules
from . import declared, fire, plan, timing
from .async_schedule import AsyncSchedule
from .definition import ScheduleDefinition

T = TypeVar("T")

#: The most runs that one call of ``backfill`` starts.
MOST_BACKFILLED = 1_000
#: How often a change is tried again when the schedule fires at that moment.
_TRIES = 10


class Schedule(AsyncSchedule):
    """
    A schedule, by its name.  Creating the object does no I/O; each call uses the database.

    All methods raise ScheduleNotFound when there is no such schedule.  Each has a form for asyncio, whose name begins
    with ``a``: ``await schedule.atrigger()``.
    """

    def __init__(self, name: str, engine: Any = None) -> None:
        self.name = name
        self._given_engine = engine

    def __repr__(self) -> str:
        return f"<Schedule {self.name}>"

    @property
    def is_paused(self) -> bool:
        """Whether it is paused."""
        return self.row().paused_at is not None

    @property
    def workflow(self) -> str:
        """The name of the workflow that it starts."""
        return self.row().workflow

    def next(self, n: int = 10) -> list[datetime]:
        """The next planned times in the schedule's time zone, at most *n*; those of a paused schedule too."""
        row = self.row()
        zone = ZoneInfo(row.tz)
        return [duration.to_datetime(at).astimezone(zone) for at in plan.upcoming(row, self._engine.now(), n)]

    def runs(self) -> list[Run[Any]]:
        """Its runs that go on, and the ten latest that have ended, the latest planned time first."""
        self.row()
        return [Run(run.run_id, self._engine) for run in self.latest()]

    def pause(self) -> bool:
        """Fire no more.  Returns False when it is paused already."""
        return self._change(lambda row, now: None if row.paused_at else {"paused_at": now, "fire_at": None})

    def resume(self) -> bool:
        """Fire again, from the next planned time on.  Returns False when it is not paused."""

        def changes(row: ScheduleRow, now: int) -> dict[str, Any] | None:
            if row.paused_at is None:
                return None
            position = plan.after(row, timing.from_json(row.timing), now)
            return {
                "paused_at": None,
                "is_held": False,
                "planned_at": position.planned_at,
                "fire_at": position.fire_at,
            }

        return self._change(changes)

    def trigger(self) -> Run[Any]:
        """Start a run now, also while another goes on or the schedule is paused.  Its planned time is now."""
        engine = self._engine

        def start(tx: Connection, row: ScheduleRow) -> fire.StartedRuns:
            started, limits = fire.StartedRuns(), fire.limits_of(engine, tx, row)
            started.add(fire.start(engine, tx, row, engine.now(), None, limits), limits)
            return started

        started = self._fenced(start)
        fire.send(engine, started)
        return Run(started.runs[0].id, engine)

    def backfill(self, start: datetime, end: datetime) -> list[Run[Any]]:
        """
        Start a run for each planned time from *start* to *end* that has none, also while others go on.

        Returns:
            The runs that were started, in the order of their planned times.

        Raises:
            ValueError: A time is naive, before 1970 or in the future, *end* is before *start*, or there are more than
                1,000 times.
        """
        engine, row = self._engine, self.row()
        if duration.from_datetime(end) > engine.now():
            raise ValueError(
                f"backfill ends at {end.isoformat()}, which is in the future: those times fire themselves."
            )
        if duration.from_datetime(start) < 0:
            raise ValueError(f"backfill starts at {start.isoformat()}, before 1970: no time is planned there.")
        if duration.from_datetime(start) > duration.from_datetime(end):
            raise ValueError(f"backfill ends at {end.isoformat()}, before it starts at {start.isoformat()}.")
        times: list[int] = []
        for planned in timing.between(timing.from_json(row.timing), start, end):
            times.append(planned)
            if len(times) > MOST_BACKFILLED:
                raise ValueError(
                    f"Schedule {self.name!r} has more than {MOST_BACKFILLED:,} planned times from {start.isoformat()}"
                    f" to {end.isoformat()}.  Backfill a shorter range."
                )
        made: list[Run[Any]] = []
        for begin in range(0, len(times), fire.BATCH):
            made += self._backfill(times[begin : begin + fire.BATCH])
        return made

    def delete(self) -> None:
        """
        Delete the schedule.  Its runs go on.

        Raises:
            ConfigurationError: It is declared in code: remove it there.
        """
        row = self.row()
        if row.is_declared:
            raise ConfigurationError(
                f"Schedule {self.name!r} is declared in code: remove the call of schedule() and deploy, or pause it."
            )
        self._engine.store.write(lambda tx: schedules.remove(tx, self.name))

    def row(self) -> ScheduleRow:
        """The schedule's row."""
        refuse_in_workflow("get_schedule")
        engine = self._engine
        engine.check_schema()
        with engine.store.read() as tx:
            row = schedules.find(tx, self.name)
        if row is None and self.name in declared.definitions:
            declared.write_missing(engine)
            with engine.store.read() as tx:
                row = schedules.find(tx, self.name)
        if row is None or row.absent_at is not None:
            raise ScheduleNotFound(self.name)
        return row

    def latest(self) -> list[ScheduledRun]:
        """Its runs as the store has them; see ``runs``."""
        with self._engine.store.read() as tx:
            return schedules.latest_runs(tx, [self.name])[self.name]

    @property
    def _engine(self) -> Engine:
        engine: Engine = self._given_engine or current.current_engine()
        return engine

    def _backfill(self, times: Iterable[int]) -> list[Run[Any]]:
        engine = self._engine
        by_key = {fire.key(self.name, planned): planned for planned in times}

        def start(tx: Connection, row: ScheduleRow) -> fire.StartedRuns:
            used = schedules.keys_in_use(tx, by_key)
            started, limits = fire.StartedRuns(), fire.limits_of(engine, tx, row)
            for key, planned in by_key.items():
                if key not in used:
                    started.add(fire.start(engine, tx, row, planned, key, limits), limits)
            return started

        started = self._fenced(start)
        fire.send(engine, started)
        return [Run(run.id, engine) for run in started.runs]

    def _change(self, changes: Callable[[ScheduleRow, int], Mapping[str, Any] | None]) -> bool:
        """Write what *changes* returns for the row; False for None."""
        for _ in range(_TRIES):
            row = self.row()
            wanted = changes(row, self._engine.now())
            if wanted is None:
                return False
            if self._engine.store.write(lambda tx, row=row, wanted=wanted: schedules.change(tx, row, **wanted)):  # type: ignore[misc]
                return True
        raise _busy(self.name)

    def _fenced(self, act: Callable[[Connection, ScheduleRow], T]) -> T:
        """Call *act* in a transaction that has passed the schedule's fence, so that nothing fires it meanwhile."""

        def attempt(tx: Connection, row: ScheduleRow) -> T | None:
            return act(tx, row) if schedules.change(tx, row) else None

        for _ in range(_TRIES):
            row = self.row()
            result = self._engine.store.write(lambda tx, row=row: attempt(tx, row))  # type: ignore[misc]
            if result is not None:
                return result
        raise _busy(self.name)


def _busy(name: str) -> RuntimeError:
    return RuntimeError(f"Schedule {name!r} changes all the time: other processes change it at once.  Try again.")


def create(engine: Engine, definition: ScheduleDefinition) -> Schedule:
    """Make a schedule at run time, or change it."""
    engine.check_schema()
    name = definition.name
    with engine.store.read() as tx:
        row = schedules.find(tx, name)
    if name in declared.definitions or (row is not None and row.is_declared and row.absent_at is None):
        raise ConfigurationError(f"Schedule {name!r} is declared in code: change it there, or choose another name.")
    declared.write(engine, [definition], None)
    return Schedule(name, engine)


def get(engine: Engine, name: str) -> Schedule:
    """The schedule with this name."""
    found = Schedule(name, engine)
    found.row()
    return found
