"""
Housekeeping: each process that runs steps has a thread that sends heartbeats, and one process at a time sweeps.

The thread starts after a worker has forked, so that no lock is copied by the fork.  It is not a Celery task, so that a
full pool cannot starve it.
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_right, insort
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random

from sqlalchemy.exc import SQLAlchemyError

from .. import forks, registry
from ..attempts import cancellation, timeout
from ..broker import celery_internals
from ..engine import Engine, identify, versions
from ..sandbox import log_records
from ..schedules import Rounds, registered_names
from ..store import DueWork, PayloadStoreError, Worker, is_contention, is_unavailable, reason, workers
from ..turns import poison
from . import broker_sentinel
from .orphans import Orphans
from .prune import START, prune_batch, prune_received
from .sweep import find_due, publish_due, reap_dead_workers, release_forgotten, sweep
from .sweep_lease import LEASE, LeaseOfSweep

#: A process looks for claims that it has forgotten until so many times ``dead_after`` after its last work.
_WORKED_LATELY = 3
#: The most due times that ``on_due`` keeps, the nearest ones.  The regular sweep finds the others.
_MOST_DUE_TIMES = 10_000

log = log_records.get("durable.housekeeping")


@dataclass(frozen=True, slots=True)
class _Beat:
    """When a heartbeat was sent, and what it has told of the process's steps and messages."""

    at: int
    names: str
    progress: str | None


