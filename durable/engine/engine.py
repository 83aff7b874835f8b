"""The engine: store, dispatch, notifier and settings of one application, passed and never ambient."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from celery import Celery
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from .. import failpoints, migrations, registry
from ..broker import Broker, Dispatcher, Notifier, Progress, Publisher, check, embedded, make_notifier
from ..errors import DurableError, SchemaOutOfDate, TurnTooLong
from ..replay import Replay
from ..sandbox import log_records
from ..store import REVISION, StepRow, Store, UrlPayloads, Vault, reason, run_log, runs
from .completions import Completions
from .deadlines import Deadlines
from .fan_in import FanIn
from .replay_cache import Replays, unclosable
from .settings import Settings, check_names, resolve
from .watchdog import Watchdog

log = log_records.get("durable")

#: How far the clocks of a worker and of the database may be apart without a sleep being late, microseconds.
NEARLY = 250_000

#: Filled into the Celery app's configuration where the application leaves them unset.
CELERY_DEFAULTS: dict[str, Any] = {
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
}

#: The same for the options of Redis's transport (docs/how-to/operating.md says why).
REDIS_OPTIONS: dict[str, Any] = {
    "visibility_timeout": 21600,
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    "socket_timeout": 5.0,
    "socket_connect_timeout": 2.0,
    "socket_keepalive": True,
    "health_check_interval": 25,
    "queue_order_strategy": "round_robin",
}


class Engine:
    """
    What the library passes around.  Making one does no I/O.

    The public class is ``durable.Durable``; this one knows nothing of runs and steps.
    """

    def __init__(self, celery_app: Celery, **settings: object) -> None:
        check_names(settings)
        failpoints.arm_from_environment()
        self.celery = celery_app
        self._given = settings
        # Malformed keywords and variables are told here; the app's own configuration is read when it is needed.
        resolve(settings, lambda name: None)
        self._configure()
        self._identity: tuple[int, str] | None = None
        self._notifiers: dict[int, Notifier] = {}
        self._completions: Completions | None = None
        self._schema_checked = False
        self._closing: list[Callable[[], object]] = []
        #: How far this process has come in the queues that it takes messages from.
        self.progress = Progress()
        #: Claims of the attempts that run in this process.
        self.running: set[str] = set()
        #: How to interrupt those among them that can be interrupted, by claim.
        self.interrupts: dict[str, Callable[[], object]] = {}
        #: Runs whose code this process cannot stop, or cannot put away: why they are to be blocked.
        self.stuck: dict[str, DurableError] = {}
        #: Whether the worker was told to send task events (``-E``).
        self.sends_task_events = False
        #: Whether this process may be killed with a turn that nothing stops: it does nothing else meanwhile.
        self.expendable = False
        #: Called for an attempt of which no message can ever be made, with the error.
        self.on_impossible: Callable[[StepRow, Exception], object] | None = None
        #: Called with the due time of what is to be published then, where messages may not wait in a worker.
        self.on_due: Callable[[int], None] | None = None

    @cached_property
    def settings(self) -> Settings:
        """The settings in force; the first use reads the Celery app's configuration."""
        return resolve(self._given, lambda name: self.celery.conf.get(name))

    @cached_property
    def store(self) -> Store:
        made = self.make_store()
        url = self.settings.payload_url
        made.vault = Vault(self.settings.cipher, None if url is None else UrlPayloads(url))
        return made

    @cached_property
    def dispatch(self) -> Dispatcher:
        self.check_messages()
        settings = self.settings
        times = (settings.eta_horizon, settings.resend_after, self.store.now)
        return Dispatcher(self.celery, self.make_broker(), *times, self._impossible)

    @cached_property
    def watchdog(self) -> Watchdog:
        settings = self.settings
        made = Watchdog(settings.turn_cpu_limit / 1_000_000, settings.turn_timeout / 1_000_000, self._give_up)
        self.on_close(made.close)
        return made

    @cached_property
    def replays(self) -> Replays:
        made = Replays(self.settings.replay_cache, self._put_away)
        self.on_close(made.close)
        return made

    @cached_property
    def deadlines(self) -> Deadlines:
        made = Deadlines()
        self.on_close(made.close)
        return made

    @cached_property
    def fan_in(self) -> FanIn:
        made = FanIn(self._drive_waiting)
        self.on_close(made.close)
        return made

    @property
    def notifier(self) -> Notifier:
        """This process's notifier."""
        pid = os.getpid()
        if pid not in self._notifiers:
            self._notifiers = {pid: self.make_notifier()}
        return self._notifiers[pid]

    @property
    def completions(self) -> Completions:
        """Whoever waits in this process for runs to end."""
        if self._completions is None or self._completions.holder != self.process_id:
            self._completions = Completions(self.notifier, self.process_id)
        return self._completions

    # What an engine of tests has another one of.

    def make_store(self) -> Store:
        """The database; asked for once."""
        return Store(self.settings.database_url, self.settings.pool_size)

    def make_broker(self) -> Broker:
        """Where messages go; asked for once."""
        return Publisher(self.celery)

    def make_notifier(self) -> Notifier:
        """Where hints go; asked for once per process."""
        options = dict(self.celery.conf.broker_transport_options or {})
        if self.celery.conf.broker_use_ssl:
            options["ssl"] = self.celery.conf.broker_use_ssl
        return make_notifier(self.broker_url(), options)

    @property
    def process_id(self) -> str:
        """A name of this process, made anew after a fork."""
        if self._identity is None or self._identity[0] != os.getpid():
            self._identity = (os.getpid(), uuid.uuid4().hex)
        return self._identity[1]

    def broker_url(self) -> str:
        """The broker in use."""
        url = self.celery.conf.broker_write_url
        return str(url[0] if isinstance(url, list | tuple) else url)

    def code_version(self, workflow: registry.Workflow[..., Any]) -> str:
        """What a run remembers as the code that started it."""
        return self.settings.code_version or registry.code_version(workflow)

    def now(self) -> int:
        """The database's time, in microseconds since 1970 UTC."""
        return self.store.now()

    def clock_ahead(self) -> int:
        """
        How far this process's own clock is ahead of the database's, in microseconds; negative: behind.

        Celery goes by the worker's clock when it holds a message until its ETA.
        """
        return time.time_ns() // 1000 - self.now()

    def is_nearly(self, due_at: int | None) -> bool:
        """
        Whether a moment is so near that it pays to wait for it here, which this does.

        An alarm clock goes by its worker's clock and may ring some milliseconds before the database's.
        """
        if due_at is None or due_at - self.now() > NEARLY:
            return False
        time.sleep(max(0, due_at - self.now()) / 1_000_000 + 0.002)
        return True

    def _drive_waiting(self, run_id: str) -> None:
        """Send a turn to a run that has news; what cannot be looked at now is left to the sweep."""
        try:
            with self.store.read() as tx:
                run = runs.find(tx, run_id) if run_log.oldest_inbox_item(tx, run_id) else None
        except SQLAlchemyError as error:
            log.warning("News of run %s are left to the sweep (%s).", run_id, reason(error))
            return
        if run is not None:
            self.dispatch.drive(run.id, run.queue, run.priority)

    def _impossible(self, row: StepRow, error: Exception) -> None:
        if self.on_impossible is not None:
            self.on_impossible(row, error)

    def _put_away(self, replay: Replay) -> None:
        """Park a replay that was kept; a run whose body cannot be put away is blocked later."""
        fault: DurableError | None
        try:
            self.watchdog.watch(replay.info.run_id).run(replay.park)
            fault = unclosable(replay)
        except TurnTooLong as error:
            fault = error
        if fault is not None:
            self.stuck[replay.info.run_id] = fault

    def _give_up(self, reason: TurnTooLong) -> None:
        """A turn that nothing stops costs a prefork child, or else its thread for good."""
        if not self.expendable:
            self.stuck[reason.run_id] = reason
            log.error("%s  Nothing stops it: its thread is lost until this process ends.", reason)
            return
        # First the timer: the turn may hold the lock of a log.
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGKILL)).start()
        log.error("%s  Nothing stops it: this process is killed.", reason)

    def is_embedded(self) -> bool:
        """Whether the store is the embedded default, which migrates itself."""
        return self.store.dialect == "sqlite"

    def migrate(self) -> None:
        """Bring the database to the schema that this code needs; one process at a time."""
        with self.store.begin() as tx:
            if self.store.dialect == "postgresql":
                tx.execute(text("SELECT pg_advisory_xact_lock(hashtext('durable_migrate'))"))
            migrations.upgrade(tx)

    def check_schema(self) -> None:
        """Raise SchemaOutOfDate unless the database has the schema that this code needs."""
        if self._schema_checked:
            return
        found = self._revision()
        if found != REVISION and self.is_embedded():
            self.migrate()
            found = self._revision()
        if found != REVISION:
            raise SchemaOutOfDate(found, REVISION)
        self._schema_checked = True

    def check_messages(self) -> None:
        """Raise ConfigurationError for settings of Celery by which our messages would be lost."""
        if not self.celery.conf.task_always_eager:
            check(self.celery)

    def hint(self, holder: str, message: str) -> None:
        """Tell a process that something it waits for is in the store now."""
        if holder:
            self.notifier.hint(holder, message)

    def on_close(self, act: Callable[[], object]) -> None:
        """Call *act* when the engine is closed."""
        self._closing.append(act)

    def close(self) -> None:
        """Close connections, and hear of new steps no more: for tests and scripts that make many engines."""
        while self._closing:
            self._closing.pop()()
        self.store.close()
        if "dispatch" in self.__dict__:
            self.dispatch.close()
        for notifier in self._notifiers.values():
            notifier.close()
        self._notifiers, self._completions = {}, None

    def _revision(self) -> str | None:
        with self.store.read() as tx:
            return migrations.revision(tx)

    def _configure(self) -> None:
        broker_url = resolve(self._given, lambda name: None).broker_url
        if broker_url is not None:
            self.celery.conf.broker_url = broker_url
        self.celery.add_defaults(lambda: {**CELERY_DEFAULTS, "broker_url": embedded.url()})
        if self.celery.configured:
            self._fill_transport_options(self.celery)
        else:
            self.celery.on_after_configure.connect(self._fill_transport_options, weak=False)

    def _fill_transport_options(self, sender: Celery, **_: object) -> None:
        given = dict(sender.conf.broker_transport_options or {})
        sender.conf.broker_transport_options = {**transport_defaults(self.broker_url()), **given}


def transport_defaults(url: str) -> dict[str, Any]:
    """The transport options that we fill in for a broker of this URL where the application leaves them unset."""
    scheme = url.partition("://")[0].partition("+")[0]
    if scheme in ("redis", "rediss", "valkey", "valkeys", "sentinel"):
        return dict(REDIS_OPTIONS)
    if scheme in ("amqp", "amqps", "pyamqp"):
        return {"confirm_publish": True}
    return {}


def send_drive(engine: Engine, run_id: str) -> None:
    """Send a turn to the queue of the run."""
    send_drives(engine, [run_id])


def send_drives(engine: Engine, run_ids: Sequence[str]) -> None:
    """Send turns of several runs, each to its run's queue."""
    for first in range(0, len(run_ids), run_log.TURN_LIMIT):
        with engine.store.read() as tx:
            rows = run_log.drives(tx, run_ids[first : first + run_log.TURN_LIMIT])
        engine.dispatch.drives(rows)
