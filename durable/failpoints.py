"""
Named points between two effects, where a test makes a process fail.

Off unless ``DURABLE_FAILPOINTS`` or ``armed`` names them; then each costs one
look at a global.  Counts are per process, a forked child's begin at its
parent's.
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

#: Every point, and what lies on its two sides.
POINTS: Mapping[str, str] = {
    "commit.before": "a transaction has written everything → its commit",
    "commit.after": "a transaction is committed → whatever follows it",
    "start.committed": "a new run is committed → its first turn is sent",
    "turn.read": "a turn has read the run → it decides and commits",
    "turn.committed": "a turn is committed → what it asks for is sent",
    "step.claimed": "an attempt is claimed → the step's function runs",
    "step.finished": "the step's function has returned or raised → its outcome is recorded",
    "step.recorded": "an outcome is recorded → the next attempt is sent, or the run driven",
    "response.recorded": "an answer to a request is recorded → who holds the connection is told",
    "attributes.recorded": "a step's change of attributes is recorded → the run is driven",
    "hook.recorded": "a hook's payload is recorded → the run is driven",
    "request.recorded": "a webhook's request is recorded → the run is driven",
    "wait.recorded": "the end of a sleep is recorded → the run is driven",
    "wake_up.recorded": "the early end of sleeps is recorded → the run is driven",
    "cancel.recorded": "a cancel is recorded → the run is driven",
    "sweep.sent": "the sweep has sent a batch → it notes that",
    "sweep.given_up": "a dead process's attempt is given up → the next attempt or the run's turn is sent",
    "publish.sent": "the broker has a message → whatever follows it",
    "publish.drive": "a turn's message is handed to the broker",
    "publish.step": "an attempt's message is handed to the broker",
    "publish.wait": "the message of a sleep's end is handed to the broker",
}

#: What a point can do.
ACTIONS = ("crash", "raise", "pause", "lose", "repeat")
_COPIES = {"lose": 0, "repeat": 2}
_LOOK_SECS = 0.01


class Failed(Exception):
    """What the action ``raise`` raises."""


@dataclass
class Failpoint:
    """What one point does: at its *nth* hit, at each if that is None."""

    name: str
    action: str
    argument: str = ""
    nth: int | None = None
    hits: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def is_due(self) -> bool:
        """Count a hit; whether it is one to act at."""
        with self.lock:
            self.hits += 1
            return self.nth is None or self.hits == self.nth


_armed: dict[str, Failpoint] = {}
#: How many watch in this process; who watches whom is a matter of the context.
_watchers = 0
_counting = threading.Lock()
_watcher: ContextVar[Callable[[str], None] | None] = ContextVar("durable_failpoints_watcher", default=None)


def hit(name: str) -> None:
    """Do what has been asked for at this point; usually nothing."""
    if _armed or _watchers:
        _copies(name)


def copies(name: str) -> int:
    """How often the message of this point is to be sent: once, unless it is to be lost or repeated."""
    return _copies(name) if _armed or _watchers else 1


@contextmanager
def armed(text: str) -> Iterator[dict[str, Failpoint]]:
    """Within it these points act, instead of those armed before; they tell their hits."""
    global _armed
    before, _armed = _armed, parse(text)
    try:
        yield _armed
    finally:
        _armed = before


@contextmanager
def watched(watcher: Callable[[str], None]) -> Iterator[None]:
    """
    Within it *watcher* is called at each hit of each point, in the thread that comes by it.

    It is a matter of the context: threads of others, whatever they do in this process, are not watched.
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
    with _counting:
        _watchers += more


def arm_from_environment() -> None:
    """Arm what ``DURABLE_FAILPOINTS`` names, once per process; ConfigurationError when it names what is not there."""
    text = os.environ.get(VARIABLE, "")
    if text and not _armed:
        _armed.update(parse(text))


def parse(text: str) -> dict[str, Failpoint]:
    """``point=action[:argument][@nth]``, with commas between; ConfigurationError, with what there is, for another."""
    found = [_parse_one(entry.strip()) for entry in text.split(",") if entry.strip()]
    return {point.name: point for point in found}


def _parse_one(entry: str) -> Failpoint:
    name, _, asked = entry.partition("=")
    asked, _, nth = asked.partition("@")
    action, _, argument = asked.partition(":")
    if name not in POINTS:
        raise ConfigurationError(f"{VARIABLE}: no failpoint is called {name!r}.  There are: {', '.join(POINTS)}.")
    if action not in ACTIONS:
        raise ConfigurationError(f"{VARIABLE}: {entry!r} asks for {action!r}.  Actions are: {', '.join(ACTIONS)}.")
    if action in _COPIES and not _is_message(name):
        messages = ", ".join(filter(_is_message, POINTS))
        raise ConfigurationError(f"{VARIABLE}: {entry!r}: only a message can be lost or repeated: {messages}.")
    if nth and not (nth.isdecimal() and int(nth) > 0):
        raise ConfigurationError(f"{VARIABLE}: {entry!r}: after @ comes which hit acts, from 1 on, not {nth!r}.")
    if (action == "pause") != bool(argument):
        raise ConfigurationError(
            f"{VARIABLE}: {entry!r}: pause, and only pause, is told for how long: pause:0.5 (seconds) or"
            " pause:/path/of/a/file that ends it."
        )
    return Failpoint(name, action, argument, int(nth) if nth else None)


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
            time.sleep(_LOOK_SECS)
