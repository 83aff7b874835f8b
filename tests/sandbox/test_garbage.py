"""The garbage collector is off while any thread runs workflow code, and on again when none does."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from durable.sandbox.garbage import Pauses

WITHIN_SECS = 30


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    """The collector is on before each test, and after it."""
    assert gc.isenabled()
    yield
    gc.enable()


def test_it_is_on_again_after_the_last_of_nested_pauses():
    """A body may be closed while another one runs in the same thread."""
    pauses = Pauses()

    pauses.pause()
    pauses.pause()
    assert not gc.isenabled()
    pauses.resume()
    assert not gc.isenabled()
    pauses.resume()
    assert gc.isenabled()


def test_a_thread_that_ends_does_not_turn_it_on_for_another_one():
    """And the other one, which has found it off, turns it on at its end."""
    pauses = Pauses()
    seen = [gc.isenabled()]

    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:

        def then(thread: ThreadPoolExecutor, act: Callable[[], None]) -> None:
            thread.submit(act).result(WITHIN_SECS)
            seen.append(gc.isenabled())

        then(first, pauses.pause)
        then(second, pauses.pause)
        then(first, pauses.resume)
        then(second, pauses.resume)

    assert seen == [True, False, False, False, True]


def test_it_is_on_again_when_a_thread_was_stopped_within_a_pause():
    """What has watched the thread goes back to the pauses of before."""
    pauses = Pauses()
    before = pauses.depth
    pauses.pause()
    pauses.pause()

    pauses.set_depth(before)

    assert gc.isenabled()


def test_it_stays_off_where_the_application_has_turned_it_off():
    """durable puts back what it has found."""
    pauses = Pauses()
    gc.disable()

    pauses.pause()
    pauses.resume()

    assert not gc.isenabled()


def test_a_child_process_forgets_the_threads_that_it_does_not_have():
    """Its collector is on, although another thread of its parent was in a pause."""
    pauses, ending = Pauses(), threading.Event()
    begun = threading.Event()

    def work() -> None:
        pauses.pause()
        begun.set()
        ending.wait(WITHIN_SECS)
        pauses.resume()

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(WITHIN_SECS)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        pauses.forget_other_threads()
        os.write(writer, b"on" if gc.isenabled() else b"off")
        os._exit(0)
    os.waitpid(child, 0)
    ending.set()
    thread.join(WITHIN_SECS)

    assert os.read(reader, 10) == b"on"
    assert gc.isenabled()
    os.close(reader)
    os.close(writer)
