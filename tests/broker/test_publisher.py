"""A broker that is down costs a request next to nothing."""

import socket
import time
from contextlib import closing

import pytest
from celery import Celery
from eventually import eventually
from redis.connection import AbstractConnection
from servers import BROKERS

from durable import ConfigurationError
from durable.broker import check_settings, check_worker_settings
from durable.broker.publisher import Outgoing, Publisher
from durable.engine import transport_defaults


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
        message = queue.get(timeout=20)
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
        messages = [queue.get(timeout=20) for _ in tasks]
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
        channel.queue_declare("of-another-connection", exclusive=True, auto_delete=False)

        assert sender.length("of-another-connection") is None
        assert sender.length("not-there") == 0
        assert sender.keep("there")
        assert sender.length("there") == 1


# What cannot be sent, whatever the broker does.


IMPOSSIBLE = {
    "a link that yaml cannot carry, or no yaml": {"serializer": "yaml", "link": "a.b"},
    "a serializer that is not installed": {"serializer": "morse"},
    "arguments that JSON cannot carry": {"args": (object(),)},
    "a queue that the app does not have": {"queue": "nowhere"},
    "a countdown of no time": {"countdown": "soon"},
}


def of_app(app, link=None, args=(), **options):
    """A signature with these options."""
    made = app.signature("a.bad", args=args, immutable=True).set(**options)
    return made if link is None else made.set(chain=[app.signature(link)])


