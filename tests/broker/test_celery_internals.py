"""
One test for each part of Celery's and kombu's insides that durable relies on (broker/celery_internals.py).

When a test fails with a new version of Celery, that part has changed: adapt it there, and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import json
import os
import signal
import sys
import threading
from types import SimpleNamespace

import billiard
import celery
import celery.concurrency.prefork
import pytest
from billiard.util import set_pdeathsig
from celery import Celery, signals
from celery.app import trace
from celery.concurrency.asynpool import AsynPool
from celery.exceptions import Ignore, Retry
from celery.worker import WorkController
from celery.worker.consumer import Consumer, delayed_delivery
from eventually import eventually
from kombu.asynchronous import Hub
from worker_thread import worker_in_thread

from durable.broker import celery_internals
from durable.broker.celery_internals import CurrentTask


@pytest.fixture
def app():
    """An app with a broker in memory."""
    app = Celery("internals", broker="memory://", set_as_current=False)
    app.finalize()
    yield app
    app.close()


def traced(app):
    """The base class of tasks whose messages Celery's tracer runs."""
    return celery_internals.traced_task(app, lambda tracer, *args: tracer(*args))


def sent_by(app, monkeypatch):
    """The names of the tasks that the app sends from now on."""
    sent = []
    monkeypatch.setattr(app, "send_task", lambda name, *args, **options: sent.append(name))
    monkeypatch.setattr(celery.Task, "apply_async", lambda self, *args, **options: sent.append(self.name))
    return sent


def test_celery_builds_a_tracer_for_each_task_and_calls_it_for_a_message(app):
    """``task.__trace__`` is set by Celery, and called with the id, the arguments and the request."""
    seen = []

    def run_message(tracer, uuid, args, kwargs, request=None):
        seen.append((uuid, args, kwargs))
        return tracer(uuid, args, kwargs, request)

    @app.task(shared=False, name="add", base=celery_internals.traced_task(app, run_message), ignore_result=True)
    def add(x, y):
        return x + y

    # What a worker does at its start, and for a message.
    add.__trace__ = trace.build_tracer("add", add, app=app)
    outcome = add.__trace__("id-1", (1, 2), {}, {"id": "id-1", "task": "add"})

    assert (seen, outcome.retval) == ([("id-1", (1, 2), {})], 3)


def test_celery_calls_the_tracer_by_the_attribute_trace():
    """The worker's consumer and the prefork pool set ``__trace__``; the fast path of tracing calls it."""
    assert "__trace__" in trace.fast_trace_task.__code__.co_names
    assert "__trace__" in Consumer.update_strategies.__code__.co_names
    assert "__trace__" in celery.concurrency.prefork.process_initializer.__code__.co_names


def test_a_task_that_was_defined_late_gets_a_tracer(app):
    """``build_tracer(name, task, hostname=…, app=…)`` makes one that runs the task."""

    @app.task(shared=False, name="late", base=traced(app))
    def late():
        return "ran"

    tracer = celery_internals.tracer_of(late, "worker@host")

    assert tracer("id-1", (), {}, {"id": "id-1", "task": "late"}).retval == "ran"
    assert celery_internals.tracer_of(late, "worker@host") is tracer


def test_a_key_of_ours_in_the_request_is_an_attribute_of_the_tasks_request(app):
    """So a task finds the continuation that its tracer was called with."""

    @app.task(shared=False, name="keys", bind=True, base=traced(app))
    def keys(self):
        return self.request.durable_continuation

    outcome = celery_internals.tracer_of(keys, None)("id-1", (), {}, {"id": "id-1", "durable_continuation": "ours"})

    assert outcome.retval == "ours"


@pytest.mark.parametrize("dropped", [False, True])
def test_celery_sends_the_next_task_of_a_chain_unless_it_was_dropped(app, monkeypatch, dropped):
    """``request.chain`` holds signatures as dicts, the next one last; the tracer reads it after the task."""
    sent, headers = sent_by(app, monkeypatch), []

    @app.task(shared=False, name="first", bind=True, base=traced(app))
    def first(self):
        headers.append(celery_internals.next_in_chain(self.request))
        if dropped:
            celery_internals.drop_chain(self.request)

    link = dict(app.signature("second", immutable=True).set(headers={"durable": 1}))
    request = {"id": "id-1", "task": "first", "chain": [link], "root_id": "id-1"}
    celery_internals.tracer_of(first, None)("id-1", (), {}, request)

    assert headers == [{"durable": 1}]
    assert sent == ([] if dropped else ["second"])


def test_a_task_outside_of_a_chain_has_no_next_one(app):
    """Celery leaves ``request.chain`` None, or empty."""
    assert celery_internals.next_in_chain(SimpleNamespace(chain=None)) is None
    assert celery_internals.next_in_chain(SimpleNamespace(chain=[])) is None


