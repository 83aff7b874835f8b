"""``list_runs``: the runs that match a filter, and what can be done to all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from .. import duration
from ..engine import Engine
from ..errors import DurableError, ForkRefused
from ..nearest import did_you_mean
from ..registry import Run
from ..store import RunFilter, RunStatus, run_list
from . import bulk

#: Of an action that takes nothing but the run.
NOTHING_GIVEN = bulk.Given()

#: How many runs one query reads.
_PAGE = 100


class RunList(Iterator[Run[Any]]):
    """
    Runs that match a filter, newest first.

    The runs are read page by page as you iterate, so memory does not depend on how many there are.  A run that starts
    or changes meanwhile may be in the list or not.
    """

    def __init__(self, engine: Engine, wanted: RunFilter) -> None:
        self._engine = engine
        self._wanted = wanted
        self._ids = matching_ids(engine, wanted)

    def __next__(self) -> Run[Any]:
        return Run(next(self._ids), self._engine)

    def cancel(self, reason: str | None = None) -> int:
        """Ask the runs that have not ended to stop; return how many were asked.  Runs that start later are left."""
        return len(self._do("cancel", bulk.Given(reason=reason)))

    def retry(self) -> int:
        """Try the blocked runs again with the code that is deployed now; return how many."""
        return len(self._do("retry"))

    def fork(
        self, *, from_step: str | None = None, from_event: int | None = None, reapply_payloads: bool = True
    ) -> list[Run[Any]]:
        """
        Fork the runs that have failed, and return the new runs.

        Runs that were forked before, and runs that cannot be forked, are left out.

        Args:
            from_step: The step to call again; without it and *from_event*, that which has failed.
            from_event, reapply_payloads: As ``Run.fork`` has them.

        Raises:
            TypeError: Both *from_step* and *from_event* are given.
        """
        given = bulk.Given(from_step=from_step, from_event=from_event, reapply_payloads=reapply_payloads)
        return [Run(each, self._engine) for each in self._do("fork", given, ForkRefused)]

    def pause(self, reason: str | None = None, *, children: bool = False) -> int:
        """
        Pause the runs that have not ended; return how many were paused.  Runs that start later are left.

        Args:
            children: Pause their child runs too, which do not count.
        """
        return len(self._do("pause", bulk.Given(reason=reason, children=children)))

    def resume(self, *, children: bool = False) -> int:
        """
        End the pauses of the runs that were paused by themselves; return how many.

        They go on at 100 a second, the first ones at once.

        Args:
            children: End the pauses of their child runs too, which do not count.
        """
        return len(self._do("resume", bulk.Given(children=children)))

    def _do(
        self, action: str, given: bulk.Given = NOTHING_GIVEN, refusal: type[DurableError] | None = None
    ) -> list[Any]:
        """
        Do something to each run that it is for; return what came of those to which it was done.

        Args:
            refusal: The error of a run that is left out; others are raised.
        """
        outcomes: list[Any] = []
        place: bulk.BulkPlace | None = bulk.first_place(self._engine, self._wanted)
        while place is not None:
            batch = bulk.act_on_batch(self._engine, self._wanted, action, given, place, _PAGE, refusal=refusal)
            outcomes += [outcome for _, outcome in batch.done]
            place = batch.next
        return outcomes


class AsyncRunList(AsyncIterator[Run[Any]]):
    """
    Runs that match a filter, newest first, for ``async for``.

    Args:
        make: Makes the list; it is called in a thread, once.
    """

    def __init__(self, engine: Engine, make: Callable[[], RunList]) -> None:
        self._engine = engine
        self._make = make
        self._list: RunList | None = None
        self._page: list[Run[Any]] = []

    async def __anext__(self) -> Run[Any]:
        if not self._page:
            self._page = await self._engine.loop_calls.run(lambda: list(islice(self._runs(), _PAGE)))
            self._page.reverse()
        if not self._page:
            raise StopAsyncIteration
        return self._page.pop()

    async def acancel(self, reason: str | None = None) -> int:
        """Do the same as ``RunList.cancel``."""
        return await self._engine.loop_calls.run(lambda: self._runs().cancel(reason))

    async def aretry(self) -> int:
        """Do the same as ``RunList.retry``."""
        return await self._engine.loop_calls.run(lambda: self._runs().retry())

    async def afork(
        self, *, from_step: str | None = None, from_event: int | None = None, reapply_payloads: bool = True
    ) -> list[Run[Any]]:
        """Do the same as ``RunList.fork``."""
        return await self._engine.loop_calls.run(
            lambda: self._runs().fork(from_step=from_step, from_event=from_event, reapply_payloads=reapply_payloads)
        )

    async def apause(self, reason: str | None = None, *, children: bool = False) -> int:
        """Do the same as ``RunList.pause``."""
        return await self._engine.loop_calls.run(lambda: self._runs().pause(reason, children=children))

    async def aresume(self, *, children: bool = False) -> int:
        """Do the same as ``RunList.resume``."""
        return await self._engine.loop_calls.run(lambda: self._runs().resume(children=children))

    def _runs(self) -> RunList:
        if self._list is None:
            self._list = self._make()
        return self._list


def list_runs(
    engine: Engine,
    *,
    status: str | None,
    name: str | None,
    attributes: Mapping[str, str] | None,
    since: Any,
    until: Any,
    paused: bool = False,
) -> RunList:
    """The runs that match; see ``durable.list_runs``."""
    engine.check_schema()
    statuses = [each.value for each in RunStatus]
    if status is not None and status not in statuses:
        raise ValueError(
            f"status={status!r} is unknown.{did_you_mean(str(status), statuses)}  It is one of {', '.join(statuses)}."
        )
    now = engine.now()
    wanted = RunFilter(
        status=status,
        name=name,
        attributes=dict(attributes or {}),
        since=moment(since, now, "since"),
        until=moment(until, now, "until"),
        paused=paused,
    )
    return RunList(engine, wanted)


def matching_ids(engine: Engine, wanted: RunFilter) -> Iterator[str]:
    """The ids of all runs that match, newest first."""
    before = None
    while True:
        with engine.store.read() as tx:
            if wanted.error is None:
                page: run_list.Page | run_list.ErrorSearch = run_list.page(tx, wanted, before=before, limit=_PAGE)
            else:
                page = run_list.search_errors(tx, wanted, before=before, limit=_PAGE)
        yield from (run.id for run in page.runs)
        if page.next is None:
            return
        before = page.next


def moment(given: Any, now: int, what: str) -> int | None:
    """A moment that is given as an aware datetime, or as a duration before now."""
    if given is None:
        return None
    if isinstance(given, datetime):
        return duration.from_datetime(given)
    return now - duration.to_micros(given, what=what)