@pytest.mark.parametrize("options", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
@pytest.mark.parametrize("broker", BROKERS, indirect=True)
def test_a_message_that_cannot_be_made_keeps_none_back(broker, options):
    """Its error is reported with it; those before and after it are sent, at once, and so is the next one."""
    app, sender = publisher(broker)
    app.conf.task_create_missing_queues = False
    app.conf.broker_transport_options = transport_defaults(broker)  # RabbitMQ has a message once it has said so
    reported = []
    neighbours = [Outgoing(app.signature(f"a.{number}"), impossible=reported.append) for number in range(2)]
    bad = Outgoing(of_app(app, **options), impossible=reported.append)

    with closing(sender):
        assert sender.send([neighbours[0], bad, neighbours[1]])
        assert len(reported) == 1
        assert sender.length(app.conf.task_default_queue) == 2
        assert sender.send([neighbours[0]])


def test_a_broker_that_is_down_makes_no_message_impossible(refused):
    """An outage is reported for none of the messages, also where one of them cannot be made."""
    app, sender = publisher(f"redis://127.0.0.1:{refused}/0")
    reported = []

    sent = sender.send(
        [Outgoing(of_app(app, **bad), impossible=reported.append) for bad in ({}, {"args": (object(),)})]
    )

    assert (sent, reported) == (False, [])


def test_what_raises_for_a_while_makes_no_message_impossible(broker, caplog):
    """A router of the application's that cannot reach what it asks is logged; the message may be sent later."""

    def route(*_, **__):
        raise RuntimeError("no line to the directory")

    app, sender = publisher(broker)
    app.conf.task_routes = [route]
    reported = []

    with closing(sender):
        assert sender.send([Outgoing(app.signature("a.b"), impossible=reported.append)])

    assert reported == []
    assert "a.b cannot be made (RuntimeError: no line to the directory)" in caplog.text


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_a_message_that_rabbitmq_refuses_keeps_none_back(broker, caplog):
    """A queue that was declared with other arguments is told in the log; what goes to other queues is sent."""
    app, sender = publisher(broker)
    app.conf.broker_transport_options = transport_defaults(broker)
    with closing(sender), app.connection_for_write() as connection, connection.channel() as channel:
        channel.queue_declare("declared-otherwise", durable=True, auto_delete=False, arguments={"x-max-priority": 3})
        queues = (app.conf.task_default_queue, "declared-otherwise", app.conf.task_default_queue)

        assert sender.send([Outgoing(app.signature("a.b").set(queue=queue)) for queue in queues])

        assert sender.length(app.conf.task_default_queue) >= 2
        assert sender.length("declared-otherwise") == 0
        assert "PreconditionFailed" in caplog.text
        assert sender.send([Outgoing(app.signature("a.b"))])


# Settings of Celery.


LOSING = {
    "accept_content yaml": ({"accept_content": ["yaml"]}, "Add 'json' to accept_content"),
    "accept_content pickle": ({"accept_content": ["pickle"]}, "Add 'json' to accept_content"),
    "accept_content auth": ({"accept_content": ["auth"], "task_serializer": "auth"}, "Add 'json' to accept_content"),
    "accept_content nothing": ({"accept_content": []}, "Add 'json' to accept_content"),
    "task_protocol 1": ({"task_protocol": 1}, "set it to 2"),
    "task_compression not installed": ({"task_compression": "vacuum"}, "choose one of application/x-gzip"),
    "a soft limit above the hard one": ({"task_soft_time_limit": 9, "task_time_limit": 3}, "Make it shorter"),
}

#: What a worker does take our messages with.
FINE = {
    "json by its type": {"accept_content": ["application/json"]},
    "json among others": {"accept_content": ["pickle", "json"], "task_serializer": "pickle"},
    "whatever is safe": {"accept_content": None},
    "compressed": {"task_compression": "bzip2"},
    "limits": {"task_soft_time_limit": 3, "task_time_limit": 9},
    "results otherwise": {"result_accept_content": ["pickle"], "result_serializer": "pickle"},
}


@pytest.mark.parametrize(("settings", "fix"), LOSING.values(), ids=LOSING)
def test_settings_that_lose_messages_are_refused(settings, fix):
    """The error names the setting with its value, and says what to change."""
    app = Celery("losing", broker="memory://")
    app.conf.update(settings)

    with pytest.raises(ConfigurationError, match=fix) as raised:
        check_settings(app)
    name, value = next(iter(settings.items()))
    assert name in str(raised.value)
    assert str(value) in str(raised.value)


@pytest.mark.parametrize("settings", FINE.values(), ids=FINE)
def test_settings_that_lose_nothing_are_not_refused(broker, settings):
    """The checks pass, and a message that is sent with them stands in the queue."""
    app, sender = publisher(broker)
    app.conf.update(settings)

    check_settings(app)
    check_worker_settings(app)

    with closing(sender):
        assert sender.send([Outgoing(app.signature("a.b", immutable=True))])
        assert sender.length(app.conf.task_default_queue) == 1


def test_a_worker_of_an_eager_app_is_refused():
    """With task_always_eager nothing goes through the broker, so its worker would do nothing."""
    app = Celery("eager", broker="memory://")
    app.conf.task_always_eager = True

    with pytest.raises(ConfigurationError, match="task_always_eager is on"):
        check_worker_settings(app)


# Several brokers, and queues of RabbitMQ.


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_the_next_broker_of_a_list_is_sent_to_when_the_first_is_dead(broker, refused):
    """Without a pause, again and again, and for what is asked too."""
    first = broker.partition("://")[0] + f"://127.0.0.1:{refused}//"
    app, sender = publisher(f"{first};{broker}")
    began = time.monotonic()

    for _ in range(3):
        assert sender.send([Outgoing(app.signature("a.b"))])
        sender.close()

    assert sender.length(app.conf.task_default_queue) == 3
    assert time.monotonic() - began < 3
    sender.close()


def test_a_list_of_brokers_that_are_all_dead_is_told_within_a_second(refused):
    """Each is tried once."""
    url = f"redis://127.0.0.1:{refused}/0"
    app, sender = publisher(f"{url};{url};{url}")
    began = time.monotonic()

    assert not sender.send([Outgoing(app.signature("a.b"))])
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_the_sentinels_queue_has_the_type_of_the_default_queue(broker, kind):
    """A message that is replicated shows whether replicated messages are there."""
    app, sender = publisher(broker)
    app.conf.task_default_queue_type = kind
    other = {"quorum": "classic", "classic": "quorum"}[kind]
    with closing(sender), app.connection_for_write() as connection, connection.channel() as channel:
        assert sender.keep("durable.sentinel.typed")

        # A quorum queue counts its messages with a delay.
        eventually(lambda: sender.length("durable.sentinel.typed") == 1)
        arguments = {"x-queue-type": other}
        with pytest.raises(connection.channel_errors, match="inequivalent arg 'x-queue-type'"):
            channel.queue_declare("durable.sentinel.typed", durable=True, auto_delete=False, arguments=arguments)