def test_a_retry_is_raised_and_not_sent(app, monkeypatch):
    """``Task.retry`` sends nothing when the request says that it is eager, and tells when it would run."""
    sent = sent_by(app, monkeypatch)

    @app.task(shared=False, name="flaky", bind=True, base=traced(app))
    def flaky(self):
        with pytest.raises(Retry) as raised, celery_internals.retries_unsent(self.request):
            self.retry(countdown=7, exc=ValueError("busy"))
        return raised.value.when, str(raised.value.exc), self.request.is_eager

    request = {"id": "id-1", "task": "flaky", "called_directly": False, "is_eager": False}
    outcome = celery_internals.tracer_of(flaky, None)("id-1", (), {}, request)

    assert (outcome.retval, sent) == ((7, "busy", False), [])


def test_each_coroutine_has_the_current_task_of_its_step(app):
    """The stacks of tasks and requests belong to what ``__ident_func__`` says, and not only to a thread."""

    @app.task(shared=False, name="one", bind=True)
    def task_one(self):
        return CurrentTask()

    @app.task(shared=False, name="two", bind=True)
    def task_two(self):
        return CurrentTask()

    async def name_of(current):
        with current.entered():
            await asyncio.sleep(0.01)
            return celery.current_task.name, celery.current_task.request.id

    async def both(currents):
        tasks = [asyncio.create_task(name_of(each), context=contextvars.copy_context()) for each in currents]
        return await asyncio.gather(*tasks)

    currents = [task.apply(task_id=f"id-{task.name}").result for task in (task_one, task_two)]

    assert asyncio.run(both(currents)) == [("one", "id-one"), ("two", "id-two")]
    assert not celery.current_task


def test_the_prefork_pool_is_told_by_its_module_and_replaces_children():
    """``consumer.pool`` is of ``celery.concurrency.prefork``, and has ``maintain_pool`` once it has started."""
    pool = celery.concurrency.prefork.TaskPool(1)

    assert celery_internals.is_prefork(SimpleNamespace(pool=pool))
    assert not celery_internals.is_prefork(SimpleNamespace(pool=None))
    assert "maintain_pool" in celery.concurrency.prefork.TaskPool.on_start.__code__.co_names


def test_only_a_child_of_the_pool_has_another_process_name():
    """billiard calls every other process MainProcess."""
    assert not celery_internals.is_pool_child()
    read, write = os.pipe()
    process = billiard.Process(target=lambda: os.write(write, b"1" if celery_internals.is_pool_child() else b"0"))
    process.start()
    process.join()

    assert os.read(read, 1) == b"1"


def test_a_workers_event_loop_checks_the_children_again_and_again():
    """``hub.call_repeatedly`` returns a timer that can be cancelled; a new consumer replaces the old one's."""
    hub, checked = Hub(), threading.Event()
    pool = SimpleNamespace(maintain_pool=checked.set, _event_process_exit=lambda hub, child: None)
    consumer = SimpleNamespace(hub=hub, pool=SimpleNamespace(maintain_pool=checked.set, _pool=pool))
    watch = celery_internals.ChildWatch()

    watch.watch(consumer)
    watch.watch(consumer)
    watch.watch(SimpleNamespace(hub=None))

    assert [entry.canceled for entry in (each.entry for each in hub.timer.queue)] == [True, True]
    assert not checked.is_set()


def test_the_children_are_checked_milliseconds_after_a_pipe_has_closed():
    """The pool calls ``_event_process_exit(hub, child)``, which may come before the kernel reports the child's end."""
    hub, seen = Hub(), []
    pool = SimpleNamespace(
        maintain_pool=lambda: seen.append("checked"), _event_process_exit=lambda *given: seen.append(given)
    )
    consumer = SimpleNamespace(hub=hub, pool=SimpleNamespace(maintain_pool=pool.maintain_pool, _pool=pool))
    watch = celery_internals.ChildWatch()
    watch.watch(consumer)
    watch.watch(consumer)
    regular = len(hub.timer.queue)

    pool._event_process_exit(hub, "child")

    assert seen == [(hub, "child")]
    assert len(hub.timer.queue) - regular == len(celery_internals.CHILD_RECHECK_SECS)
    assert "_event_process_exit" in AsynPool._track_child_process.__code__.co_names
    assert "maintain_pool" in AsynPool._event_process_exit.__code__.co_names


def test_a_fork_that_was_prepared_loads_nothing_for_the_signal_of_its_parents_death():
    """And what lived in the parent is not collected in the child."""
    read, write = os.pipe()

    def prepare_and_fork():
        celery_internals.prepare_forks()
        before = set(sys.modules)
        child = billiard.Process(target=set_pdeathsig_and_tell, args=(before,))
        child.start()
        child.join()

    def set_pdeathsig_and_tell(before):
        set_pdeathsig(signal.SIGKILL)
        loaded = sorted(set(sys.modules) - before)
        os.write(write, json.dumps([loaded, gc.get_freeze_count() > 1000]).encode())

    # In a process of its own, since what it freezes stays so.
    parent = billiard.Process(target=prepare_and_fork)
    parent.start()
    parent.join()

    assert json.loads(os.read(read, 4096)) == [[], True]


