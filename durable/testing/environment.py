"""``Environment``: an engine, a database, a broker, a worker, a web app and a clock in one process."""

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
from ..context import RECEIVE_PATH, ReceiverDefinition
from ..recovery import Housekeeping
from ..registry import Run, Step, Workflow
from ..schedules import Rounds
from ..store import ENDED, ReceivedRow, RunStatus, received, run_limits, schema
from . import database, worker
from .clock import Clock, ClockedStore
from .engine import EnclosedEngine
from .memory_broker import MemoryBroker
from .senders import PUBLIC_URL, Senders, SentRequest

P = ParamSpec("P")
R = TypeVar("R")

#: A run that has not ended after so many jumps in time will never end.
MAX_JUMPS = 2000


class Environment:
    """
    Runs workflows in memory, without waiting: a sleep of a month is over at once.

    ::

        with Environment() as env:
            assert env.run(my_workflow, "argument") == "result"

    Turns, commits, attempts, hooks and the blueprint are the real ones; the database is SQLite in a temporary folder,
    messages stay in memory, and the clock moves only when you move it.

    Inside the ``with`` block, the environment's engine is the current engine, so ``start`` and ``resume_hook`` work as
    everywhere.  Afterwards the previous engine is the current one again.

    Args:
        now: The time at the beginning, by default 2025-01-01 UTC.
        celery: Your application, if its Celery tasks are steps.
        settings: The settings of the engine, as ``Durable`` takes them.
    """

    def __init__(self, *, now: datetime | None = None, celery: Celery | None = None, **settings: object) -> None:
        begin = now or datetime(2025, 1, 1, tzinfo=UTC)
        self._settings = {"public_url": PUBLIC_URL, "continuation": 0, **settings}
        self._celery = celery
        self.clock = Clock(int(begin.timestamp() * 1_000_000))
        self.broker = MemoryBroker(self.clock)
        self.sent_requests: list[SentRequest] = []
        self.engine: Durable

    def __enter__(self) -> Environment:
        self._folder = Path(tempfile.mkdtemp(prefix="durable-testing-"))
        database.create_in(self._folder)
        self._start_process()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.engine.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start_process(self) -> None:
        """Start a process: a store, an engine and the housekeeping."""
        url = database.url_in(self._folder)
        self.store = ClockedStore(url, self.clock)
        self.broker.check_alive = self.store.check_alive
        celery = self._celery or Celery("durable-testing", broker="memory://", set_as_current=False)
        self.engine = EnclosedEngine(
            celery, self.store, self.broker, self.run_until_idle, database_url=url, **self._settings
        )
        self._senders = Senders(self.engine, self.sent_requests, self.run_until_idle)
        self._housekeeping = Housekeeping(self.engine)
        # Only ``advance`` fires schedules: a test that runs one workflow has no other runs.
        self._rounds, self._housekeeping.schedules = Rounds(self.engine), None
        self._housekeeping.tick()

    def restart(self) -> None:
        """
        Let the process die, and start another one.

        The clock moves by a little more than ``dead_after``, so that the attempts of the dead process are given up.
        """
        self.store.die()
        self.engine.close()
        self._start_process()
        self.clock.now += self.engine.settings.dead_after + 1_000_000
        self._housekeeping.tick()

    # Time

    @property
    def now(self) -> datetime:
        """The time of the environment."""
        return duration.to_datetime(self.clock.now)

    def advance(self, by: Any) -> None:
        """
        Let a duration (``"3d"``) pass, and do everything that becomes due; schedules fire.

        ``run``, ``finish`` and ``jump`` let time pass for the runs that there are, and fire no schedules.
        """
        until = self.clock.now + duration.to_micros(by)
        self._housekeeping.schedules = self._rounds
        try:
            self._rounds.write_declared()
            self._jump_to(self.clock.now)
            while (at := self._next_moment()) is not None and at <= until:
                self._jump_to(at)
            self._jump_to(until)
        finally:
            self._housekeeping.schedules = None

    def jump(self) -> bool:
        """Let time pass until something is due, and do it.  Returns False when nothing will become due."""
        at = self._next_moment()
        if at is None:
            return False
        self._jump_to(at)
        return True

    def _jump_to(self, at: int) -> None:
        self.clock.now = max(self.clock.now, at)
        self._housekeeping.tick()
        self.run_until_idle()

    def _next_moment(self) -> int | None:
        lists = (schema.steps, schema.waits, schema.inbox)
        with self.store.read() as tx:
            found = [tx.execute(sa.select(sa.func.min(each.c.next_send_at))).scalar() for each in lists]
            for moment in (
                schema.received.c.waits_until,
                schema.limit_keys.c.next_check_at,
                schema.pauses.c.next_check_at,
            ):
                found.append(tx.execute(sa.select(sa.func.min(moment))).scalar())
            found.append(run_limits.next_time(tx, self.clock.now))
        planned = None if self._housekeeping.schedules is None else self._rounds.next_at
        moments = [at for at in (*found, planned, self.broker.next_due_at()) if at is not None]
        if not moments:
            return None
        # Work that is overdue was left by the sweep, which checks it again in its next round.
        next_sweep = self.clock.now + self.engine.settings.sweep_interval
        return min(moments) if min(moments) > self.clock.now else next_sweep

    # Runs

    def start(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run, and do everything that needs no time."""
        run = self.engine.start(workflow, *args, **kwargs)
        self.run_until_idle()
        return run

    def run(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Start a run, let time pass until it has ended, and return its result, or raise as ``Run.result`` does."""
        run = self.start(workflow, *args, **kwargs)
        self.finish(run)
        return run.result(timeout=0)

    def finish(self, run: Run[Any]) -> None:
        """Let time pass until a run has ended, is blocked, or waits only for the outside world."""
        self.run_until_idle()
        for _ in range(MAX_JUMPS):
            if run.status in (*ENDED, RunStatus.BLOCKED) or not self.jump():
                return
        raise AssertionError(f"Run {run.id} has not ended after {MAX_JUMPS} jumps, at {self.now}: {run.events()}")

    def run_until_idle(self) -> None:
        """Run every message that is due now, and the messages that follow from it."""
        worker.run_until_idle(self.engine, self.broker)

    @contextmanager
    def replace(self, step: Step[..., Any], fake: Callable[..., Any]) -> Iterator[None]:
        """Inside the ``with`` block, run *fake* instead of the step's function."""
        before, step.body = step.body, fake
        try:
            yield
        finally:
            step.body = before

    # The outside world

    def resume(self, token: str, payload: object) -> None:
        """Send a payload to the hook with this token, and do what follows.  Raises HookNotFound."""
        self.engine.resume_hook(token, payload)
        self.run_until_idle()

    def post(self, url: str, *, method: str = "POST", **options: Any) -> TestResponse:
        """
        Send a request to the URL of a webhook or of a receiver, and do what follows while its connection is held.

        After a request to a receiver, do all that follows: the test cannot know the run before.

        Args:
            options: The options of Werkzeug's test client: ``json=``, ``data=``, ``headers=``.

        Returns:
            The response; 202 when no work is left and there is no response.
        """
        answer = self._senders.send(url, method, options)
        if RECEIVE_PATH in url:
            self.run_until_idle()
        return answer

    def received(self, receiver: ReceiverDefinition) -> list[ReceivedRow]:
        """What became of the requests to a receiver, oldest first, each with ``outcome``, ``rule`` and ``run_id``."""
        with self.store.read() as tx:
            return received.newest(tx, receiver=receiver.name, outcomes=(), limit=1_000, oldest_first=True)

    def run_of(self, request: ReceivedRow) -> Run[Any]:
        """The run that a request to a receiver has started or resumed; raises AssertionError if it has reached none."""
        assert request.run_id is not None, f"the request has reached no run: it is {request.outcome}"
        return self.engine.get_run(request.run_id)
