"""Threads that publish share a pool: what one of them closes, another one is not using."""

from __future__ import annotations

import pytest
from celery import Celery

from durable.broker.producers import Producers


@pytest.fixture
def connection(broker):
    app = Celery("producers", broker=broker, set_as_current=False)
    yield app.connection_for_write()
    app.close()


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_a_connection_in_use_is_closed_when_its_user_is_done(connection):
    """One thread retires the pool after an error; the other one publishes to the end."""
    producers = Producers(connection)
    with producers.producer() as producer:
        used = producer.channel.connection.client
        producers.retire()
        assert used.connected
        producer.publish("", exchange="", routing_key="celery", retry=False)

    assert not used.connected


def test_connections_that_nobody_uses_are_closed_at_once(connection):
    """Also those that were used before."""
    producers = Producers(connection)
    with producers.producer() as producer:
        used = producer.channel.connection.client

    producers.retire()

    assert not used.connected
