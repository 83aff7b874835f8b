"""The engine: the store, dispatcher, notifier and settings of one application.  Functions get it as an argument."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from .. import migrations, registry
from ..errors import SchemaOutOfDate
from ..sandbox import log_records
from ..store import REVISION, DriveRow, Run, RunStatus, due_turns, installation, reason, run_log
from .parts import EngineParts
from .run_handlers import Handler

log = log_records.get("durable")

#: What is due within this time is waited for in place, in microseconds: the clocks of a worker and of the database may
#: be so far apart without a sleep being late.
NEAR = 250_000


class Engine(EngineParts):
    """
    Everything that one process has for one Celery application.  Making an engine does no I/O.

    The public class is ``durable.Durable``.  This class does not know how runs are started.
    """

    def on_run_failed(self, function: Handler) -> Handler:
        """
        Call a function with each run that has failed, as a decorator: ``@engine.on_run_failed``.

        The process that has ended the run calls it with the ``Run``, once that is committed; after a crash another
        process calls it again.  What it raises is logged, and changes nothing.

        Raises:
            ConfigurationError: It is an ``async def``, or no function.
        """
        return self.run_handlers.add(RunStatus.FAILED, function)

    def on_run_blocked(self, function: Handler) -> Handler:
        """Call a function with each run that becomes blocked, as ``on_run_failed`` does for runs that fail."""
        return self.run_handlers.add(RunStatus.BLOCKED, function)

    def code_version(self, workflow: registry.Workflow[..., Any]) -> str:
        """The code version that a run records when it starts."""
        return self.settings.code_version or registry.code_version(workflow)

    def now(self) -> int:
        """The database's time, in microseconds since 1970 UTC."""
        return self.store.now()

    def loaded_at(self) -> int:
        """When this engine was made, by the database's clock: the process has loaded its code and settings then."""
        return self.now() - (time.monotonic_ns() - self._made) // 1000

    def clock_ahead(self) -> int:
        """
        How far this process's clock is ahead of the database's, in microseconds; negative when it is behind.

        Celery uses the worker's clock to hold a message until its ETA.
        """
        return time.time_ns() // 1000 - self.now()

    def wait_if_near(self, due_at: int | None) -> bool:
        """
        Sleep until a time that is at most ``NEAR`` away; return whether it has come.

        A message with an ETA arrives by its worker's clock, which may be some milliseconds ahead of the database's.
        """
        if due_at is None or due_at - self.now() > NEAR:
            return False
        time.sleep(max(0, due_at - self.now()) / 1_000_000 + 0.002)
        return True

    def send_turn_if_waiting(self, run_id: str) -> None:
        """Send a turn to a run that has something in its inbox, unless a process has the lease of its turns."""
        try:
            now = self.now()
            with self.store.read() as tx:
                run = due_turns.waiting_drive(tx, run_id, now)
        except SQLAlchemyError as error:
            log.warning("The inbox of run %s cannot be read (%s): the sweep sends its turn.", run_id, reason(error))
            return
        if run is not None:
            self.send_turns(run)

    def is_embedded(self) -> bool:
        """Whether the database is SQLite, which is migrated without being asked."""
        return self.store.dialect == "sqlite"

    def migrate(self) -> None:
        """Bring the database to the schema that this code needs, or leave it if it is newer; one process at a time."""
        self.store.create_schema()
        while self.store.write(migrations.upgrade):
            pass

    def check_schema(self) -> None:
        """Raise SchemaOutOfDate unless the database has the schema that this code needs, or a newer one."""
        if self._schema_checked:
            return
        found = self._revision()
        if not migrations.suffices(found) and self.is_embedded():
            self.migrate()
            found = self._revision()
        if not migrations.suffices(found):
            raise SchemaOutOfDate(found, REVISION)
        self._schema_checked = True

    def send_turns(self, *runs: str | Run | DriveRow, not_before: int = 0) -> None:
        """
        Send a turn to each of these runs, because there is something new for it.

        The sweep sends later what cannot be sent now: the broker or the database may be away.

        Args:
            runs: Their rows; or ids, and then their queues are read from the database first.
            not_before: A time for which ``dispatch.plan_at`` has found room; for rows of runs only.
        """
        ids = [run for run in runs if isinstance(run, str)]
        for first in range(0, len(ids), run_log.TURN_LIMIT):
            self._send_turns_by_id(ids[first : first + run_log.TURN_LIMIT])
        for run in runs:
            if isinstance(run, Run):
                row = DriveRow(run.id, run.queue, run.priority, trace_context=run.trace_context)
                self.dispatch.send_turn(row, not_before=not_before)
            elif isinstance(run, DriveRow):
                self.dispatch.send_turn(run)

    def _send_turns_by_id(self, run_ids: list[str]) -> None:
        try:
            with self.store.read() as tx:
                rows = due_turns.drives(tx, run_ids)
        except SQLAlchemyError as error:
            # What is new for them is committed, so their callers must not fail.
            what = f"run {run_ids[0]}" if len(run_ids) == 1 else f"{len(run_ids)} runs, {run_ids[0]} among them"
            log.warning("No turn is sent to %s (%s): the sweep sends it.", what, reason(error))
            return
        self.dispatch.send_turns(rows)

    def notify(self, holder: str, *messages: str) -> None:
        """Notify a process that something it waits for is in the database now; an empty *holder* means no process."""
        if holder:
            self.notifier.notify(holder, *messages)

    def _revision(self) -> str | None:
        with self.store.read() as tx:
            found = migrations.revision(tx)
            if migrations.suffices(found):
                self.installation = installation.read(tx)
            return found
