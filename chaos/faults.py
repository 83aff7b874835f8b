"""
What is done to the system, and when: drawn from a seed before anything runs.

A fault that lasts is healed by itself; faults may overlap.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from .deployment import Deployment, Process
from .proxy import Proxy
from .servers import Broker, PostgreSQL


@dataclass(frozen=True)
class Fault:
    """*name* is done *at* seconds after the start; *size*, from 0 to 1, says to whom, or how long."""

    at: float
    name: str
    size: float


@dataclass(frozen=True)
class Field:
    """What faults are done to."""

    deployment: Deployment
    database: PostgreSQL
    broker: Broker
    database_proxy: Proxy
    broker_proxy: Proxy


def kill_child(field: Field, size: float) -> None:
    """SIGKILL to one prefork child of a worker."""
    _hit_child(_pick(field.deployment.workers, size), size, signal.SIGKILL)


def kill_worker(field: Field, size: float) -> None:
    """SIGKILL to a worker with its children; another is started after up to 3 s."""
    worker = _pick(field.deployment.workers, size)
    worker.kill()
    time.sleep(3 * size)
    worker.start()


def kill_all_workers(field: Field, size: float) -> None:
    """SIGKILL to every worker."""
    for worker in field.deployment.workers:
        worker.kill()
    time.sleep(2 * size)
    for worker in field.deployment.workers:
        worker.start()


def pause_worker(field: Field, size: float) -> None:
    """SIGSTOP to a worker with its children for up to 15 s: past the time after which it counts as dead."""
    worker = _pick(field.deployment.workers, size)
    worker.signal(signal.SIGSTOP)
    time.sleep(15 * size)
    worker.signal(signal.SIGCONT)


def kill_web_child(field: Field, size: float) -> None:
    """SIGKILL to one of gunicorn's processes."""
    _hit_child(field.deployment.web, size, signal.SIGKILL)


def kill_web(field: Field, size: float) -> None:
    """SIGKILL to gunicorn; started again after up to 1 s."""
    field.deployment.web.kill()
    time.sleep(size)
    field.deployment.web.start()


def pause_web(field: Field, size: float) -> None:
    """SIGSTOP to gunicorn for up to 3 s."""
    field.deployment.web.signal(signal.SIGSTOP)
    time.sleep(3 * size)
    field.deployment.web.signal(signal.SIGCONT)


def flush_broker(field: Field, size: float) -> None:
    """Every message is gone."""
    field.broker.flush()


def restart_broker(field: Field, size: float) -> None:
    """SIGKILL to the broker; back after up to 2 s."""
    field.broker.restart(2 * size)


def hang_broker(field: Field, size: float) -> None:
    """The broker answers nothing for up to 3 s."""
    field.broker.hang(3 * size)


def restart_database(field: Field, size: float) -> None:
    """A fast restart, or an immediate one, which is a crash; down for up to 2 s."""
    field.database.restart(immediate=size > 0.5, down_secs=2 * size)


def cut_connections(field: Field, size: float) -> None:
    """The database terminates every connection."""
    field.database.cut_connections()


def reset_connections(field: Field, size: float) -> None:
    """The network resets every connection to one of the servers."""
    (field.database_proxy if size > 0.5 else field.broker_proxy).reset()


def delay(field: Field, size: float) -> None:
    """For 3 s whatever goes to or comes from one of the servers is late, by up to 100 ms a piece."""
    proxy = field.database_proxy if size > 0.5 else field.broker_proxy
    proxy.delay_secs = 0.1
    time.sleep(3)
    proxy.delay_secs = 0.0


def stall(field: Field, size: float) -> None:
    """For up to 6 s nothing reaches one of the servers, and no connection is closed."""
    proxy = field.database_proxy if size > 0.5 else field.broker_proxy
    proxy.stalled = True
    time.sleep(6 * size)
    proxy.stalled = False


def swallow_acknowledgements(field: Field, size: float) -> None:
    """For 3 s a third of the commits succeed, and their connections are reset before anybody is told."""
    field.database_proxy.swallowed = 0.33
    time.sleep(3)
    field.database_proxy.swallowed = 0.0


_DEEDS: dict[str, Callable[[Field, float], None]] = {
    deed.__name__: deed
    for deed in (
        kill_child,
        kill_worker,
        kill_all_workers,
        pause_worker,
        kill_web_child,
        kill_web,
        pause_web,
        flush_broker,
        restart_broker,
        hang_broker,
        restart_database,
        cut_connections,
        reset_connections,
        delay,
        stall,
        swallow_acknowledgements,
    )
}
#: Those that hurt most are done most.
_WEIGHTS = {"kill_child": 4, "kill_worker": 3, "flush_broker": 3, "swallow_acknowledgements": 3, "cut_connections": 2}


def schedule(draw: random.Random, secs: float, pause_secs: float, only: Sequence[str] = ()) -> list[Fault]:
    """Faults for *secs* seconds, *pause_secs* apart on average; each kind by its weight before any comes again."""
    names = [name for name in (only or _DEEDS) for _ in range(_WEIGHTS.get(name, 1))]
    faults: list[Fault] = []
    bag: list[str] = []
    at = pause_secs
    while at < secs:
        if not bag:
            bag = draw.sample(names, len(names))
        faults.append(Fault(round(at, 2), bag.pop(), round(draw.random(), 3)))
        at += draw.uniform(0.3, 1.7) * pause_secs
    return faults


class Faults:
    """Does a schedule's faults at their times, each in a thread of its own."""

    def __init__(self, field: Field) -> None:
        self.done: Counter[str] = Counter()
        self.failed: list[str] = []
        self._field = field
        self._threads: list[threading.Thread] = []
        # Two restarts of one server at once are none.
        self._servers = threading.Lock()

    def play(self, faults: Sequence[Fault], began: float) -> None:
        """Do all of them; returns when the last has begun."""
        for fault in faults:
            while (left := began + fault.at - time.monotonic()) > 0:
                self._field.deployment.supervise()
                time.sleep(min(left, 0.5))
            thread = threading.Thread(target=self._do, args=(fault,), name=fault.name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def heal(self) -> None:
        """Return once everything is whole again, and every process runs."""
        for thread in self._threads:
            thread.join(60)
        for proxy in (self._field.database_proxy, self._field.broker_proxy):
            proxy.heal()
        for process in self._field.deployment.processes:
            process.signal(signal.SIGCONT)
        self._field.deployment.start()

    def _do(self, fault: Fault) -> None:
        deed = _DEEDS[fault.name]
        try:
            if fault.name in ("flush_broker", "restart_broker", "hang_broker", "restart_database", "cut_connections"):
                with self._servers:
                    deed(self._field, fault.size)
            else:
                deed(self._field, fault.size)
            self.done[fault.name] += 1
        except Exception as error:
            self.failed.append(f"{fault}: {error!r}")


def _pick(processes: Sequence[Process], size: float) -> Process:
    return processes[int(size * 1000) % len(processes)]


def _hit_child(process: Process, size: float, number: int) -> None:
    children = process.children()
    if children:
        with suppress(ProcessLookupError):
            os.kill(children[int(size * 1000) % len(children)], number)
