"""``AsyncSchedule``: the calls of a schedule's handle for asyncio."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from ..registry import Run
from ..sandbox import refuse_in_workflow

if TYPE_CHECKING:
    from ..engine import Engine

T = TypeVar("T")


class AsyncSchedule:
    """The part of ``Schedule`` that is awaited.  Each does the same as the call of its name without the ``a``."""

    _engine: Any

    async def ais_paused(self) -> bool:
        """Whether it is paused."""
        return await self._acall("ais_paused", lambda schedule: schedule.is_paused)

    async def aworkflow(self) -> str:
        """The name of the workflow that it starts."""
        return await self._acall("aworkflow", lambda schedule: schedule.workflow)

    async def anext(self, n: int = 10) -> list[datetime]:
        """The next planned times."""
        return await self._acall("anext", lambda schedule: schedule.next(n))

    async def aruns(self) -> list[Run[Any]]:
        """Its runs that go on, and the ten latest that have ended."""
        return await self._acall("aruns", lambda schedule: schedule.runs())

    async def apause(self) -> bool:
        """Fire no more."""
        return await self._acall("apause", lambda schedule: schedule.pause())

    async def aresume(self) -> bool:
        """Fire again."""
        return await self._acall("aresume", lambda schedule: schedule.resume())

    async def atrigger(self) -> Run[Any]:
        """Start a run now."""
        return await self._acall("atrigger", lambda schedule: schedule.trigger())

    async def abackfill(self, start: datetime, end: datetime) -> list[Run[Any]]:
        """Start a run for each planned time that has none."""
        return await self._acall("abackfill", lambda schedule: schedule.backfill(start, end))

    async def adelete(self) -> None:
        """Delete the schedule."""
        await self._acall("adelete", lambda schedule: schedule.delete())

    async def _acall(self, name: str, call: Callable[[Any], T]) -> T:
        refuse_in_workflow(f"Schedule.{name}")
        engine: Engine = self._engine
        return await engine.loop_calls.run(call, self)
