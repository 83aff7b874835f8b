"""``list_runs``: the runs that match a filter, and what can be done to all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any

from .. import duration
from ..engine import Engine
from ..errors import ForkRefused, RunNotFound
from ..nearest import did_you_mean
from ..registry import Run
from ..store import RunFilter, RunStatus, run_list
from . import fork, operate
from .run import Client

#: The statuses in which a run can be cancelled, in the order in which a run has them.
OPEN = (RunStatus.PENDING, RunStatus.RUNNING, RunStatus.BLOCKED)

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
        client = Client(self._engine)
        return self._do(OPEN, lambda run_id: client.cancel(run_id, reason))

    def retry(self) -> int:
        """Try the blocked runs again with the code that is deployed now; return how many."""
        return self._do([RunStatus.BLOCKED], lambda run_id: operate.retry(self._engine, run_id))

    def fork(self, *, from_step: str | None = None, reapply_payloads: bool = True) -> list[Run[Any]]:
        """
        Fork the runs that have failed, and return the new runs.

        Runs that were forked before, and runs that cannot be forked, are left out.

        Args:
            from_step: The step to call again; without it, that which has failed.
            reapply_payloads: As ``Run.fork`` has it.
        """
        forks: list[Run[Any]] = []

        def act(run_id: str) -> bool:
            with suppress(ForkRefused):
                forks.append(
                    fork.fork(self._engine, run_id, from_step=from_step, reapply_payloads=reapply_payloads, once=True)
                )
            return True

        self._do([RunStatus.FAILED], act)
        return forks

    def _do(self, statuses: Any, act: Callable[[str], bool]) -> int:
        """Do something to each run of these statuses; count those to which it was done."""
        # Up to this microsecond: the clock of a test environment stands still.
        done, now = 0, self._engine.now() + 1
        until = now if self._wanted.until is None else min(now, self._wanted.until)
        for status in statuses:
            if self._wanted.status in (None, status):
                for run_id in matching_ids(self._engine, replace(self._wanted, status=status, until=until)):
                    try:
                        done += act(run_id)
                    except RunNotFound:
                        # It was pruned meanwhile.
                        continue
        return done


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
            self._page = await self._engine.threads.run(lambda: list(islice(self._runs(), _PAGE)))
            self._page.reverse()
        if not self._page:
            raise StopAsyncIteration
        return self._page.pop()

    async def acancel(self, reason: str | None = None) -> int:
        """Do the same as ``RunList.cancel``."""
        return await self._engine.threads.run(lambda: self._runs().cancel(reason))

    async def aretry(self) -> int:
        """Do the same as ``RunList.retry``."""
        return await self._engine.threads.run(lambda: self._runs().retry())

    async def afork(self, *, from_step: str | None = None, reapply_payloads: bool = True) -> list[Run[Any]]:
        """Do the same as ``RunList.fork``."""
        return await self._engine.threads.run(
            lambda: self._runs().fork(from_step=from_step, reapply_payloads=reapply_payloads)
        )

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
        since=_moment(since, now, "since"),
        until=_moment(until, now, "until"),
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


def _moment(given: Any, now: int, what: str) -> int | None:
    """A moment, or a duration before now."""
    if given is None:
        return None
    if isinstance(given, datetime):
        return duration.from_datetime(given)
    return now - duration.to_micros(given, what=what)
