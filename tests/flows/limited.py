"""An engine on a real database whose messages a test takes one by one: for steps that wait for limits."""

from __future__ import annotations

from collections import Counter
from typing import Any

import sqlalchemy as sa
from celery import Celery
from servers import migrate

from durable import Durable, Run, registry
from durable.attempts.attempt import attempt
from durable.attempts.claim import Address
from durable.broker import Broker, Notifier, PollingNotifier
from durable.store import limits, schema
from durable.testing.clock import Clock
from durable.testing.memory_broker import MemoryBroker
from durable.turns.drive import drive


class InMemory(Durable):
    """An engine whose messages stay in this process."""

    def __init__(self, celery: Celery, broker: MemoryBroker, **settings: object) -> None:
        self._given_broker = broker
        super().__init__(celery, **settings)

    def make_broker(self) -> Broker:
        return self._given_broker

    def make_notifier(self) -> Notifier:
        return PollingNotifier()


class Process:
    """An engine on a real database whose messages a test takes one by one, as a worker would."""

    def __init__(self, database: str) -> None:
        self.clock = Clock(0)
        self.broker = MemoryBroker(self.clock)
        # The database's clock runs, and the broker's stands still: a message that waits for its time stays there.
        celery = Celery("limits", broker="memory://", set_as_current=False)
        self.engine = InMemory(celery, database_url=database, continuation=0, broker=self.broker)
        migrate(self.engine)
        self._empty_tables()

    def start(self, workflow: registry.Workflow[..., Any], *args: Any) -> Run[Any]:
        run = self.engine.start(workflow, *args)
        self.turns()
        return run

    def turns(self) -> None:
        """Take all turns; the steps' messages stay."""
        while turns := [each for each in self.broker._messages if each.task == "durable.drive"]:
            self.broker._messages.remove(turns[0])
            drive(self.engine, turns[0].run_id)

    @property
    def sent(self) -> list[Any]:
        """The messages of steps."""
        return [each for each in self.broker._messages if each.task != "durable.drive"]

    def run_next(self) -> None:
        """Run the oldest message of a step, and the turn that follows."""
        message = self.sent[0]
        self.broker._messages.remove(message)
        address = Address(message.run_id, message.op_id, message.attempt)
        attempt(self.engine, registry.steps[message.task], address, None)
        drive(self.engine, message.run_id)

    def rows(self, table: sa.Table) -> list[Any]:
        with self.engine.store.read() as tx:
            return list(tx.execute(sa.select(table)).mappings())

    def in_use(self) -> Counter[str]:
        """The slots that rows of steps take, by key."""
        with self.engine.store.begin() as tx:
            keys = {limits.LimitKey(row["name"], row["key"]) for row in self.rows(schema.step_limits)}
            return Counter({key.key: limits.count_in_use(tx, key) for key in keys})

    def close(self) -> None:
        """Close the engine, and leave nothing to other tests."""
        self._empty_tables()
        self.engine.close()

    def _empty_tables(self) -> None:
        """The databases of servers are those of other tests too: a sweep here would send what they have left."""
        with self.engine.store.begin() as tx:
            keys = (schema.step_limits, schema.limit_keys, schema.run_limits, schema.run_limit_keys, schema.limits)
            for table in (*keys, schema.steps, schema.inbox, schema.runs):
                tx.execute(sa.delete(table))
