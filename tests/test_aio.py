"""The loop in which the coroutines of steps run: outcomes, cancelling, and what interrupts whoever waits."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextvars import ContextVar
from typing import Any

import pytest

from durable import aio

who: ContextVar[str] = ContextVar("who")


def test_a_result_and_an_exception_come_back():
    """As they are, from a loop in another thread."""

    async def tells() -> tuple[str, int]:
        return who.get(), threading.get_ident()

    async def raises() -> None:
        raise ValueError("here")

    who.set("the caller")
    said, thread = aio.Running(tells()).result()
    assert (said, thread == threading.get_ident()) == ("the caller", False)
    with pytest.raises(ValueError, match="here"):
        aio.Running(raises()).result()


def test_an_exit_ends_the_coroutine_and_not_the_loop():
    """`sys.exit()` reaches whoever waits, and the next coroutine runs as if nothing had been."""

    async def leaves() -> None:
        raise SystemExit(3)

    async def one() -> int:
        return 1

    with pytest.raises(SystemExit) as left:
        aio.Running(leaves()).result()
    assert left.value.code == 3
    assert aio.Running(one()).result() == 1


def test_what_is_cancelled_may_clean_up_first():
    """Whoever waits hears of it when the cleanup is over."""
    told: list[str] = []

    async def tidies(begun: threading.Event) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            told.append("tidied up")

    begun = threading.Event()
    running = aio.Running(tidies(begun))
    assert begun.wait(10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        running.result()

    assert told == ["tidied up"]


def test_what_is_cancelled_at_once_never_begins():
    """The body runs no line, and the end is a CancelledError all the same."""
    told: list[str] = []
    occupied = threading.Event()

    async def occupies() -> None:
        occupied.wait(10)

    async def begins() -> None:
        told.append("begun")

    first = aio.Running(occupies())
    running = aio.Running(begins())
    running.cancel()
    occupied.set()
    with pytest.raises(asyncio.CancelledError):
        running.result()
    first.result()

    assert told == []


def test_cancelling_what_has_ended_changes_nothing():
    """Its result stays."""

    async def one() -> int:
        return 1

    running = aio.Running(one())
    assert running.result() == 1
    running.cancel()
    assert running.result() == 1


def test_what_interrupts_the_wait_ends_the_coroutine():
    """A soft time limit is raised in the waiting thread: the coroutine does not go on beside the next attempt."""
    ended = threading.Event()

    class SoftLimit(Exception):
        pass

    async def goes_on() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    def limit(*_: Any) -> None:
        raise SoftLimit

    before = signal.signal(signal.SIGALRM, limit)
    try:
        with pytest.raises(SoftLimit):
            aio.Running(goes_on()).result()
    finally:
        signal.signal(signal.SIGALRM, before)

    assert ended.wait(10)
