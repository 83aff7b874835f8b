"""
The thread that each process which runs steps has: it beats, and one of them sweeps.

It is started after the fork, so that no lock is carried over one, and it is
not a Celery task, so that a full pool cannot starve it.
"""

from __future__ import annotations

import json
import os
import threading
from bisect import bisect_right, insort
from collections.abc import Callable
from functools import partial
from random import Random

from sqlalchemy.exc import SQLAlchemyError

from .. import registry
from ..attempts import cancellation, timeout
from ..engine import Engine, identify
from ..sandbox import log_records
from ..store import PayloadStoreError, Worker, is_contention, reason, is_unavailable, workers
from ..turns import poison
from . import sentinel
from .orphans import Orphans
from .prune import START, prune_batch
from .sweep import publish_due, reap_dead_workers, release_forgotten, sweep

LEASE = "sweep"
#: Due times that are kept for ``on_due``, the nearest; the regular sweep finds the others.
_MOST_ALARMS = 10_000

log = log_records.get("durable.housekeeping")


class Housekeeping:
    """One process's housekeeping.  ``start`` once per process, ``stop`` when it ends."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._alarms: list[int] = []
        self._beating_since: int | None = None
        self._has_more = False
        self._swept_at: int | None = None
        self._pruned_to = START
        self._orphans = Orphans(engine)
        # One of its own: a thread must not change what others draw from `random` with a seed.
        self._draw = Random()
        self._has_threads = False
        self._tidying: threading.Thread | None = None
        self._thread = threading.Thread(target=self._run, name="durable-housekeeping", daemon=True)

    def start(self) -> None:
        """
        Beat once, so that a claim finds the process registered; all else happens in a thread.

        A prefork child takes no task before this returns, and may end after its first one.
        """
        self._engine.on_due = self.on_due
        self._has_threads = True
        self._try(self._beat)
        self._thread.start()

    def stop(self) -> None:
        """Remove this process from the database: it runs nothing any more."""
        with self._changed:
            self._stopping.set()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        if self._tidying is not None:
            self._tidying.join(timeout=5)
        self._farewell()

    def on_due(self, due_at: int) -> None:
        """Look again at *due_at*: something is published then which must not wait in a worker."""
        with self._changed:
            insort(self._alarms, due_at)
            del self._alarms[_MOST_ALARMS:]
            self._changed.notify()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.tick()
            self._pause()

    def _pause(self) -> None:
        engine = self._engine
        # Those that began at one moment do not go on in step.
        longest = int(min(engine.settings.sweep_interval, engine.settings.beat_interval) * self._draw.uniform(0.8, 1.0))
        if self._has_more:
            longest = 0
        with self._changed:
            if self._alarms:
                longest = min(longest, max(0, self._alarms[0] - engine.now()))
            if longest and not self._stopping.is_set():
                self._changed.wait(longest / 1_000_000)

    def tick(self) -> None:
        """One round: beat, look after this process's attempts, and sweep if this process has the lease."""
        self._try(self._round)

    def _round(self) -> None:
        engine = self._engine
        self._beat()
        release_forgotten(engine)
        poison.block_stuck(engine)
        cancellation.interrupt(engine)
        self._sweep()

    def _try(self, act: Callable[[], None]) -> None:
        """Do *act*.  What goes wrong is logged: the next round tries again."""
        try:
            act()
        except Exception as error:
            if not is_unavailable(error):
                log.exception("Housekeeping failed; trying again.")
                return
            if not is_contention(error):
                self._beating_since = None
            log.warning("Housekeeping cannot use the database now (%s); trying again.", reason(error))

    def _beat(self) -> None:
        engine = self._engine
        here = identify()
        with engine.store.begin() as tx:
            row = Worker(
                id=engine.process_id,
                host=here.host,
                boot_id=here.boot_id,
                pid=here.pid,
                pid_started=here.pid_started,
                started_at=0,
                beat_at=0,
                names=json.dumps(sorted({*registry.steps, *registry.workflows})),
                queues=json.dumps(_queues(engine)),
                clock_ahead=engine.clock_ahead(),
                progress=engine.progress.as_json(),
            )
            workers.beat(tx, row, engine.store.sql_now)
        if self._beating_since is None:
            self._beating_since = engine.now()

    def _sweep(self) -> None:
        engine = self._engine
        with engine.store.begin() as tx:
            ttl = 3 * engine.settings.sweep_interval
            leased = workers.take_lease(tx, LEASE, engine.process_id, engine.now(), ttl)
        if leased and self._beating_since is not None:
            reap_dead_workers(engine, beating_since=self._beating_since)
        if leased:
            timeout.give_up_overdue(engine)
        # Asked for in any case: an alarm that has rung is put away.
        rings = self._alarm_rings()
        self._has_more = False
        if leased:
            is_unsending = sentinel.look(engine)
            self._has_more = sweep(engine) or is_unsending
            self._swept_at = engine.now()
            self._tidy()
        elif rings:
            # The backlog is the leaseholder's: if each swept it whenever an alarm rings, it would be sent many times.
            publish_due(engine, engine.now() - engine.settings.sweep_interval)

    def _tidy(self) -> None:
        """Prune, and collect orphans: beside the rounds where files are elsewhere, since who does not beat is dead."""
        if not (self._engine.store.vault.payloads.is_outside and self._has_threads):
            self._prune()
            self._collect_orphans()
        elif self._tidying is None or not self._tidying.is_alive():
            self._tidying = threading.Thread(target=self._tidy_aside, name="durable-payloads", daemon=True)
            self._tidying.start()

    def _tidy_aside(self) -> None:
        try:
            self._prune()
            self._collect_orphans()
        except Exception as error:
            if not is_unavailable(error):
                log.exception("Pruning failed; trying again.")
            else:
                log.warning("Pruning cannot use the database now (%s); trying again.", reason(error))

    def _prune(self) -> None:
        """One batch a round: it is never urgent."""
        retention = self._engine.settings.retention
        if retention and not self._has_more:
            batch = prune_batch(self._engine, self._engine.now() - retention, self._pruned_to)
            self._pruned_to = batch.next or START

    def _collect_orphans(self) -> None:
        """One batch a round.  A payload store that is away does not keep a process from burying the dead."""
        try:
            self._orphans.collect()
        except PayloadStoreError as error:
            log.warning("Orphans are looked for later: %s", reason(error))

    def _alarm_rings(self) -> bool:
        now = self._engine.now()
        with self._changed:
            rung = bisect_right(self._alarms, now)
            del self._alarms[:rung]
        return rung > 0

    def _farewell(self) -> None:
        try:
            with self._engine.store.begin() as tx:
                workers.drop_lease(tx, LEASE, self._engine.process_id, self._next_sweep_at())
                workers.remove(tx, self._engine.process_id)
        except SQLAlchemyError as error:
            log.warning("Could not sign off (%s); the others notice by the missing beat.", type(error).__name__)

    def _next_sweep_at(self) -> int:
        """When another process may sweep: not sooner than this one would have, however often children are replaced."""
        if self._swept_at is None or self._has_more:
            return 0
        return self._swept_at + self._engine.settings.sweep_interval


def _queues(engine: Engine) -> list[str]:
    """
    The queues that this process takes messages from, by ``-Q``, ``task_queues`` or the default one.

    A prefork child has them from its parent, by the fork: of a queue that is added to a running worker
    (``add_consumer``) only the children forked later know.
    """
    return sorted(engine.celery.amqp.queues.consume_from)


_running: dict[tuple[int, int], Housekeeping] = {}
_lock = threading.Lock()
# A fork while another thread holds the lock would leave it locked in the child for ever.
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def ensure(engine: Engine) -> None:
    """Start this process's housekeeping unless it runs."""
    key = (os.getpid(), id(engine))
    with _lock:
        if key not in _running:
            _running[key] = housekeeping = Housekeeping(engine)
            engine.on_close(partial(end, engine))
            housekeeping.start()


def end(engine: Engine) -> None:
    """Stop this process's housekeeping if it runs; closing the engine does too."""
    housekeeping = _running.pop((os.getpid(), id(engine)), None)
    if housekeeping is not None:
        housekeeping.stop()
