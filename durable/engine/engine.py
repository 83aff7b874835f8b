"""The engine: the store, dispatcher, notifier and settings of one application.  Functions get it as an argument."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from .. import failpoints, forks, migrations, registry
from ..broker import Broker, Dispatcher, Notifier, Progress, Publisher, check_settings, make_notifier
from ..errors import SchemaOutOfDate
from ..measures import Measures
from ..sandbox import log_records
from ..store import (
    REVISION,
    DriveRow,
    Run,
    RunStatus,
    StepRow,
    Store,
    UrlPayloads,
    Vault,
    due_turns,
    installation,
    reason,
    run_log,
    runs,
)
from ..tracing import ContextVariables, Tracing, make_tracing, quiet
from . import celery_defaults
from .completions import Completions
from .deadlines import Deadlines
from .flusher import Flusher, write_measured
from .forwarder import Forwarder
from .known_waits import KnownWaits
from .later import Later
from .loop_calls import LoopCalls
from .pauses import KnownPauses
from .replay_cache import Replays
from .run_handlers import Handler, RunHandlers
from .settings import Settings, check_names, check_variables, resolve
from .stream_writer import StreamWriter
from .stuck_runs import StuckRuns
from .timer import TimerThread
from .watchdog import Watchdog
from .webhook_counts import WebhookCounts

log = log_records.get("durable")

#: What is due within this time is waited for in place, in microseconds: the clocks of a worker and of the database may
#: be so far apart without a sleep being late.
NEAR = 250_000

#: How long a first turn may take that ``start`` takes, waiting included.
FIRST_TURN_SECS = 1.0


class Engine:
    """
    Everything that one process has for one Celery application.  Making an engine does no I/O.

    The public class is ``durable.Durable``.  This class does not know how runs are started.
    """

    def __init__(self, celery_app: Celery, **settings: object) -> None:
        check_names(settings)
        check_variables(os.environ)
        failpoints.arm_from_environment()
        self.celery = celery_app
        self._given = settings
        self._made = time.monotonic_ns()
        # This reports malformed keywords and variables now.  The app's configuration is read when it is needed.
        known = resolve(settings, lambda name: None)
        celery_defaults.configure(celery_app, known.broker_url)
        self._begin_in_process()
        forks.call_in_child(self._begin_in_process)
        self._schema_checked = False
        #: The id of the database, which messages carry; None until the schema is checked.
        self.installation: str | None = None
        self._closing: list[Callable[[], object]] = []
        #: What the application wants to be called for; ``on_run_failed`` and ``on_run_blocked`` add to it.
        self.run_handlers = RunHandlers()
        #: What this process has counted since the last flush.
        self.measures = Measures()
        #: What this process's webhooks have refused and received twice since the last flush.
        self.webhook_counts = WebhookCounts()
        #: The latest message that this process has taken from each queue.
        self.progress = Progress()
        #: What is paused by name.
        self.pauses = KnownPauses()
        #: The workflows whose first turns ``start`` leaves to workers, by name.
        self.left_first_turns: set[str] = set()
        #: The runs whose code this process can neither stop nor close.
        self.stuck = StuckRuns()
        #: The limits whose numbers this process has recorded, by name.
        self.declared_limits: dict[str, tuple[int, int | None, int | None]] = {}
        #: Whether the worker was told to send task events (``-E``).
        self.sends_task_events = False
        #: How long this process may go on with a run in any case, in microseconds, unless the settings forbid it: a
        #: child that ends after a few tasks has to be worth its start.
        self.least_continuation = 0
        #: The pool of this worker, as ``celery worker --pool`` names it; None outside of workers.
        self.pool: str | None = None
        #: Called with an attempt for which no message can ever be made, and the error.
        self.on_impossible: Callable[[StepRow, Exception], object] | None = None
        #: Called with the time at which a message has to be sent that may not wait in a worker.
        self.on_due: Callable[[int], None] | None = None

    def _begin_in_process(self) -> None:
        """Take a new name, with no notifier and no attempts, in this process or in a child."""
        #: A name of this process, unique among all processes.
        self.process_id = uuid.uuid4().hex
        self._flushing = threading.Lock()
        self._notifier: Notifier | None = None
        self._completions: Completions | None = None
        self._loop_calls: LoopCalls | None = None
        #: Claims of the attempts that run in this process.
        self.running: set[str] = set()
        #: By claim, how to interrupt those of them that can be interrupted.
        self.interrupts: dict[str, Callable[[], object]] = {}

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

    @cached_property
    def settings(self) -> Settings:
        """The settings in force; the first use reads the Celery app's configuration."""
        return resolve(self._given, lambda name: self.celery.conf.get(name))

    @cached_property
    def store(self) -> Store:
        store = self.make_store()
        url = self.settings.payload_url
        store.vault = Vault(self.settings.cipher, None if url is None else UrlPayloads(url))
        store.quiet = lambda: quiet(lambda: self.tracing)
        return store

    @cached_property
    def dispatch(self) -> Dispatcher:
        self.check_messages()
        settings = self.settings
        times = (settings.eta_horizon, settings.resend_after, self.store.now)
        # With a cipher the arguments are nowhere in the clear, the broker included.
        shows = settings.cipher is None
        return Dispatcher(
            self.celery,
            self.make_broker(),
            *times,
            self._impossible,
            self.measures,
            shows_arguments=shows,
            within=self._within_trace if settings.tracing else None,
            installation=lambda: self.installation,
        )

    @cached_property
    def timer(self) -> TimerThread:
        timer = TimerThread()
        self.on_close(timer.close)
        return timer

    @cached_property
    def watchdog(self) -> Watchdog:
        settings = self.settings
        limits = (settings.turn_cpu_limit / 1_000_000, settings.turn_timeout / 1_000_000)
        return Watchdog(self.timer, *limits, self.stuck.give_up)

    @cached_property
    def starts_watchdog(self) -> Watchdog:
        """The watchdog of the first turns that ``start`` takes."""
        secs = self.settings.first_turn_budget / 1_000_000
        return Watchdog(self.timer, secs, max(secs, FIRST_TURN_SECS), self.stuck.give_up)

    @cached_property
    def tracing(self) -> Tracing:
        settings = self.settings
        tracing = make_tracing(settings.tracing, ContextVariables(settings.contextvars))
        self.on_close(tracing.batch.flush)
        return tracing

    @cached_property
    def replays(self) -> Replays:
        replays = Replays(self.settings.replay_cache, lambda replay: self.stuck.put_away(replay, self.watchdog))
        self.on_close(replays.close)
        return replays

    @cached_property
    def known_waits(self) -> KnownWaits:
        return KnownWaits()

    @cached_property
    def deadlines(self) -> Deadlines:
        return Deadlines(self.timer)

    @cached_property
    def later(self) -> Later:
        later = Later()
        self.on_close(later.close)
        return later

    @cached_property
    def stream_writer(self) -> StreamWriter:
        """Writes what the steps of this process emit."""
        writer = self.make_stream_writer()
        self.on_close(writer.close)
        return writer

    @cached_property
    def forwarder(self) -> Forwarder:
        return Forwarder()

    @cached_property
    def flusher(self) -> Flusher:
        """Flushes the measures of a process that has no housekeeping; the web's blueprints start it."""
        flusher = Flusher(self.flush_measures, lambda: self.settings.beat_interval / 1_000_000)
        self.on_close(flusher.close)
        return flusher

    @property
    def notifier(self) -> Notifier:
        """This process's notifier."""
        if self._notifier is None:
            self._notifier = self.make_notifier()
        return self._notifier

    @property
    def completions(self) -> Completions:
        """The runs that threads of this process wait for."""
        if self._completions is None:
            self._completions = self.make_completions()
        return self._completions

    @property
    def loop_calls(self) -> LoopCalls:
        """The calls that event loops wait for."""
        if self._loop_calls is None:
            # As many as there are connections, less some for the threads that work beside them.
            self._loop_calls = LoopCalls(self.settings.pool_size + 3, waits_in_loop=self.store.waits_in_loop)
        return self._loop_calls

    # An engine for tests replaces these five.

    def make_store(self) -> Store:
        """The database; called once."""
        settings = self.settings
        return Store(settings.database_url, settings.pool_size, settings.prepared_statements, schema=settings.schema)

    def make_broker(self) -> Broker:
        """Where messages go; called once."""
        return Publisher(self.celery)

    def make_notifier(self) -> Notifier:
        """Where notifications go; called once per process."""
        options = dict(self.celery.conf.broker_transport_options or {})
        if self.celery.conf.broker_use_ssl:
            options["ssl"] = self.celery.conf.broker_use_ssl
        return make_notifier(self.broker_url(), options)

    def make_completions(self) -> Completions:
        """What waits for runs; called once per process."""
        return Completions(self.notifier, self.process_id)

    def make_stream_writer(self) -> StreamWriter:
        """What writes the items of streams; called once."""
        return StreamWriter(self.store, self.measures, lambda key: self.notifier.notify_subscribers(key))

    def broker_url(self) -> str:
        """The broker in use."""
        return celery_defaults.broker_url(self.celery)

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

    def wake_if_waiting(self, run_id: str) -> None:
        """Send a turn to a run that has something in its inbox, unless a process has the lease of its turns."""
        try:
            now = self.now()
            with self.store.read() as tx:
                run = due_turns.waiting_drive(tx, run_id, now)
        except SQLAlchemyError as error:
            log.warning("The inbox of run %s cannot be read (%s): the sweep sends its turn.", run_id, reason(error))
            return
        if run is not None:
            self.wake(run)

    def _within_trace(self, run_id: str, trace_context: str | None) -> AbstractContextManager[None]:
        """Return the trace in which a run's message is sent, by the context as it is stored."""
        return self.tracing.within(run_id, runs.trace_context(self.store.vault, run_id, trace_context))

    def _impossible(self, row: StepRow, error: Exception) -> None:
        if self.on_impossible is not None:
            self.on_impossible(row, error)

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

    def check_messages(self) -> None:
        """Raise ConfigurationError for settings of Celery with which our messages would be lost."""
        if not self.celery.conf.task_always_eager:
            check_settings(self.celery)

    def wake(self, *runs: str | Run | DriveRow, not_before: int = 0) -> None:
        """
        Send a turn to each of these runs, because there is something new for it.

        The sweep sends later what cannot be sent now.

        Args:
            runs: Their rows; or ids, and then their queues are read from the database first.
            not_before: A time for which ``dispatch.plan_at`` has found room; for rows of runs only.
        """
        ids = [run for run in runs if isinstance(run, str)]
        for first in range(0, len(ids), run_log.TURN_LIMIT):
            with self.store.read() as tx:
                rows = due_turns.drives(tx, ids[first : first + run_log.TURN_LIMIT])
            self.dispatch.send_turns(rows)
        for run in runs:
            if isinstance(run, Run):
                row = DriveRow(run.id, run.queue, run.priority, trace_context=run.trace_context)
                self.dispatch.send_turn(row, not_before=not_before)
            elif isinstance(run, DriveRow):
                self.dispatch.send_turn(run)

    def notify(self, holder: str, *messages: str) -> None:
        """Notify a process that something it waits for is in the database now; an empty *holder* means no process."""
        if holder:
            self.notifier.notify(holder, *messages)

    def flush_measures(self) -> None:
        """Write what this process has measured since the last flush; on an error, keep it for the next."""
        # One thread at a time, so that after a call everything is written that was measured before it.
        with self._flushing:
            write_measured(self.store, self.measures, self.webhook_counts)

    def on_close(self, act: Callable[[], object]) -> None:
        """Call *act* when the engine is closed."""
        self._closing.append(act)

    def close(self) -> None:
        """Close connections and stop threads.  For tests and scripts that make many engines."""
        while self._closing:
            self._closing.pop()()
        if self._loop_calls is not None:
            self._loop_calls.close()
        self.store.close()
        if "dispatch" in self.__dict__:
            self.dispatch.close()
        if self._notifier is not None:
            self._notifier.close()
        self._notifier = self._completions = self._loop_calls = None

    def _revision(self) -> str | None:
        with self.store.read() as tx:
            found = migrations.revision(tx)
            if migrations.suffices(found):
                self.installation = installation.read(tx)
            return found
