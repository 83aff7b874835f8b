"""
What a worker's main process knows of its consumer, by internals of Celery as in ``celery_internals.py``.

``celery.worker.state`` counts the tasks that children have begun and holds the requests that wait for a child; its
``should_stop`` ends the worker.  ``consumer.timer`` calls functions beside the consumer, in every pool.
``consumer.task_buckets`` has a bucket for each task with a rate limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import billiard


def call_repeatedly(consumer: Any, secs: float, act: Callable[[], object]) -> Callable[[], object]:
    """Call *act* every so many seconds while the worker runs.  Returns what ends that."""
    entry = consumer.timer.call_repeatedly(secs, act)
    cancel: Callable[[], object] = entry.cancel
    return cancel


def count_taken() -> int:
    """How many tasks this worker has begun."""
    from celery.worker import state

    return int(state.all_total_count[0])


def is_busy(consumer: Any) -> bool:
    """Whether the worker has messages in hand, or may hold some back because of a rate limit."""
    from celery.worker import state

    return bool(state.reserved_requests or state.active_requests or any(consumer.task_buckets.values()))


def child_pids() -> list[int]:
    """The process ids of a prefork worker's children; empty in other pools."""
    return [child.pid for child in billiard.active_children() if child.pid is not None]


def end_worker() -> None:
    """Have the worker end with status 1, once its running tasks have ended."""
    from celery.worker import state

    state.should_stop = 1
