"""A message of ours is the one that Celery's ``apply_async`` would send, with all that users hook into."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

import celery
import pytest
from celery import Celery, signals
from kombu.transport import redis as kombu_redis
from servers import BROKERS

from durable.broker import redis_outages
from durable.broker.chains import FORMAT, Chain
from durable.broker.publisher import Outgoing, Publisher
from durable.engine import transport_defaults


def _do(run_id):
    """What no test runs."""


@pytest.fixture
def app(broker):
    """An app with two tasks like durable's."""
    app = Celery("sending", broker=broker, set_as_current=False)
    app.conf.broker_transport_options = transport_defaults(broker)  # RabbitMQ has a message once it has said so
    app.task(name="sending.turn", ignore_result=True, typing=False)(_do)
    app.task(name="sending.limited", ignore_result=True, time_limit=30)(_do)
    app.finalize()
    yield app
    app.close()


def signature(app, name="sending.turn", **options):
    """A signature as the dispatcher makes it."""
    made = app.signature(name, args=("run-1",), immutable=True)
    shown = {"argsrepr": "('run-1',)", "task_id": "task-1"}
    return made.set(headers={"durable": {"run": "run-1"}}, **FORMAT | shown | options)


def chain(app, **options):
    """A chain as the dispatcher makes it."""
    return Chain(signature(app, **options), (signature(app, task_id="task-2"),))


def _named(queue):
    return queue.name, queue.exchange.name, queue.routing_key


@contextmanager
def published() -> Iterator[list[dict]]:
    """What ``before_task_publish`` and ``after_task_publish`` are told, in order."""
    told: list[dict] = []

    def note(name, sender, **given):
        given.pop("signal")
        for copied in ("argsrepr", "kwargsrepr"):
            # Celery repeats them there, beside the headers that its tools read.
            given.get("properties", {}).pop(copied, None)
        told.append({"signal": name, "task": sender, **given, "declare": list(map(_named, given.get("declare") or ()))})

    before, after = functools.partial(note, "before"), functools.partial(note, "after")
    signals.before_task_publish.connect(before, weak=False)
    signals.after_task_publish.connect(after, weak=False)
    try:
        yield told
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)


def route(name, args, kwargs, options, task=None, **_):
    """A router of an application."""
    return {"queue": "routed", "priority": 7} if args == ("run-1",) else None


SENT = {
    "a turn": (signature, {}, {}),
    "its queue and priority": (signature, {"queue": "slow", "priority": 3}, {}),
    "a chain": (chain, {}, {}),
    "a later attempt": (chain, {"retries": 2}, {}),
    "a task with options": (signature, {"name": "sending.limited"}, {}),
    "a task with a priority that is given": (signature, {"name": "sending.limited", "priority": 5}, {}),
    "by a router": (signature, {}, {"task_routes": [route]}),
    "compressed": (signature, {}, {"task_compression": "gzip"}),
    "with the parent's priority": (signature, {}, {"task_inherit_parent_priority": True}),
}


@pytest.mark.parametrize(("make", "options", "settings"), SENT.values(), ids=SENT)
def test_the_message_is_the_one_of_apply_async(app, make, options, settings):
    """Headers, body, properties, queue and what is declared are the same, and so are the signals."""
    app.conf.update(settings)
    sender = Publisher(app)
    with closing(sender), published() as ours:
        assert sender.send([Outgoing(make(app, **options))])
    with app.producer_or_acquire() as producer, published() as theirs:
        make(app, **options).apply_async(producer=producer, retry=False)

    assert [each["signal"] for each in ours] == ["before", "after"]
    assert ours == theirs


@pytest.mark.parametrize("make", [signature, chain])
def test_the_message_of_a_sleep_is_the_one_of_apply_async(app, make, monkeypatch):
    """The same, with an ETA."""
    moment = app.now()
    monkeypatch.setattr(app, "now", lambda: moment)
    sender = Publisher(app)
    with closing(sender), published() as ours:
        assert sender.send([Outgoing(make(app), countdown=30.5)])
    with app.producer_or_acquire() as producer, published() as theirs:
        make(app).apply_async(producer=producer, retry=False, countdown=30.5)

    assert ours[0]["headers"]["eta"] == (moment + timedelta(seconds=30.5)).isoformat()
    assert ours == theirs


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
def test_it_is_sent_without_apply_async(app, monkeypatch):
    """Neither the signature's nor the task's is called, unless the application has changed the task's."""
    called = []
    monkeypatch.setattr(celery.canvas.Signature, "apply_async", lambda self, *_, **__: called.append(self.task))
    sender = Publisher(app)
    with closing(sender):
        assert sender.send([Outgoing(signature(app)), Outgoing(chain(app))])
        assert sender.length(app.conf.task_default_queue) == 2

    assert called == []


