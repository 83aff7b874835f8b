"""The engine of an environment, with a given database and broker, and without notifications."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from celery import Celery

from ..app import Durable
from ..broker import Broker, Notifier, PollingNotifier
from ..engine import Completion, Completions, FirstTurns, StreamWriter
from ..store import Store


class WorkingCompletions(Completions):
    """Does the work of the environment before a thread waits for a run: there is no worker that does it meanwhile."""

    def __init__(self, notifier: Notifier, holder: str, work: Callable[[], object]) -> None:
        super().__init__(notifier, holder)
        self._work = work

    @contextmanager
    def expected(self, run_id: str, *, is_addressed: bool = False) -> Iterator[Completion]:
        """Wait for a run, once all is done that can be done now."""
        self._work()
        with super().expected(run_id, is_addressed=is_addressed) as completion:
            yield completion


class EnclosedEngine(Durable):
    """An engine that uses only the store and the broker that it is given."""

    def __init__(
        self, celery: Celery, store: Store, broker: Broker, work: Callable[[], object], **settings: object
    ) -> None:
        self._given_store = store
        self._given_broker = broker
        self._work = work
        super().__init__(celery, **settings)

    def make_store(self) -> Store:
        """Return the given one."""
        return self._given_store

    def make_broker(self) -> Broker:
        """Return the given one."""
        return self._given_broker

    def flush_measures(self) -> None:
        """Forget what was measured: nothing reads it."""
        self.measures.take()
        self.webhook_counts.take()

    def make_completions(self) -> Completions:
        """Let a thread that waits for a run do the work."""
        return WorkingCompletions(self.notifier, self.process_id, self._work)

    def make_stream_writer(self) -> StreamWriter:
        """Without a thread: items are written at the end of the attempt, and where a buffer is full."""
        return StreamWriter(self.store, self.measures, lambda key: None, interval_secs=None)

    def make_first_turns(self) -> FirstTurns:
        """Each by itself, at once."""
        return FirstTurns(self.dispatch.send_first_turns, lambda: self.later, holds=lambda: False)

    def make_notifier(self) -> Notifier:
        """A notifier that sends nothing: all waiting is by polling."""
        return PollingNotifier()
