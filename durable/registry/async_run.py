"""
``AsyncRun``: the calls of a run's handle for asyncio.

Each does the same as the call of its name without the ``a``, and waits in the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, TypeVar, overload

from ..current import current_engine
from ..events import Event
from ..sandbox import refuse_in_workflow
from .streams import AsyncStreamReader, Stream, check_stream_name
from .values import Value, check_name

R = TypeVar("R")
T = TypeVar("T")


class AsyncRun(Generic[R]):
    """The part of ``Run`` that is awaited.  A workflow's body may not call it, as it may not call the other part."""

    id: str
    _engine: Any

    async def aexists(self) -> bool:
        """Whether there is such a run."""
        return await self._acall("aexists", lambda run: run.exists)

    async def astatus(self) -> str:
        """The run's ``status``."""
        return await self._acall("astatus", lambda run: run.status)

    async def aname(self) -> str:
        """The workflow's name."""
        return await self._acall("aname", lambda run: run.name)

    async def acreated_at(self) -> datetime:
        """When the run was committed."""
        return await self._acall("acreated_at", lambda run: run.created_at)

    async def astarted_at(self) -> datetime | None:
        """When its first turn began."""
        return await self._acall("astarted_at", lambda run: run.started_at)

    async def acompleted_at(self) -> datetime | None:
        """When it ended."""
        return await self._acall("acompleted_at", lambda run: run.completed_at)

    async def aattributes(self) -> dict[str, str]:
        """The attributes that the run has set."""
        return await self._acall("aattributes", lambda run: run.attributes)

    async def aresult(self, timeout: Any = None) -> R:
        """Wait for the end as ``result`` does.  It takes no thread while it waits."""
        return await self._aengine("aresult").client.aresult(self.id, timeout)  # type: ignore[no-any-return]

    @overload
    async def avalue(self, name: Value[T], timeout: Any = None) -> T: ...
    @overload
    async def avalue(self, name: str, timeout: Any = None) -> Any: ...
    async def avalue(self, name: str | Value[Any], timeout: Any = None) -> Any:
        """Wait for a published value as ``value`` does.  It takes no thread while it waits."""
        key = check_name(str(name) if isinstance(name, Value) else name)
        found = await self._aengine("avalue").client.avalue(self.id, key, timeout)
        return name.fit(found) if isinstance(name, Value) else found

    async def avalues(self) -> dict[str, Any]:
        """The latest values that the run has published, by name."""
        return await self._acall("avalues", lambda run: run.values())

    @overload
    def astream(self, name: Stream[T], *, start: int = 0, timeout: Any = None) -> AsyncStreamReader[T]: ...
    @overload
    def astream(self, name: str, *, start: int = 0, timeout: Any = None) -> AsyncStreamReader[Any]: ...
    def astream(self, name: str | Stream[Any], *, start: int = 0, timeout: Any = None) -> AsyncStreamReader[Any]:
        """
        Return the items that the run emits to a stream, for ``async for item in run.astream("progress")``.

        It takes what ``stream`` takes, and no thread while it waits.
        """
        key = check_stream_name(str(name) if isinstance(name, Stream) else name)
        engine = self._aengine("astream")
        fit = name.fit if isinstance(name, Stream) else None
        return AsyncStreamReader(lambda: engine.client.astream(self.id, key, start, timeout), fit)

    async def astreams(self) -> list[dict[str, Any]]:
        """The run's streams by name."""
        return await self._acall("astreams", lambda run: run.streams())

    async def acancel(self, reason: str | None = None) -> bool:
        """Ask the run to stop."""
        return await self._acall("acancel", lambda run: run.cancel(reason))

    async def apause(self, reason: str | None = None, *, children: bool = False) -> bool:
        """Pause the run."""
        return await self._acall("apause", lambda run: run.pause(reason, children=children))

    async def aresume(self, *, children: bool = False) -> bool:
        """End the pause of the run."""
        return await self._acall("aresume", lambda run: run.resume(children=children))

    async def apaused(self) -> bool:
        """Whether the run is paused."""
        return await self._acall("apaused", lambda run: run.paused)

    @overload
    async def aresolve(self, *, result: object, step: str | None = None) -> str: ...
    @overload
    async def aresolve(self, *, fail: str, step: str | None = None) -> str: ...
    async def aresolve(self, **outcome: Any) -> str:
        """Record the outcome of a step that is in doubt."""
        return await self._acall("aresolve", lambda run: run.resolve(**outcome))

    async def awake_up(self) -> int:
        """End the run's pending sleeps."""
        return await self._acall("awake_up", lambda run: run.wake_up())

    async def aevents(
        self,
        *,
        after: int = 0,
        before: int = 2**62,
        limit: int | None = None,
        newest_first: bool = False,
        payloads: bool = True,
    ) -> list[Event]:
        """The run's log, in order."""
        page = {"after": after, "before": before, "limit": limit, "newest_first": newest_first, "payloads": payloads}
        return await self._acall("aevents", lambda run: run.events(**page))

    async def ahooks(self) -> list[dict[str, Any]]:
        """The run's open hooks."""
        return await self._acall("ahooks", lambda run: run.hooks())

    async def _acall(self, name: str, call: Callable[[Any], T]) -> T:
        """Do something with this run."""
        result: T = await self._aengine(name).loop_calls.run(call, self)
        return result

    def _aengine(self, name: str) -> Any:
        refuse_in_workflow(f"Run.{name}")
        return self._engine or current_engine()