@pytest.mark.parametrize("owner", [celery.Task, Celery], ids=["Task.apply_async", "Celery.send_task"])
def test_a_method_that_a_library_has_replaced_is_called(app, monkeypatch, owner):
    """As Sentry's integration does: with a wrapper that looks like the method."""
    name = "apply_async" if owner is celery.Task else "send_task"
    original, called = getattr(owner, name), []

    @functools.wraps(original)
    def wrapper(self, *args, **kwargs):
        called.append(name)
        return original(self, *args, **kwargs)

    sender = Publisher(app)
    with closing(sender):
        assert sender.send([Outgoing(signature(app))])
        monkeypatch.setattr(owner, name, wrapper)
        assert sender.send([Outgoing(signature(app)), Outgoing(chain(app))])
        assert sender.length(app.conf.task_default_queue) == 3

    assert called == [name, name]


def test_a_message_from_within_a_task_names_its_parent(app):
    """As Celery's tools show it: the task that sends, and the first of all."""
    sender = Publisher(app)
    task = app.tasks["sending.limited"]
    task.push_request(id="parent-1", root_id="root-1", called_directly=False)
    celery._state._task_stack.push(task)
    try:
        with closing(sender), published() as told:
            assert sender.send([Outgoing(signature(app))])
    finally:
        celery._state._task_stack.pop()
        task.pop_request()

    assert (told[0]["headers"]["root_id"], told[0]["headers"]["parent_id"]) == ("root-1", "parent-1")
    assert task.request.children in (None, [])


def test_the_event_of_a_sent_task_is_told(app, monkeypatch):
    """``task_send_sent_event`` has it published, for Flower."""
    app.conf.task_send_sent_event = True
    told = []
    monkeypatch.setattr(
        app.amqp._event_dispatcher, "publish", lambda kind, fields, *_, **__: told.append((kind, fields))
    )
    sender = Publisher(app)
    with closing(sender):
        assert sender.send([Outgoing(signature(app))])

    assert [(kind, fields["uuid"], fields["queue"]) for kind, fields in told] == [("task-sent", "task-1", "celery")]


@pytest.mark.parametrize("is_worker", [False, True], ids=["client", "worker"])
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_one_client_of_redis_sends_all(app, monkeypatch, is_worker):
    """kombu makes one for each message; ours makes one, and another after its pool was closed."""
    if is_worker:
        redis_outages.survive(app)
    made = []
    create = kombu_redis.Channel._create_client

    def counted(self, asynchronous=False):
        made.append(asynchronous)
        return create(self, asynchronous=asynchronous)

    monkeypatch.setattr(kombu_redis.Channel, "_create_client", counted)
    sender = Publisher(app)
    with closing(sender):
        for _ in range(5):
            assert sender.send([Outgoing(signature(app))])
        assert made.count(False) == 1
        sender.close()
        assert sender.send([Outgoing(signature(app))])
        assert made.count(False) == 2
        assert json.loads(app.connection_for_read().channel().client.lindex("celery", 0))["headers"]["id"] == "task-1"


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
def test_a_queue_that_is_declared_anew_is_sent_to(app):
    """A queue of the same name with other settings replaces the first one, also for a producer that knows it."""
    sender = Publisher(app)
    with closing(sender), published() as told:
        assert sender.send([Outgoing(signature(app, queue="changed"))])
        app.amqp.queues.add("changed", exchange="elsewhere", routing_key="changed-key")
        assert sender.send([Outgoing(signature(app, queue="changed"))])

    declared = [each["declare"][0] for each in told if each["signal"] == "before"]
    assert declared == [("changed", "changed", "changed"), ("changed", "elsewhere", "changed-key")]