class Housekeeping:
    """The housekeeping of one process.  Call ``start`` once, and ``stop`` when the process ends."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._due_times: list[int] = []
        self._beating_since: int | None = None
        self._last_beat: _Beat | None = None
        self._beats_at = 0
        self._worked_at = 0
        self._has_more = False
        self._swept_at: int | None = None
        self._pruned_to = START
        self._flushed_at = 0
        self._orphans = Orphans(engine)
        #: The schedules of this process; None when it fires none.
        self.schedules: Rounds | None = Rounds(engine)
        # A generator of its own, since the application may seed the shared one and expect its numbers.
        self._draw = Random()
        self._lease = LeaseOfSweep(engine, self._draw)
        self._has_threads = False
        self._tidying: threading.Thread | None = None
        #: Emits the spans that wait.
        self.emitting: threading.Thread | None = None
        self._thread = threading.Thread(target=self._run, name="durable-housekeeping", daemon=True)

    def start(self) -> None:
        """
        Send one heartbeat, so that a claim finds the process registered, and start the thread.

        A prefork child takes no task before this returns, and may end after its first task.
        """
        self._engine.on_due = self.on_due
        self._has_threads = True
        with self._errors_logged():
            self._beat()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and remove this process from the database: it runs nothing any more."""
        with self._changed:
            self._stopping.set()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        if self._tidying is not None:
            self._tidying.join(timeout=5)
        with self._errors_logged():
            self._engine.flush_measures()
        self._engine.tracing.batch.flush()
        self._unregister()

    def on_due(self, due_at: int) -> None:
        """Check at *due_at*: something has to be sent then that may not wait in a worker."""
        with self._changed:
            insort(self._due_times, due_at)
            del self._due_times[_MOST_DUE_TIMES:]
            self._changed.notify()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.tick()
            self._pause()

    def _pause(self) -> None:
        engine = self._engine
        # Random, so that processes that started together do not stay in step.
        longest = int(min(engine.settings.sweep_interval, engine.settings.beat_interval) * self._draw.uniform(0.8, 1.0))
        if self._has_more:
            longest = 0
        with self._changed:
            if self._due_times:
                longest = min(longest, max(0, self._due_times[0] - engine.now()))
            if self.schedules is not None and self.schedules.next_at is not None:
                longest = min(longest, max(0, self.schedules.next_at - engine.now()))
            if self._beats_at > engine.now() and not self._lease.is_held:
                longest = min(longest, self._beats_at - engine.now())
            if longest and not self._stopping.is_set():
                self._changed.wait(longest / 1_000_000)

    def tick(self) -> None:
        """Make one round: send a heartbeat if it is time, check this process's attempts, sweep if it has the lease."""
        # First: what a time is for that is set later in this round may not be found any more.  The next round finds it.
        is_due = self._take_due()
        with self._errors_logged():
            if self._has_to_beat():
                self._beat()
                if self._has_worked_lately():
                    release_forgotten(self._engine)
            poison.block_stuck(self._engine)
            cancellation.interrupt(self._engine)
            self._sweep(is_due=is_due)
        with self._errors_logged():
            self._flush()
        with self._errors_logged():
            self._emit_spans()

    @contextmanager
    def _errors_logged(self) -> Iterator[None]:
        """Log an error: the next round tries again."""
        try:
            yield
        except Exception as error:
            if not is_unavailable(error):
                log.exception("Housekeeping failed; trying again.")
                return
            if not is_contention(error):
                self._beating_since = None
            log.warning("Housekeeping cannot use the database now (%s); trying again.", reason(error))

    def _beat(self) -> None:
        engine = self._engine
        process = identify()
        row = Worker(
            id=engine.process_id,
            host=process.host,
            boot_id=process.boot_id,
            pid=process.pid,
            pid_started=process.pid_started,
            started_at=0,
            beat_at=0,
            names=self._names(),
            queues=json.dumps(celery_internals.consumed_queues(engine.celery)),
            pool=engine.pool,
            versions=json.dumps(versions()),
            clock_ahead=engine.clock_ahead(),
            progress=engine.progress.as_json(),
            limits=json.dumps({name: limit.numbers for name, limit in registry.limits.items()}),
        )
        engine.pauses.know(workers.commit_beat(engine.store, row))
        if (last := self._last_beat) is not None and (row.progress != last.progress or self._beating_since is None):
            self._worked_at = engine.now()
        self._last_beat = _Beat(engine.now(), row.names, row.progress)
        self._beats_at = self._last_beat.at + int(engine.settings.beat_interval * self._draw.uniform(0.95, 1.0))
        if self._beating_since is None:
            self._beating_since = self._last_beat.at

    def _has_to_beat(self) -> bool:
        """Whether it is time, the last heartbeat has failed, or others have to know something new."""
        engine, last = self._engine, self._last_beat
        if last is None or self._beating_since is None:
            return True
        # The process with the lease beats in a round of the sweep, rather early than late.
        is_due = engine.now() + self._lease.is_held * engine.settings.sweep_interval // 2 >= self._beats_at
        return is_due or (last.names, last.progress) != (self._names(), engine.progress.as_json())

    def _has_worked_lately(self) -> bool:
        """Whether this process may have claims that it has forgotten: it runs something, or did so lately."""
        engine = self._engine
        if engine.running:
            self._worked_at = engine.now()
        return engine.now() - self._worked_at <= _WORKED_LATELY * engine.settings.dead_after

    def _names(self) -> str:
        return json.dumps(sorted({*registry.steps, *registry.workflows, *registered_names()}))

    def _flush(self) -> None:
        """Add what this process has measured to the totals, once per heartbeat interval."""
        now = self._engine.now()
        if now - self._flushed_at >= self._engine.settings.beat_interval // 2:
            self._flushed_at = now
            self._engine.flush_measures()

    def _emit_spans(self) -> None:
        """Emit what waits while a step runs in place, in a thread of its own: an exporter may wait for a server."""
        batch = self._engine.tracing.batch
        if batch and (self.emitting is None or not self.emitting.is_alive()):
            thread = threading.Thread(target=batch.flush, name="durable-spans", daemon=True)
            thread.start()
            self.emitting = thread

    def _sweep(self, *, is_due: bool) -> None:
        """Sweep if this process has the lease; else send only what has just become due here, if *is_due*."""
        engine = self._engine
        has_lease = self._lease.take()
        due = find_due(engine) if has_lease else None
        has_more_schedules = False
        with self._errors_logged():
            # An error with a schedule must not keep the sweep from its work.
            has_more_schedules = self._fire_schedules(due)
        if due is None:
            self._has_more = False
            if is_due:
                # The process with the lease sends the rest.  If each process did, it would be sent many times.
                publish_due(engine, engine.now() - engine.settings.sweep_interval)
            return
        if self._beating_since is not None:
            reap_dead_workers(engine, beating_since=self._beating_since, has_orphans=due.orphans)
        if due.overdue:
            timeout.give_up_overdue(engine)
        self._has_more = False
        is_unsending = broker_sentinel.check(engine)
        self._has_more = sweep(engine, due) or is_unsending or has_more_schedules
        self._swept_at = engine.now()
        self._tidy()

    def _fire_schedules(self, due: DueWork | None) -> bool:
        """Write what this process declares, and fire what is due if it has the lease; whether more may be due."""
        if self.schedules is None:
            return False
        self.schedules.write_declared()
        if due is None:
            self.schedules.rest()
            return False
        return self.schedules.fire(due.next_fire_at)

    def _tidy(self) -> None:
        """Prune, and collect orphans; in a thread of its own where payloads are elsewhere, as that may take long."""
        if not (self._engine.store.vault.payloads.is_outside and self._has_threads):
            self._prune()
            self._collect_orphans()
        elif self._tidying is None or not self._tidying.is_alive():
            thread = threading.Thread(target=self._tidy_aside, name="durable-payloads", daemon=True)
            thread.start()
            self._tidying = thread

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
        """Prune one batch in each round, since it is never urgent."""
        retention = self._engine.settings.retention
        if retention and not self._has_more:
            before = self._engine.now() - retention
            batch = prune_batch(self._engine, before, self._pruned_to)
            prune_received(self._engine, before)
            self._pruned_to = batch.next or START

    def _collect_orphans(self) -> None:
        """Collect one batch in each round.  The round goes on when the payload store does not answer."""
        try:
            self._orphans.collect()
        except PayloadStoreError as error:
            log.warning("Orphaned payloads are collected later: %s", reason(error))

    def _take_due(self) -> bool:
        """Remove the due times that have passed; whether there were any."""
        now = self._engine.now()
        with self._changed:
            passed = bisect_right(self._due_times, now)
            del self._due_times[:passed]
        return passed > 0

    def _unregister(self) -> None:
        # Another process may sweep once this one would have, however often children are replaced.
        swept_at, interval = self._swept_at, self._engine.settings.sweep_interval
        next_sweep_at = 0 if swept_at is None or self._has_more else swept_at + interval
        try:
            with self._engine.store.begin() as tx:
                workers.drop_lease(tx, LEASE, self._engine.process_id, next_sweep_at)
                workers.remove(tx, self._engine.process_id)
        except SQLAlchemyError as error:
            log.warning(
                "This process could not be removed from the database (%s): others do it later.", type(error).__name__
            )


def _begin_in_process() -> None:
    global _running, _lock
    #: The housekeeping of this process, by the id of its engine.
    _running = {}
    _lock = threading.Lock()


_running: dict[int, Housekeeping]
_lock: threading.Lock
_begin_in_process()
forks.call_in_child(_begin_in_process)


def ensure(engine: Engine) -> None:
    """Start the housekeeping of this process for the engine, unless it runs."""
    with _lock:
        if id(engine) not in _running:
            _running[id(engine)] = housekeeping = Housekeeping(engine)
            engine.on_close(partial(end, engine))
            housekeeping.start()


def end(engine: Engine) -> None:
    """Stop the housekeeping of this process for the engine, if it runs.  Closing the engine does this too."""
    housekeeping = _running.pop(id(engine), None)
    if housekeeping is not None:
        housekeeping.stop()
