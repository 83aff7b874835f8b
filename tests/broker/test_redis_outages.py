"""
Workers over Redis survive an outage: each fault of kombu has a test, and a canary.

A canary (``test_kombu_…``) shows the fault in kombu's own classes.  When it fails with a new version of kombu, that
fault is mended: drop the part of broker/redis_outages.py that is there for it, and the canary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.worker import state
from kombu import Consumer, Queue
from redis import exceptions
from servers import OwnRedis

from durable.broker import redis_outages


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnRedis]:
    with OwnRedis(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as made:
        yield made


@pytest.fixture(autouse=True)
def no_leftovers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_outages, "_leftovers", redis_outages._Leftovers())


def app_of(server: OwnRedis, *, survives: bool) -> Celery:
    options = {"socket_timeout": 5, "unacked_restore_throttle": 1}
    app = Celery("outages", broker=server.url, set_as_current=False)
    app.conf.broker_transport_options = options
    if survives:
        redis_outages.survive(app)
    return app


@contextmanager
def consuming(app: Celery, *, waits: bool = True) -> Iterator[SimpleNamespace]:
    """
    A connection as a worker has one: it has taken a message, and waits for the next one.

    Args:
        waits: Whether BRPOP has been sent for the next one.
    """
    taken: list[Any] = []
    connection = app.connection_for_read()
    consumer = app.amqp.TaskConsumer(connection, accept=["json"], on_message=taken.append)
    consumer.consume()
    # A worker's second channel is for remote control.
    node = app.control.mailbox.Node("worker")
    node.channel = connection.channel()
    node.listen(callback=None)
    app.send_task("any")
    while not taken:
        connection.drain_events(timeout=5)
    if waits:
        with suppress(OSError):
            connection.drain_events(timeout=0.01)
    yield SimpleNamespace(connection=connection, channel=connection.default_channel, message=taken[0])
    with suppress(Exception):
        connection.close()


def wait_for_more(app: Celery) -> None:
    """Do what a worker does after it has reconnected, with a queue in which there is no message."""
    with app.connection_for_read() as connection:
        Consumer(connection, [Queue("another")]).consume()
        with suppress(OSError):
            connection.drain_events(timeout=0.01)


def close_as_celery_does(connection: Any) -> None:
    """Celery ignores what the first one raises, and of the second one what a broken connection may raise."""
    with suppress(Exception):
        connection.collect(socket_timeout=0.1)
    with suppress(*connection.connection_errors, *connection.channel_errors):
        connection.close()


def waiting(server: OwnRedis) -> int:
    return int(server.client.llen("celery"))


# A connection that breaks.


def test_kombu_raises_when_a_channel_is_closed_after_its_server_has_gone(server):
    """The canary of the first fault, with the error that ends a worker."""
    with consuming(app_of(server, survives=False)) as worker:
        server.kill()
        with pytest.raises(AttributeError, match="hostname"):
            close_as_celery_does(worker.connection)


def test_a_channel_is_closed_without_its_server(server):
    """Nothing is raised, and nothing is left to do when the process ends."""
    with consuming(app_of(server, survives=True)) as worker:
        server.kill()
        qos = worker.channel.qos

        close_as_celery_does(worker.connection)

        assert worker.channel.closed
        assert not qos._on_collect.still_active()
        assert not qos._delivered


def test_a_message_that_was_not_run_is_back_in_its_queue_after_the_outage(server):
    """The next connection puts it there, and not the visibility timeout."""
    app = app_of(server, survives=True)
    with consuming(app) as worker:
        server.kill()
        close_as_celery_does(worker.connection)
    server.start()
    assert (waiting(server), server.client.hlen("unacked")) == (0, 1)

    wait_for_more(app)

    assert (waiting(server), server.client.hlen("unacked")) == (1, 0)


def test_kombu_cannot_acknowledge_on_a_closed_channel(server):
    """The canary of the second fault."""
    with consuming(app_of(server, survives=False), waits=False) as worker:
        worker.channel.qos._delivered.clear()
        worker.connection.close()
        with pytest.raises(AttributeError):
            worker.message.ack()


@pytest.mark.parametrize("when", ["after the outage", "in the outage"])
def test_a_task_that_runs_through_an_outage_is_acknowledged_and_not_repeated(server, when):
    """Its message is not put back; once there is a connection again, it is acknowledged."""
    app = app_of(server, survives=True)
    running = type("Request", (), {"message": None})()
    with consuming(app) as worker:
        running.message = worker.message
        state.active_requests.add(running)
        server.kill()
        if when == "in the outage":
            worker.message.ack()
        close_as_celery_does(worker.connection)
        server.start()
        wait_for_more(app)
        if when == "after the outage":
            assert (waiting(server), server.client.hlen("unacked")) == (0, 1)
            worker.message.ack()
            wait_for_more(app)

    assert (waiting(server), server.client.hlen("unacked")) == (0, 0)


def test_what_a_closed_channel_rejects_is_put_back(server):
    """As of a task whose process died during the outage."""
    app = app_of(server, survives=True)
    with consuming(app) as worker:
        server.kill()
        close_as_celery_does(worker.connection)
        server.start()
        worker.message.reject(requeue=True)

    wait_for_more(app)
    assert waiting(server) == 1


# A server that is full, or has become a replica.


def fill(server: OwnRedis) -> None:
    """Have the server refuse each command that needs memory."""
    server.client.config_set("maxmemory", 1)


def test_kombu_loses_a_message_that_it_takes_from_a_full_server(server):
    """The canary of the third fault: the queue has it no more, and Celery does not run it."""
    app = app_of(server, survives=False)
    app.send_task("any")
    with app.connection_for_read() as connection:
        taken: list[Any] = []
        app.amqp.TaskConsumer(connection, accept=["json"], on_message=taken.append).consume()
        fill(server)
        with pytest.raises(exceptions.OutOfMemoryError):
            connection.drain_events(timeout=5)

    assert not issubclass(exceptions.OutOfMemoryError, connection.connection_errors)
    assert (waiting(server), taken) == (0, [])


def test_a_message_of_a_full_server_is_taken_and_acknowledged(server, caplog):
    """A log line says what it means; what is done meanwhile raises nothing."""
    app = app_of(server, survives=True)
    app.send_task("any")
    with app.connection_for_read() as connection:
        taken: list[Any] = []
        app.amqp.TaskConsumer(connection, accept=["json"], on_message=taken.append).consume()
        fill(server)
        while not taken:
            connection.drain_events(timeout=5)
        connection.default_channel.qos.restore_visible()
        taken[0].ack()
        server.client.config_set("maxmemory", 0)

    assert "Redis is out of memory" in caplog.text
    assert (waiting(server), server.client.hlen("unacked")) == (0, 0)


def test_a_server_that_has_become_a_replica_is_a_broken_connection(server):
    """Celery reconnects then, and Sentinel or the address leads to the new master."""
    connection = app_of(server, survives=True).connection_for_read()
    server.client.replicaof("127.0.0.1", 1)
    with pytest.raises(exceptions.ReadOnlyError):
        connection.default_channel.client.lpush("celery", "x")

    assert issubclass(exceptions.ReadOnlyError, connection.connection_errors)
    connection.release()
