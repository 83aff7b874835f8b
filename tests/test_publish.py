"""A broker that is down costs a request next to nothing."""

import socket
import time
from contextlib import closing

import pytest
from celery import Celery
from redis.connection import AbstractConnection
from servers import BROKERS

from durable.publish import Outgoing, Publisher


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
    message = Outgoing(app.signature("a.b", immutable=True))
    began = time.monotonic()

    assert not sender.send([message])
    assert time.monotonic() - began < 1

    began = time.monotonic()
    assert not sender.send([message])
    assert time.monotonic() - began < 0.01


@pytest.mark.parametrize("scheme", ["redis://127.0.0.1:{}/0", "amqp://guest:guest@127.0.0.1:{}//"])
def test_a_broker_that_refuses_takes_none_of_many(refused, scheme):
    """Those that go out in one go fail as one does: nothing is raised, and none counts as sent."""
    app, sender = publisher(scheme.format(refused))

    assert not sender.send([Outgoing(app.signature("a.b", immutable=True)) for _ in range(50)])


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
def test_what_is_sent_stands_in_the_queue(broker):
    """A message that was taken can be read back, with its task's name."""
    app, sender = publisher(broker)

    assert sender.send([Outgoing(app.signature("a.b", immutable=True))])

    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(app.conf.task_default_queue)
        message = queue.get(timeout=5)
        assert message.headers["task"] == "a.b"
        message.ack()
        queue.close()
    sender.close()


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
def test_what_is_sent_together_stands_in_the_queue_in_its_order(broker):
    """Of many messages that go out in one go each can be read back, the first one first, those with a delay too."""
    app, sender = publisher(broker)
    tasks = [f"a.{number}" for number in range(20)]

    assert sender.send([Outgoing(app.signature(task), 60 if task == "a.3" else None) for task in tasks])

    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(app.conf.task_default_queue)
        messages = [queue.get(timeout=5) for _ in tasks]
        assert [message.headers["task"] for message in messages] == tasks
        assert [message.headers["task"] for message in messages if message.headers["eta"]] == ["a.3"]
        for message in messages:
            message.ack()
        queue.close()
    sender.close()


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_redis_takes_what_is_sent_together_in_one_round_trip(broker, monkeypatch):
    """So many messages cost the one way to the server and back that one of them would."""
    app, sender = publisher(broker)
    sender.send([Outgoing(app.signature("a.b"))])  # which opens the connection
    packets, send = [], AbstractConnection.send_packed_command
    monkeypatch.setattr(
        AbstractConnection,
        "send_packed_command",
        lambda self, *given, **more: packets.append(0) or send(self, *given, **more),
    )

    assert sender.send([Outgoing(app.signature("a.b")) for _ in range(50)])

    assert len(packets) == 1
    assert sender.length(app.conf.task_default_queue) == 51
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
