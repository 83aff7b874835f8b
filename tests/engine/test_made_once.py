"""The parts of an engine: threads that ask at the same time get the same one, and a child makes its own."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from celery import Celery
from forking import in_child

from durable import Durable
from durable.broker import Notifier, PollingNotifier
from durable.engine import Completions
from durable.engine.later import Later


class SlowEngine(Durable):
    """An engine whose parts are made slowly: the first one when ``go_on`` is set."""

    def __init__(self, folder: Path) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.is_slow = True
        self.made: list[str] = []
        super().__init__(
            Celery(f"made-{secrets.token_hex(4)}", broker="memory://"), database_url=f"sqlite:///{folder}/once.db"
        )

    def make_slowly(self, name: str) -> None:
        """Wait, in the first thread that makes something."""
        self.made.append(name)
        if self.is_slow:
            self.begun.set()
            assert self.go_on.wait(20)

    def make_notifier(self) -> Notifier:
        """Make one slowly."""
        self.make_slowly("notifier")
        return PollingNotifier()

    def make_completions(self) -> Completions:
        """Make them slowly, with the notifier, which is a part too."""
        self.make_slowly("completions")
        return super().make_completions()


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[SlowEngine]:
    made = SlowEngine(tmp_path)
    yield made
    made.go_on.set()
    made.close()


def asked_by_two(slow: SlowEngine, ask: Callable[[], object]) -> list[object]:
    """What two threads get: the second asks while the first one's part is being made."""
    asking = threading.Event()

    def ask_too() -> object:
        asking.set()
        return ask()

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask)
        assert slow.begun.wait(20)
        second = threads.submit(ask_too)
        assert asking.wait(20)
        slow.go_on.set()
        return [first.result(20), second.result(20)]


def test_two_threads_that_ask_for_the_notifier_get_the_same_one(slow):
    """Two would take messages from the same inbox, and each message would reach only one of them."""
    first, second = asked_by_two(slow, lambda: slow.notifier)

    assert first is second is slow.notifier
    assert slow.made == ["notifier"]


def test_a_part_that_needs_another_one_makes_it(slow):
    """The completions make the notifier while they are made; both are made once."""
    first, second = asked_by_two(slow, lambda: slow.completions)

    assert first is second
    assert slow.completions.notifier is slow.notifier
    assert slow.made == ["completions", "notifier"]


def test_two_threads_that_ask_for_another_part_get_the_same_one(slow, monkeypatch):
    """The part closes with the engine, so a second one would never be closed."""

    class SlowLater(Later):
        def __init__(self) -> None:
            slow.make_slowly("later")
            super().__init__()

    monkeypatch.setattr("durable.engine.parts.Later", SlowLater)
    first, second = asked_by_two(slow, lambda: slow.later)

    assert first is second is slow.later
    assert slow.made == ["later"]


def test_a_child_of_a_process_that_makes_a_part_makes_its_own(slow):
    """The lock that another thread held at the fork is a new one in the child."""

    def check() -> bool:
        slow.is_slow = False
        return slow.notifier is slow.notifier and slow.made == ["notifier", "notifier"]

    with ThreadPoolExecutor(1) as threads:
        parents = threads.submit(lambda: slow.notifier)
        assert slow.begun.wait(20)
        assert in_child(check)
        slow.go_on.set()
        assert parents.result(20) is slow.notifier


def test_a_child_has_a_notifier_of_its_own(slow):
    """So it has after the parent has made one, and the parent keeps its own."""
    slow.is_slow = False
    before = slow.notifier

    assert in_child(lambda: slow.notifier is not before)
    assert slow.notifier is before


def test_what_could_not_be_made_is_made_at_the_next_use(slow, monkeypatch):
    """An error while a part is made leaves nothing behind, and no lock held."""
    slow.is_slow = False
    with monkeypatch.context() as patched:
        patched.setattr("durable.engine.parts.Later", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            slow.later  # noqa: B018

    with ThreadPoolExecutor(1) as threads:
        assert isinstance(threads.submit(lambda: slow.later).result(20), Later)


def test_a_part_that_is_read_while_it_is_made_is_made_once_for_all(slow, monkeypatch):
    """By code that runs in the same thread meanwhile, a module that is imported for example: both have the same one."""
    slow.is_slow = False
    inner: list[Later] = []

    class Nested(Later):
        def __init__(self) -> None:
            super().__init__()
            if not slow.made:
                slow.make_slowly("later")
                inner.append(slow.later)

    monkeypatch.setattr("durable.engine.parts.Later", Nested)

    assert slow.later is slow.later is inner[0]
