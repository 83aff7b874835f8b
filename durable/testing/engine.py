"""The engine of an environment: a database and a broker that it is given, and nobody to send hints to."""

from __future__ import annotations

from celery import Celery

from ..app import Durable
from ..broker import Broker, Notifier, PollingNotifier
from ..store import Store


class EnclosedEngine(Durable):
    """An engine that reaches nothing but what it was given."""

    def __init__(self, celery: Celery, store: Store, broker: Broker, **settings: object) -> None:
        self._given_store = store
        self._given_broker = broker
        super().__init__(celery, **settings)

    def make_store(self) -> Store:
        """The one that was given."""
        return self._given_store

    def make_broker(self) -> Broker:
        """The one that was given."""
        return self._given_broker

    def make_notifier(self) -> Notifier:
        """No hints: whoever waits looks."""
        return PollingNotifier()
