"""An engine with everything around it in one process: a database, a broker, a worker, a web app, and the time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from celery import Celery
from werkzeug.test import TestResponse

from .. import duration
from ..app import Durable
from ..recovery import Housekeeping
from ..registry import Run, Step, Workflow
from ..store import ENDED, RunStatus, schema
from . import database, worker
from .clock import Clock, ClockedStore
from .engine import EnclosedEngine
from .memory_broker import Outbox
from .senders import PUBLIC_URL, Senders, Sent

P = ParamSpec("P")
R = TypeVar("R")

#: So many jumps, and a run that goes on will not end.
MOST_JUMPS = 2000


class Environment:
    """
    Runs workflows in memory, as fast as they can go: a sleep of a month is over at once.

    ::

        with Environment() as env:
            assert env.run(my_workflow, "argument") == "result"

    Turns, commits, attempts, hooks and the blueprint are the real ones; the database is SQLite in a temporary folder,
    messages stay in memory, and the time moves only when it is told to.  While an environment is entered it is the
    current engine, so ``start`` and ``resume_hook`` work as everywhere.  Afterwards the engine of before is the current
    one again.

    Args:
        now: The time at the beginning; 2025-01-01 UTC if not given.
        celery: The application, where its own Celery tasks are steps.
        settings: As ``Durable`` takes them.
    """

    def __init__(self, *, now: datetime | None = None, celery: Celery | None = None, **settings: object) -> None:
        begin = now or datetime(2025, 1, 1, tzinfo=UTC)
        self._settings = {"public_url": PUBLIC_URL, "continuation": 0, **settings}
        self._celery = celery
        self.clock = Clock(int(begin.timestamp() * 1_000_000))
        self.outbox = Outbox(self.clock)
        self.book: list[Sent] = []
        self.engine: Durable

    def __enter__(self) -> Environment:
        self._folder = Path(tempfile.mkdtemp(prefix="durable-testing-"))
        database.create_in(self._folder)
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self) -> None:
        """A new process."""
        url = database.url_in(self._folder)
        self.store = ClockedStore(url, self.clock)
        self.outbox.check_alive = self.store.check_alive
        celery = self._celery or Celery("durable-testing", broker="memory://", set_as_current=False)
        self.engine = EnclosedEngine(celery, self.store, self.outbox, database_url=url, **self._settings)
        self._senders = Senders(self.engine, self.book, self.run_until_idle)
        self._keeper = Housekeeping(self.engine)
        self._keeper.tick()

    def _end(self) -> None:
        self.engine.close()

    def restart(self) -> None:
        """
        The process has died, and another one takes its place.

        What it ran is given up once it has not beaten for ``dead_after``: the time moves on by that.
        """
        self.store.die()
        self._end()
        self._begin()
        self.clock.now += self.engine.settings.dead_after + 1_000_000
        self._keeper.tick()

    # Time

    @property
    def now(self) -> datetime:
        """The time."""
        return duration.to_datetime(self.clock.now)

    def advance(self, by: Any) -> None:
        """Let time pass, as ``sleep`` takes it, and do what becomes due meanwhile."""
        until = self.clock.now + duration.to_micros(by)
        self.run_until_idle()
        while (at := self._next_moment()) is not None and at <= until:
            self._jump_to(at)
        self._jump_to(until)

    def jump(self) -> bool:
        """Let time pass until something is due, and do it; False when nothing ever is."""
        at = self._next_moment()
        if at is None:
            return False
        self._jump_to(at)
        return True

    def _jump_to(self, at: int) -> None:
        self.clock.now = max(self.clock.now, at)
        self._keeper.tick()
        self.run_until_idle()

    def _next_moment(self) -> int | None:
        lists = (schema.steps, schema.waits, schema.inbox)
        with self.store.read() as tx:
            found = [tx.execute(sa.select(sa.func.min(each.c.next_send_at))).scalar() for each in lists]
        known = [at for at in (*found, self.outbox.next_due_at()) if at is not None]
        if not known:
            return None
        # What the sweep has left where it was, it looks at again at its next round.
        return min(known) if min(known) > self.clock.now else self.clock.now + self.engine.settings.sweep_interval

    # Runs

    def start(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run, and do what it asks for without time passing."""
        run = self.engine.start(workflow, *args, **kwargs)
        self.run_until_idle()
        return run

    def run(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Start a run, let time pass until it has ended, and return its result, or raise as ``Run.result`` does."""
        run = self.start(workflow, *args, **kwargs)
        self.finish(run)
        return run.result(timeout=0)

    def finish(self, run: Run[Any]) -> None:
        """Let time pass until a run has ended, is blocked, or waits for the outside world only."""
        self.run_until_idle()
        for _ in range(MOST_JUMPS):
            if run.status in (*ENDED, RunStatus.BLOCKED) or not self.jump():
                return
        raise AssertionError(f"Run {run.id} goes on after {MOST_JUMPS} jumps in time, at {self.now}: {run.events()}")

    def run_until_idle(self) -> None:
        """Deliver every message that is due now, and those that follow from it."""
        worker.run_until_idle(self.engine, self.outbox)

    @contextmanager
    def replace(self, step: Step[..., Any], fake: Callable[..., Any]) -> Iterator[None]:
        """Within it a step runs *fake* instead of its function."""
        before, step.body = step.body, fake
        try:
            yield
        finally:
            step.body = before

    # The outside world

    def resume(self, token: str, payload: object) -> None:
        """Deliver a payload to the hook that holds *token*, and do what follows; HookNotFound."""
        self.engine.resume_hook(token, payload)
        self.run_until_idle()

    def post(self, url: str, *, method: str = "POST", **options: Any) -> TestResponse:
        """
        Send a request to a webhook's URL, and do what follows while its connection is held.

        Args:
            options: As Werkzeug's test client takes them: ``json=``, ``data=``, ``headers=``.

        Returns:
            The answer; 202 when nobody has answered and nothing is left to do.
        """
        return self._senders.send(url, method, options)
