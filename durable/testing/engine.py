"""The engine of an environment, with a given database and broker, and without notifications."""

from __future__ import annotations

from celery import Celery

from ..app import Durable
from ..broker import Broker, Notifier, PollingNotifier
from ..store import Store


class EnclosedEngine(Durable):
    """An engine that uses only the store and the broker that it is given."""

    def __init__(self, celery: Celery, store: Store, broker: Broker, **settings: object) -> None:
        self._given_store = store
        self._given_broker = broker
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

    def make_notifier(self) -> Notifier:
        """A notifier that sends nothing: all waiting is by polling."""
        return PollingNotifier()
