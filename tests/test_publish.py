"""A broker that is down costs a request next to nothing."""

import socket
import time
from contextlib import closing

import pytest
from celery import Celery
from servers import BROKERS

from durable.publish import Publisher


@pytest.fixture
def refused():
    """A port at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def publisher(url):
    app = Celery("test", broker=url)
    return app, Publisher(app)


@pytest.mark.parametrize("scheme", ["redis://127.0.0.1:{}/0", "amqp://guest:guest@127.0.0.1:{}//"])
def test_a_broker_that_refuses_is_told_within_a_second(refused, scheme):
    """Nothing is raised; a second publish right after is not even tried."""
    app, sender = publisher(scheme.format(refused))
    message = app.signature("a.b", immutable=True)
    began = time.monotonic()

    assert not sender.send(message)
    assert time.monotonic() - began < 1

    began = time.monotonic()
    assert not sender.send(message)
    assert time.monotonic() - began < 0.01


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
def test_what_is_sent_stands_in_the_queue(broker):
    """A message that was taken can be read back, with its task's name."""
    app, sender = publisher(broker)

    assert sender.send(app.signature("a.b", immutable=True))

    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(app.conf.task_default_queue)
        message = queue.get(timeout=5)
        assert message.headers["task"] == "a.b"
        message.ack()
        queue.close()
    sender.close()


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_only_a_queue_that_does_not_exist_counts_as_empty_without_an_answer(broker):
    """A broker that refuses to say how long a queue is has not said that it is empty."""
    app, sender = publisher(broker)
    with closing(sender), app.connection_for_write() as connection, connection.channel() as channel:
        channel.queue_declare("of-somebody-else", exclusive=True, auto_delete=False)

        assert sender.length("of-somebody-else") is None
        assert sender.length("not-there") == 0
        assert sender.keep("there")
        assert sender.length("there") == 1
