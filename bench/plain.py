"""What a team without durable would have: plain Celery tasks, shared by the worker's app and the client's."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

import redis
from celery import shared_task

from .rows import Rows

#: What their names begin with.
PREFIX = "bench."


@cache
def _redis() -> redis.Redis:
    return redis.Redis.from_url(os.environ["BENCH_SIDE_URL"])


@cache
def _rows() -> Rows:
    # Made in the child that runs the task, and held.
    return Rows(os.environ["BENCH_ROWS_URL"])


@shared_task(name=PREFIX + "nothing", ignore_result=True)  # type: ignore[untyped-decorator]
def nothing(number: int) -> dict[str, Any]:
    """A no-op that keeps nothing."""
    return {"number": number, "at": time.time()}


@shared_task(name=PREFIX + "row", ignore_result=True)  # type: ignore[untyped-decorator]
def row(series: str, number: int) -> None:
    """A no-op that commits a row with the time of its first line."""
    _rows().insert(series, number, time.time())


@shared_task(name=PREFIX + "rows", ignore_result=True)  # type: ignore[untyped-decorator]
def rows(series: str, count: int, inbox: str) -> None:
    """Insert that many rows, each with a commit of its own, and tell the caller how many seconds that took."""
    began = time.perf_counter()
    for number in range(count):
        _rows().insert(series, number, 0.0)
    _redis().rpush(inbox, repr(time.perf_counter() - began))


@shared_task(name=PREFIX + "tell", ignore_result=True)  # type: ignore[untyped-decorator]
def tell(inbox: str) -> None:
    """Push the time of this line to a Redis list, where the caller waits."""
    _redis().rpush(inbox, repr(time.time()))


@shared_task(name=PREFIX + "plain_limited", ignore_result=True, rate_limit="5/s")  # type: ignore[untyped-decorator]
def limited(inbox: str) -> None:
    """As ``tell``, five times a second in each worker."""
    _redis().rpush(inbox, repr(time.time()))


@shared_task(name=PREFIX + "nap", ignore_result=True)  # type: ignore[untyped-decorator]
def nap(secs: float, inbox: str) -> None:
    """Sleep, as a task does that waits for a server, and tell the caller."""
    time.sleep(secs)
    _redis().rpush(inbox, repr(time.time()))


@shared_task(name=PREFIX + "part")  # type: ignore[untyped-decorator]
def part(number: int) -> dict[str, Any]:
    """One task of a chord: its result is kept in the result backend."""
    return {"number": number, "at": time.time()}


@shared_task(name=PREFIX + "whole")  # type: ignore[untyped-decorator]
def whole(parts: list[dict[str, Any]]) -> int:
    """The chord's body."""
    return len(parts)
