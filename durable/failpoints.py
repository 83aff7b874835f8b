"""
Failpoints: named points between two effects, at which a test makes a process crash, fail or pause.  ::

    DURABLE_FAILPOINTS=turn.committed=crash@2 celery -A app worker

They do nothing unless ``DURABLE_FAILPOINTS`` or ``armed`` names them; then each costs one check of a global.  Each
process counts hits by itself; a forked child begins with the counts of its parent.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from .errors import ConfigurationError

VARIABLE = "DURABLE_FAILPOINTS"

#: Every point: what has happened before it → what happens after it.
POINTS: Mapping[str, str] = {
    "commit.before": "a transaction has written everything → its commit",
    "commit.after": "a transaction is committed → what follows",
    "start.committed": "a new run is committed → its first turn is sent, or its first steps are",
    "fork.committed": "a fork is committed → its first turn is sent",
    "schedule.fired": "runs of schedules are committed → their first turns are sent",
    "turn.read": "a turn has read the run → it decides and commits",
    "turn.committed": "a turn is committed → its messages are sent",
    "lease.taken": "a drive has taken the lease of a run's turns → its turn is decided",
    "lease.released": "a drive has released the lease → it reads the inbox again",
    "step.claimed": "an attempt is claimed → the step's function runs",
    "step.finished": "the step's function has returned or raised → its outcome is recorded",
    "step.recorded": "an outcome is recorded → the next attempt is sent, or the run driven",
    "response.recorded": "an answer to a request is recorded → the process that holds the connection is notified",
    "attributes.recorded": "a step's change of attributes is recorded → the run is driven",
    "hook.recorded": "a hook's payload is recorded → the run is driven",
    "request.recorded": "a webhook's request is recorded → the run is driven",
    "wait.recorded": "the end of a sleep is recorded → the run is driven",
    "wake_up.recorded": "the early end of sleeps is recorded → the run is driven",
    "cancel.recorded": "a cancel is recorded → the run is driven",
    "pause.recorded": "a pause or a resume is recorded → what follows from it",
    "sweep.sent": "the sweep has sent a batch → it records that",
    "sweep.given_up": "an attempt is given up → the next attempt or the run's turn is sent",
    "publish.sent": "the broker has a message → what follows",
    "publish.drive": "a turn's message is handed to the broker",
    "publish.step": "an attempt's message is handed to the broker",
    "publish.wait": "the message of a sleep's end is handed to the broker",
}

#: The actions of a point.
ACTIONS = ("crash", "raise", "pause", "lose", "repeat")
_COPIES = {"lose": 0, "repeat": 2}
_POLL_SECS = 0.01


class Failed(Exception):
    """Raised by the action ``raise``."""


@dataclass
class Failpoint:
    """The action of one point, at its *nth* hit, or at every hit if that is None."""

    name: str
    action: str
    argument: str = ""
    nth: int | None = None
    hits: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def is_due(self) -> bool:
        """Count a hit; True when the action is to be done at this one."""
        with self.lock:
            self.hits += 1
            return self.nth is None or self.hits == self.nth


_armed: dict[str, Failpoint] = {}
#: How many watchers are active in this process; which one applies depends on the context.
_watchers = 0
_watchers_lock = threading.Lock()
_watcher: ContextVar[Callable[[str], None] | None] = ContextVar("durable_failpoints_watcher", default=None)


def hit(name: str) -> None:
    """Do the action of this point; usually there is none."""
    if _armed or _watchers:
        _copies(name)


def copies(name: str) -> int:
    """How often to send the message of this point: once, unless the action is ``lose`` or ``repeat``."""
    return _copies(name) if _armed or _watchers else 1


@contextmanager
def armed(text: str) -> Iterator[dict[str, Failpoint]]:
    """Arm these points, and no others, within the block; yields them, so that a test can read their hits."""
    global _armed
    before, _armed = _armed, parse(text)
    try:
        yield _armed
    finally:
        _armed = before


@contextmanager
def watched(watcher: Callable[[str], None]) -> Iterator[None]:
    """
    Call *watcher* at each hit of each point within the block, in the thread that hits it.

    The watcher is a context variable: threads with another context do not call it.
    """
    token = _watcher.set(watcher)
    _count(1)
    try:
        yield
    finally:
        _count(-1)
        _watcher.reset(token)


def _count(more: int) -> None:
    global _watchers
    with _watchers_lock:
        _watchers += more


def arm_from_environment() -> None:
    """Arm the points in ``DURABLE_FAILPOINTS``, once for each process; ConfigurationError when one does not exist."""
    text = os.environ.get(VARIABLE, "")
    if text and not _armed:
        _armed.update(parse(text))


def parse(text: str) -> dict[str, Failpoint]:
    """Parse ``point=action[:argument][@nth]``, separated by commas; ConfigurationError for anything else."""
    found = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        name, _, rest = entry.partition("=")
        rest, _, nth = rest.partition("@")
        action, _, argument = rest.partition(":")
        wrong = f"{VARIABLE}: {entry!r}:"
        if name not in POINTS:
            raise ConfigurationError(f"{VARIABLE}: there is no failpoint {name!r}.  There are: {', '.join(POINTS)}.")
        if action not in ACTIONS:
            raise ConfigurationError(f"{wrong} there is no action {action!r}.  Actions are: {', '.join(ACTIONS)}.")
        if action in _COPIES and not _is_message(name):
            messages = ", ".join(filter(_is_message, POINTS))
            raise ConfigurationError(f"{wrong} only a message can be lost or repeated: {messages}.")
        if nth and not (nth.isdecimal() and int(nth) > 0):
            raise ConfigurationError(f"{wrong} after @ write the number of the hit, from 1 on, not {nth!r}.")
        if (action == "pause") != bool(argument):
            raise ConfigurationError(
                f"{wrong} pause, and no other action, has an argument: pause:0.5 (seconds) or"
                " pause:/path/of/a/file that ends the pause."
            )
        found[name] = Failpoint(name, action, argument, int(nth) if nth else None)
    return found


def _is_message(name: str) -> bool:
    return name.startswith("publish.") and name != "publish.sent"


def _copies(name: str) -> int:
    watcher = _watcher.get()
    if watcher is not None:
        watcher(name)
    point = _armed.get(name)
    if point is None or not point.is_due():
        return 1
    print(f"durable: failpoint {name}, hit {point.hits}: {point.action}", file=sys.stderr, flush=True)
    if point.action == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if point.action == "raise":
        raise Failed(f"failpoint {name}, hit {point.hits}")
    if point.action == "pause":
        _pause(point.argument)
    return _COPIES.get(point.action, 1)


def _pause(argument: str) -> None:
    try:
        time.sleep(float(argument))
    except ValueError:
        while not Path(argument).exists():
            time.sleep(_POLL_SECS)
