"""``EngineParts``: what an engine is made of.  Each part is made at its first use."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager

from celery import Celery

from .. import failpoints, forks
from ..broker import Broker, Dispatcher, Notifier, Progress, Publisher, check_settings, make_notifier
from ..measures import Measures
from ..store import StepRow, Store, UrlPayloads, Vault, runs
from ..tracing import ContextVariables, Tracing, make_tracing, quiet
from . import celery_defaults
from .completions import Completions
from .deadlines import Deadlines
from .first_turns import FirstTurns
from .flusher import Flusher, write_measured
from .forwarder import Forwarder
from .known_waits import KnownWaits
from .later import Later
from .loop_calls import LoopCalls
from .made_once import made_once
from .pauses import KnownPauses
from .quick_steps import QuickSteps
from .replay_cache import Replays
from .run_handlers import RunHandlers
from .settings import Settings, check_names, check_variables, resolve
from .stream_writer import StreamWriter
from .stuck_runs import StuckRuns
from .timer import TimerThread
from .watchdog import Watchdog
from .webhook_counts import WebhookCounts

#: How long a first turn may take that ``start`` takes, waiting included.
FIRST_TURN_SECS = 1.0

#: The parts that a child process makes anew, and an engine that is used again after ``close``.
_OF_PROCESS = ("notifier", "completions", "loop_calls")


class EngineParts:
    """
    What one process has for one Celery application, and how each part is made and closed.

    ``Engine`` adds what an engine does.
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
        #: The steps that are quick.
        self.quick_steps = QuickSteps()
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
        #: Held while a part is made; see ``made_once``.
        self.making = threading.RLock()
        self._forget_parts_of_process()
        #: Claims of the attempts that run in this process.
        self.running: set[str] = set()
        #: By claim, how to interrupt those of them that can be interrupted.
        self.interrupts: dict[str, Callable[[], object]] = {}

    def _forget_parts_of_process(self) -> None:
        for name in _OF_PROCESS:
            self.__dict__.pop(name, None)

    @made_once
    def settings(self) -> Settings:
        """The settings in force; the first use reads the Celery app's configuration."""
        return resolve(self._given, lambda name: self.celery.conf.get(name))

    @made_once
    def store(self) -> Store:
        store = self.make_store()
        url = self.settings.payload_url
        store.vault = Vault(self.settings.cipher, None if url is None else UrlPayloads(url))
        store.quiet = lambda: quiet(lambda: self.tracing)
        return store

    @made_once
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

    @made_once
    def timer(self) -> TimerThread:
        timer = TimerThread()
        self.on_close(timer.close)
        return timer

    @made_once
    def watchdog(self) -> Watchdog:
        settings = self.settings
        limits = (settings.turn_cpu_limit / 1_000_000, settings.turn_timeout / 1_000_000)
        return Watchdog(self.timer, *limits, self.stuck.give_up)

    @made_once
    def starts_watchdog(self) -> Watchdog:
        """The watchdog of the first turns that ``start`` takes."""
        secs = self.settings.first_turn_budget / 1_000_000
        return Watchdog(self.timer, secs, max(secs, FIRST_TURN_SECS), self.stuck.give_up)

    @made_once
    def tracing(self) -> Tracing:
        settings = self.settings
        tracing = make_tracing(settings.tracing, ContextVariables(settings.contextvars))
        self.on_close(tracing.batch.flush)
        return tracing

    @made_once
    def replays(self) -> Replays:
        replays = Replays(self.settings.replay_cache, lambda replay: self.stuck.put_away(replay, self.watchdog))
        self.on_close(replays.close)
        return replays

    @made_once
    def known_waits(self) -> KnownWaits:
        return KnownWaits()

    @made_once
    def deadlines(self) -> Deadlines:
        return Deadlines(self.timer)

    @made_once
    def later(self) -> Later:
        later = Later()
        self.on_close(later.close)
        return later

    @made_once
    def first_turns(self) -> FirstTurns:
        """Sends the first turns of the runs that this process starts."""
        first_turns = self.make_first_turns()
        self.on_close(first_turns.close)
        return first_turns

    @made_once
    def stream_writer(self) -> StreamWriter:
        """Writes what the steps of this process emit."""
        writer = self.make_stream_writer()
        self.on_close(writer.close)
        return writer

    @made_once
    def forwarder(self) -> Forwarder:
        return Forwarder()

    @made_once
    def flusher(self) -> Flusher:
        """Flushes the measures of a process that has no housekeeping; the web's blueprints start it."""
        flusher = Flusher(self.flush_measures, lambda: self.settings.beat_interval / 1_000_000)
        self.on_close(flusher.close)
        return flusher

    @made_once
    def notifier(self) -> Notifier:
        """This process's notifier.  With two, a message would reach only the one that takes it from the inbox."""
        return self.make_notifier()

    @made_once
    def completions(self) -> Completions:
        """The runs that threads of this process wait for."""
        return self.make_completions()

    @made_once
    def loop_calls(self) -> LoopCalls:
        """The calls that event loops wait for."""
        # As many as there are connections, less some for the threads that work beside them.
        return LoopCalls(self.settings.pool_size + 3, waits_in_loop=self.store.waits_in_loop)

    # An engine for tests replaces these six.

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

    def make_first_turns(self) -> FirstTurns:
        """What sends the first turns of new runs; called once."""
        is_on, conf = bool(self.settings.continuation), self.celery.conf

        def holds() -> bool:
            return is_on and not conf.task_always_eager

        return FirstTurns(self.dispatch.send_first_turns, lambda: self.later, holds=holds)

    def broker_url(self) -> str:
        """The broker in use."""
        return celery_defaults.broker_url(self.celery)

    def check_messages(self) -> None:
        """Raise ConfigurationError for settings of Celery with which our messages would be lost."""
        if not self.celery.conf.task_always_eager:
            check_settings(self.celery)

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
        if "loop_calls" in self.__dict__:
            self.loop_calls.close()
        self.store.close()
        if "dispatch" in self.__dict__:
            self.dispatch.close()
        if "notifier" in self.__dict__:
            self.notifier.close()
        self._forget_parts_of_process()

    def _within_trace(self, run_id: str, trace_context: str | None) -> AbstractContextManager[None]:
        """Return the trace in which a run's message is sent, by the context as it is stored."""
        return self.tracing.within(run_id, runs.trace_context(self.store.vault, run_id, trace_context))

    def _impossible(self, row: StepRow, error: Exception) -> None:
        if self.on_impossible is not None:
            self.on_impossible(row, error)
