"""
Measures: what a process counts of its own work, in memory, until it adds it to the totals in the database.

To count takes a dict increment under a lock and no I/O.  The labels are names of workflows and steps that the
application has registered, and a few fixed words, so the number of entries stays bounded.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from . import forks

#: A counter by its instrument's name, the value of its first label, and that of its second.  A histogram has an entry
#: for each bucket that is not empty, by its upper bound, and one for the sum.
Key = tuple[str, str, str]

#: The upper bounds of every histogram's buckets, in seconds.
BOUNDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    1800.0,
    7200.0,
)
#: The second part of a histogram's keys: the bounds as text, the bucket for what is above them, and the sum.
INFINITE = "+Inf"
SUM = "sum"
_BOUNDS_MICROS = tuple(int(bound * 1_000_000) for bound in BOUNDS)
_DETAILS = (*map(repr, BOUNDS), INFINITE, SUM)


@dataclass(frozen=True, slots=True)
class Counter:
    """A number that only grows.  It has at most two labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long something took, in buckets.  It has at most one label."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


RUNS_STARTED = Counter("durable_runs_started", "Runs that took their first turn.", ("workflow",))
RUNS_COMPLETED = Counter("durable_runs_completed", "Runs that returned a result.", ("workflow",))
RUNS_FAILED = Counter("durable_runs_failed", "Runs that raised an exception.", ("workflow",))
RUNS_CANCELLED = Counter("durable_runs_cancelled", "Runs that were cancelled.", ("workflow",))
RUNS_CONTINUED = Counter("durable_runs_continued", "Runs that continued as new.", ("workflow",))
RUNS_BLOCKED = Counter("durable_runs_blocked", "How often a run became blocked.", ("workflow",))
TURN_SECONDS = Histogram("durable_turn_duration_seconds", "Duration of turns, with their commit.", ("workflow",))
TURNS_OVERTAKEN = Counter("durable_turns_overtaken", "Turns that started again: another one was committed first.")

ATTEMPTS = Counter("durable_step_attempts", "Attempts of steps that ended.", ("step", "outcome"))
ATTEMPTS_GIVEN_UP = Counter(
    "durable_step_attempts_given_up",
    "Attempts that durable gave up: the process was lost, or the attempt took longer than its timeout.",
    ("step", "reason"),
)
ATTEMPT_SECONDS = Histogram("durable_step_attempt_duration_seconds", "Duration of attempts.", ("step",))
START_DELAY_SECONDS = Histogram(
    "durable_step_schedule_to_start_seconds",
    "How long attempts waited for a worker, from when they could start.",
    ("step",),
)

TIMER_LATE_SECONDS = Histogram("durable_timer_lateness_seconds", "How late sleeps and timeouts ended.")

REQUESTS = Counter("durable_webhook_requests", "Requests to webhooks, by the status of the answer.", ("status",))
POLLS = Counter("durable_webhook_polls", "Polls for the answer to a request, by the status of the answer.", ("status",))
NOT_VERIFIED = Counter(
    "durable_webhook_verification_failures", "Requests whose signature was missing or wrong.", ("sender",)
)
DUPLICATES = Counter("durable_webhook_duplicates", "Copies of requests that webhooks had received before.")
HOLD_SECONDS = Histogram("durable_webhook_hold_seconds", "How long connections were held for an answer.", ("outcome",))

MESSAGES_SENT = Counter("durable_messages_sent", "Messages that the broker took.", ("kind",))
MESSAGES_RESENT = Counter(
    "durable_messages_resent", "Messages that were sent again because the first one was lost.", ("kind",)
)
MESSAGES_LOST = Counter(
    "durable_messages_lost", "Messages that were found lost: nothing took them, or the broker lost its data.", ("kind",)
)
MESSAGES_FORWARDED = Counter(
    "durable_messages_forwarded", "Messages that a worker sent on because it does not know their name.", ("kind",)
)

STREAM_ITEMS = Counter("durable_stream_items", "Items that runs have emitted to streams.", ("source",))
STREAM_BYTES = Counter("durable_stream_bytes", "Bytes of these items, as JSON.", ("source",))

#: Every instrument, in the order of the documentation.
INSTRUMENTS: tuple[Counter | Histogram, ...] = (
    RUNS_STARTED,
    RUNS_COMPLETED,
    RUNS_FAILED,
    RUNS_CANCELLED,
    RUNS_CONTINUED,
    RUNS_BLOCKED,
    TURN_SECONDS,
    TURNS_OVERTAKEN,
    ATTEMPTS,
    ATTEMPTS_GIVEN_UP,
    ATTEMPT_SECONDS,
    START_DELAY_SECONDS,
    TIMER_LATE_SECONDS,
    REQUESTS,
    POLLS,
    NOT_VERIFIED,
    DUPLICATES,
    HOLD_SECONDS,
    MESSAGES_SENT,
    MESSAGES_RESENT,
    MESSAGES_LOST,
    MESSAGES_FORWARDED,
    STREAM_ITEMS,
    STREAM_BYTES,
)


class Measures:
    """What one process has counted and not yet added to the totals.  A child process begins with nothing."""

    def __init__(self) -> None:
        self._begin()
        forks.call_in_child(self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._deltas: dict[Key, int] = {}
        #: By a histogram's name and its label: how many are in each bucket, and the sum.
        self._buckets: dict[tuple[str, str], list[int]] = {}

    def count(self, counter: Counter, label: str = "", detail: str = "", by: int = 1) -> None:
        """Add to a counter."""
        key = (counter.name, label, detail)
        with self._lock:
            self._deltas[key] = self._deltas.get(key, 0) + by

    def observe(self, histogram: Histogram, micros: int, label: str = "") -> None:
        """Record a duration in microseconds; a negative one, which clocks that differ can give, counts as 0."""
        micros = max(0, micros)
        bucket, key = bisect_left(_BOUNDS_MICROS, micros), (histogram.name, label)
        with self._lock:
            buckets = self._buckets.get(key)
            if buckets is None:
                buckets = self._buckets[key] = [0] * len(_DETAILS)
            buckets[bucket] += 1
            buckets[-1] += micros

    def take(self) -> Mapping[Key, int]:
        """Return what was counted since the last call, and begin anew."""
        with self._lock:
            taken, self._deltas = self._deltas, {}
            buckets, self._buckets = self._buckets, {}
        for (name, label), counts in buckets.items():
            for detail, amount in zip(_DETAILS, counts, strict=True):
                if amount or detail == SUM:
                    taken[name, label, detail] = taken.get((name, label, detail), 0) + amount
        return taken

    def put_back(self, taken: Mapping[Key, int]) -> None:
        """Count again what could not be added to the totals."""
        with self._lock:
            for key, amount in taken.items():
                self._deltas[key] = self._deltas.get(key, 0) + amount
