"""Waiting for what another thread or process does: ``eventually(lambda: run.status == "completed")``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")


def eventually(predicate: Callable[[], T], within_secs: float = 20.0, what: str = "") -> T:
    """What *predicate* returns once that is true; the test fails if it is not in time."""
    deadline = time.monotonic() + within_secs
    pause = threading.Event()
    while True:
        found = predicate()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"Not so within {within_secs:g} s: {what or predicate!r}; last seen: {found!r}")
        pause.wait(0.01)