@pytest.mark.parametrize(
    ("given", "number"), [({}, None), ({"max_tasks_per_child": None}, None), ({"max_tasks_per_child": 3}, 3)]
)
def test_a_worker_that_starts_knows_when_its_children_end(given, number):
    """``worker.max_tasks_per_child`` is set before ``worker_init``."""
    assert celery_internals.tasks_per_child(SimpleNamespace(**given)) == number
    assert "max_tasks_per_child" in WorkController.setup_defaults.__code__.co_names


def test_an_app_knows_the_queues_that_it_consumes_from(app):
    """By name, the default one or those of ``-Q``."""
    assert celery_internals.consumed_queues(app) == ["celery"]
    app.amqp.queues.select(["mail", "celery"])
    assert celery_internals.consumed_queues(app) == ["celery", "mail"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("solo", "solo"),
        ("threads", "thread"),
        ("processes", "prefork"),
        (celery.concurrency.prefork.TaskPool, "prefork"),
        ("house.pools:Own", "pools"),
        (None, None),
    ],
)
def test_the_pool_of_a_worker_is_known_before_celery_has_imported_it(given, name):
    """At worker_init it is what ``--pool`` gave, a class, or an alias; a solo pool beats right after it."""
    assert celery_internals.pool_name(SimpleNamespace(pool_cls=given)) == name


def test_kombus_virtual_transports_count_a_queue(app):
    """Redis's transport is one of them; amqp's is not."""
    app.send_task("anything", queue="counted")
    with app.connection_for_write() as connection:
        assert celery_internals.virtual_queue_length(connection.default_channel, "counted") == 1
    assert celery_internals.virtual_queue_length(object(), "counted") is None


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (None, "task-succeeded"),
        (ValueError("no"), "task-failed"),
        (Retry(exc=ValueError("no"), when=3), "task-retried"),
        (Ignore(), None),
    ],
)
def test_a_tracers_result_says_which_event_a_worker_sends(app, outcome, kind):
    """A tracer returns ``(retval, info, runtime, retstr)``, where ``info`` holds the state of all but a success."""

    @app.task(shared=False, name="ends", base=traced(app), ignore_result=True)
    def ends():
        if outcome is not None:
            raise outcome

    event = celery_internals.event_of(celery_internals.tracer_of(ends, None)("id-1", (), {}, {"id": "id-1"}))

    assert (event and event[0]) == kind
    if kind in ("task-failed", "task-retried"):
        assert "ValueError('no')" in event[1]["exception"]
        assert "in ends" in event[1]["traceback"]


def test_a_worker_runs_another_task_for_messages_of_unknown_tasks(app):
    """The consumer looks a message's task up in ``strategies``, which a step of the consumer may replace."""
    # Apps of one process share their memory broker.
    app.conf.task_default_queue = "internals"
    seen = []

    @app.task(shared=False, name="forwards", bind=True, ignore_result=True)
    def forwards(task, *args, **kwargs):
        seen.append((task.request.id, task.request.ours))

    refused = []
    signals.task_unknown.connect(lambda name, **_: refused.append(name), weak=False, dispatch_uid="internals")
    celery_internals.redirect_unknown_tasks(app, "ours", "forwards")
    app.send_task("unknown", task_id="without")
    app.send_task("unknown", task_id="with", headers={"ours": {"run": "r"}})
    try:
        with worker_in_thread(app):
            eventually(lambda: seen and refused)
    finally:
        signals.task_unknown.disconnect(dispatch_uid="internals")

    assert (seen, refused) == ([("with", {"run": "r"})], ["unknown"])


def test_the_queues_of_etas_are_tried_once_at_a_node_that_is_down(monkeypatch):
    """Celery would pause for 17 s at each reconnect, and take no messages until then."""
    monkeypatch.setattr(delayed_delivery, "RETRIED_EXCEPTIONS", delayed_delivery.RETRIED_EXCEPTIONS)
    tried = []

    def fail(self, consumer, url):
        tried.append(url)
        raise ConnectionRefusedError

    monkeypatch.setattr(delayed_delivery.DelayedDelivery, "_setup_delayed_delivery", fail)
    with contextlib.closing(Celery("nodes", broker="amqp://a;amqp://b", set_as_current=False)) as app:
        celery_internals.prepare_delayed_delivery_once()

        delayed_delivery.DelayedDelivery(None).start(SimpleNamespace(app=app))

    assert sorted(tried) == ["amqp://a", "amqp://b"]
