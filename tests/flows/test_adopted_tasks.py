"""Existing Celery tasks as steps, on a real worker in this process: retries, queues, handlers, other callers."""

from __future__ import annotations

import asyncio
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, Task, shared_task, signals
from celery.app import trace
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject
from driving import kinds
from eventually import eventually
from pydantic import BaseModel
from servers import migrate

from durable import Durable, Run, RunFailed, StepFailed, get_step_metadata, sleep, step, workflow
from durable.recovery import housekeeping
from durable.store import steps as step_rows
from durable.store.steps import StepRow
from durable.turns.drive import drive


@dataclass(frozen=True)
class Order:
    id: str
    at: datetime


class Money(BaseModel):
    cents: int


ORDER = Order("o-1", datetime(2026, 3, 1, tzinfo=UTC))


pytestmark = pytest.mark.usefixtures("own_registry")


class Site:
    """A Celery app with an engine, and while ``working`` a worker in a thread (Celery can have one in a process)."""

    def __init__(self, database: str) -> None:
        self.queue = f"test-{secrets.token_hex(4)}"
        self.slow = f"{self.queue}-slow"
        self.celery = Celery(self.queue, broker="memory://")
        self.celery.conf.update(
            task_default_queue=self.queue,
            task_routes={"adopted.routed": {"queue": self.slow}},
            result_backend="cache+memory://",
            broker_transport_options={"polling_interval": 0.005},
        )
        self.engine = Durable(self.celery, database_url=database, resend_after="300ms")
        migrate(self.engine)
        self.worker: Any = None

    @contextmanager
    def open(self) -> Iterator[Site]:
        yield self
        housekeeping.end(self.engine)
        self.engine.close()
        self.celery.close()

    @contextmanager
    def working(self) -> Iterator[Site]:
        queues = [self.queue, self.slow]
        # Celery does not configure this process's logging if this signal has a receiver.
        signals.setup_logging.connect(_no_logging)
        try:
            with start_worker(self.celery, pool="solo", perform_ping_check=False, queues=queues) as self.worker:
                yield self
        finally:
            signals.setup_logging.disconnect(_no_logging)
            trace.reset_worker_optimizations(self.celery)

    def task(self, *args: Any, **options: Any) -> Any:
        """``@app.task``, of this app only."""
        return self.celery.task(*args, shared=False, **options)

    def run(self, body: Callable[..., Any], *args: Any) -> Run[Any]:
        """The ended run of an ``async def`` as a workflow."""
        self.worker.consumer.update_strategies()  # it began before the test defined its tasks
        run = self.engine.start(workflow(body), *args)
        eventually(lambda: run.status not in ("pending", "running"), what=f"run {run.id} ends")
        return run


def _no_logging(**_: object) -> None: ...


@pytest.fixture(scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    database = f"sqlite:///{tmp_path_factory.mktemp('adopted')}/durable.db"
    with Site(database).open() as made, made.working():
        yield made


@pytest.fixture
def site(_site: Site, own_registry: None) -> Site:
    """An app whose worker runs already: Celery makes each task where it is defined."""
    return _site


@pytest.fixture
def idle(database: str) -> Iterator[Site]:
    """An app that is not used yet, without a worker: Celery makes its tasks later."""
    with Site(database).open() as made:
        yield made


def ended(run: Run[Any]) -> Any:
    """The event that ends the run's only step."""
    return next(e for e in run.events() if e.kind in ("step_completed", "step_failed"))


# What it is given, and what it gives.


def test_a_task_gets_what_was_passed_and_its_result_is_the_workflows(site):
    """Arguments cross with their types, whatever the task's serializer, and so does the result."""

    @site.task(name="adopted.charge", serializer="json")
    def charge(order: Order, *, retry_at: timedelta) -> tuple[Order, timedelta]:
        return order, retry_at

    charge_step = step(charge)

    async def pays(order: Order) -> Any:
        return await charge_step(order, retry_at=timedelta(seconds=3))

    run = site.run(pays, ORDER)

    assert run.result(timeout=1) == (ORDER, timedelta(seconds=3))
    assert kinds(run) == ["run_created", "run_started", "step_created", "step_completed", "run_completed"]
    assert run.events()[2].name == "adopted.charge"


#: What a task may say of its messages, whether or not it is installed, and whether or not workers accept it.
FORMATS: list[dict[str, str]] = [
    {"serializer": "yaml"},
    {"serializer": "pickle"},
    {"serializer": "msgpack"},
    {"serializer": "morse"},
    {"compression": "gzip"},
    {"compression": "vacuum"},
    {"serializer": "morse", "compression": "vacuum"},
]


@pytest.mark.parametrize("options", FORMATS, ids=str)
def test_a_step_needs_no_serializer_of_its_task(site, options):
    """Its message carries ids only and is sent as JSON: the step ends, and so does the one beside it."""

    @site.task(name=f"adopted.formatted-{secrets.token_hex(4)}", **options)
    def formatted(order: Order) -> Order:
        return order

    @site.task(name=f"adopted.beside-{secrets.token_hex(4)}")
    def beside() -> str:
        return "done"

    formatted_step, beside_step = step(formatted), step(beside)

    async def both() -> Any:
        return await asyncio.gather(formatted_step(ORDER), beside_step())

    run = site.run(both)

    assert run.result(timeout=1) == [ORDER, "done"]
    assert formatted.serializer == options.get("serializer", "json")


def test_other_callers_of_the_task_notice_nothing(site):
    """`.delay()` of the task runs it with the arguments of the message, and its result backend has the result."""

    @site.task(name="adopted.double")
    def double(n: int) -> int:
        return 2 * n

    double_step = step(double)

    async def doubles() -> int:
        return await double_step(4)

    run = site.run(doubles)

    assert double.delay(21).get(timeout=10) == 42
    with pytest.raises(TypeError):
        double.delay()

    assert run.result(timeout=1) == 8
    assert double(3) == 6


def test_a_bound_task_knows_its_request(site):
    """`self` is the task; its id is the same in every attempt, and the step's metadata are there too."""
    seen = []

    @site.task(bind=True, name="adopted.bound")
    def bound(self: Any, n: int) -> int:
        meta = get_step_metadata()
        seen.append((self.request.id, self.request.retries, meta.attempt, meta.name, n))
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return n

    bound_step = step(bound)

    async def binds() -> int:
        return await bound_step(7)

    run = site.run(binds)

    assert run.result(timeout=1) == 7
    assert len({request_id for request_id, *_ in seen}) == 1
    assert [rest for _, *rest in seen] == [[r, r + 1, "adopted.bound", 7] for r in range(3)]


def test_a_shared_task_is_adopted_before_there_is_an_app(database, own_registry):
    """`step(shared_task)` looks at no app; the task is that of whatever app is made later."""

    @shared_task(name="adopted.shared")
    def shared(a: int, b: int = 2) -> int:
        return a + b

    shared_step = step(shared)

    async def shares() -> int:
        return await shared_step(1)

    with Site(database).open() as made:
        assert not made.celery.finalized
        made.celery.conf.task_always_eager = True

        assert made.engine.start(workflow(shares)).result(timeout=1) == 3


def test_a_pydantic_task_gets_its_model(site):
    """Celery's `pydantic=True` works on what the author passed, and the workflow has what is annotated."""

    @site.task(name="adopted.money", pydantic=True)
    def doubled(money: Money) -> Money:
        return Money(cents=2 * money.cents)

    doubled_step = step(doubled)

    async def pays() -> int:
        return (await doubled_step(Money(cents=4))).cents

    assert site.run(pays).result(timeout=1) == 8


def test_a_task_of_a_class_is_adopted(site):
    """What `register_task` was given works like any other, its `self` included."""

    class Greet(Task):
        name = "adopted.greet"
        greeting = "hello"

        def run(self, whom: str) -> str:
            return f"{self.greeting} {whom}"

    greet = site.celery.register_task(Greet())
    greet_step = step(greet)

    async def greets() -> str:
        return await greet_step("you")

    assert greet_step.run("me") == "hello me"
    assert site.run(greets).result(timeout=1) == "hello you"


# Its own settings.


def test_a_task_runs_on_the_queue_that_its_app_routes_it_to(site):
    """task_routes counts, as for any call of the task."""

    @site.task(bind=True, name="adopted.routed")
    def routed(self: Any) -> str:
        return str(self.request.delivery_info["routing_key"])

    routed_step = step(routed)

    async def routes() -> str:
        return await routed_step()

    assert site.run(routes).result(timeout=1) == site.slow


def test_a_task_keeps_its_manners(idle):
    """Acknowledgement, serializer, result backend and argument checks stay as the application has them."""

    @idle.task(name="adopted.mannered", serializer="json", max_retries=7)
    def mannered(n: int) -> int:
        return n

    before = dict(vars(type(mannered._get_current_object())))
    step(mannered)
    idle.celery.finalize()
    task = idle.celery.tasks["adopted.mannered"]

    assert not task.acks_late
    assert not task.ignore_result
    assert task.typing
    assert {k: v for k, v in vars(type(task)).items() if k in before} == before


@pytest.mark.parametrize("calls", ["run", "super"])
def test_a_task_class_of_the_application_wraps_the_body(site, calls):
    """A `FlaskTask` whose `__call__` pushes an application context does so for steps, in both spellings in use."""
    contexts = []

    class FlaskTask(Task):
        def __call__(self, *args: object, **kwargs: object) -> object:
            contexts.append("pushed")
            try:
                return self.run(*args, **kwargs) if calls == "run" else super().__call__(*args, **kwargs)
            finally:
                contexts.append("popped")

    @site.task(base=FlaskTask, name=f"adopted.flask.{calls}")
    def in_context(n: int) -> list[str]:
        return list(contexts)

    in_context_step = step(in_context)

    async def flasks() -> list[str]:
        return await in_context_step(1)

    assert site.run(flasks).result(timeout=1)[-1] == "pushed"
    eventually(lambda: contexts[-1] == "popped")


def test_celery_hears_of_it_as_ever(site):
    """Signals, handlers and the result backend see a task that succeeded with its result."""
    heard: list[Any] = []

    class Handled(Task):
        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            heard.append(("on_success", retval))

    @site.task(bind=True, base=Handled, name="adopted.heard")
    def answer(self: Any) -> tuple[str, int]:
        return self.request.id, 42

    answer_step = step(answer)

    def note(sender: Any = None, result: Any = None, **_: Any) -> None:
        if sender.name == "adopted.heard":
            heard.append(("task_success", result))

    async def answers() -> Any:
        return await answer_step()

    signals.task_success.connect(note)
    try:
        task_id, number = site.run(answers).result(timeout=1)
    finally:
        signals.task_success.disconnect(note)

    assert heard == [("on_success", (task_id, 42)), ("task_success", (task_id, 42))]
    assert site.celery.AsyncResult(task_id).get(timeout=20)[1] == number


def test_its_message_has_the_options_of_the_task_and_no_arguments(idle):
    """
    Priority as the task has it, the attempt in a header; no method of the task class is asked.

    It does not expire: the worker would revoke its id, and refuse the step when durable sends it again.
    """
    called = []

    class Own(Task):
        priority = 4

        def apply_async(self, *args: Any, **options: Any) -> Any:
            called.append("apply_async")
            return super().apply_async(*args, **options)

        def shadow_name(self, *args: Any) -> str:
            called.append("shadow_name")
            return "another"

    @idle.task(name="adopted.sent", base=Own, expires=77)
    def sent(n: int) -> int:
        return n

    sent_step = step(sent)

    async def sends() -> int:
        return await sent_step(1)

    run = idle.engine.start(workflow(sends))
    drive(idle.engine, run.id)

    with idle.celery.connection_for_read() as connection:
        queue = connection.SimpleQueue(idle.queue)
        messages = [queue.get(block=False) for _ in range(len(queue))]
        queue.close()
    (message,) = [each for each in messages if each.headers["task"] == "adopted.sent"]
    assert (message.payload[:2], message.content_type) == ([[], {}], "application/json")
    assert (message.headers["durable"]["run"], message.headers["durable"]["attempt"]) == (run.id, 1)
    assert message.headers["expires"] is None
    assert (message.properties["priority"], message.headers["shadow"], called) == (4, None, [])


def test_handlers_see_no_arguments(site):
    """Neither signals nor the task's request has them; the function gets them from the log."""
    seen: list[Any] = []

    @site.task(bind=True, name="adopted.bare")
    def bare(self: Any, n: int) -> int:
        seen.append((list(self.request.args), dict(self.request.kwargs)))
        return n

    bare_step = step(bare)

    def note(sender: Any = None, args: Any = None, kwargs: Any = None, **_: Any) -> None:
        if sender.name == "adopted.bare":
            seen.append((list(args), dict(kwargs)))

    async def asks() -> int:
        return await bare_step(n=5)

    signals.task_prerun.connect(note)
    try:
        assert site.run(asks).result(timeout=1) == 5
    finally:
        signals.task_prerun.disconnect(note)
    assert seen == [([], {})] * 2


# Its own retries.


def test_autoretry_is_the_tasks_own(site):
    """`autoretry_for` retries by Celery's rules, each time as a `step_retrying` with the original exception."""
    tries = []

    @site.task(name="adopted.auto", autoretry_for=(OSError,), retry_kwargs={"countdown": 0, "max_retries": 2})
    def auto() -> int:
        tries.append(1)
        raise OSError("the disk is full")

    auto_step = step(auto)

    async def autos() -> str:
        try:
            return str(await auto_step())
        except OSError as error:
            return str(error)

    run = site.run(autos)

    assert run.result(timeout=1) == "the disk is full"
    assert len(tries) == 3
    assert [k for k in kinds(run) if k.startswith("step_")] == [
        "step_created",
        "step_retrying",
        "step_retrying",
        "step_failed",
    ]
    assert all("the disk is full" in e.error for e in run.events() if e.kind == "step_retrying")


@pytest.mark.parametrize("eta", [False, True])
def test_a_retry_comes_when_the_task_says(site, eta):
    """`self.retry(countdown=)` and `eta=` set the moment of the next attempt, and it is not before that."""
    moments = []

    @site.task(bind=True, name=f"adopted.later.{eta}")
    def later(self: Any) -> str:
        moments.append(datetime.now(UTC))
        if len(moments) == 1:
            raise self.retry(eta=datetime.now(UTC) + timedelta(seconds=0.7)) if eta else self.retry(countdown=0.7)
        return "done"

    later_step = step(later)

    async def waits() -> str:
        return await later_step()

    run = site.run(waits)

    assert run.result(timeout=1) == "done"
    assert moments[1] - moments[0] >= timedelta(seconds=0.69)
    retrying = next(e for e in run.events() if e.kind == "step_retrying")
    # SQLite's clock counts in milliseconds.
    assert 600_000 < retrying.due_at - retrying.at <= 701_000


def test_max_retries_are_counted_over_the_attempts(site):
    """The task gives up by its own number, with Celery's own error."""

    @site.task(bind=True, name="adopted.often", max_retries=1)
    def often(self: Any) -> None:
        raise self.retry(countdown=0)

    often_step = step(often)

    async def tries() -> str:
        try:
            return str(await often_step())
        except (MaxRetriesExceededError, StepFailed) as error:
            return f"{type(error).__name__}: {error}"

    run = site.run(tries)

    assert "MaxRetriesExceeded" in run.result(timeout=1)
    assert kinds(run).count("step_retrying") == 1


def test_a_retry_has_no_options_for_the_message(site):
    """``self.retry(queue=…)``: the next attempt comes to the queue of the task all the same."""
    queues = []

    @site.task(bind=True, name="adopted.moving")
    def moving(self: Any) -> str:
        queues.append(self.request.delivery_info["routing_key"])
        if len(queues) == 1:
            raise self.retry(queue="nowhere", countdown=0)
        return "done"

    moving_step = step(moving)

    async def asks() -> str:
        return await moving_step()

    assert site.run(asks).result(timeout=1) == "done"
    assert queues == [site.queue] * 2


def test_a_retry_of_a_plain_call_is_celerys(site):
    """What other callers' messages retry goes out by Celery, with its arguments."""
    tries = []

    @site.task(bind=True, name="adopted.plain")
    def plain(self: Any, n: int) -> int:
        tries.append(self.request.retries)
        if not self.request.retries:
            raise self.retry(countdown=0)
        return n

    step(plain)
    site.worker.consumer.update_strategies()

    assert plain.delay(5).get(timeout=10) == 5

    assert tries == [0, 1]


# What is no outcome of a step.


@pytest.mark.parametrize(
    ("reason", "named"),
    [
        (lambda self, other: (_ for _ in ()).throw(Ignore("not today")), "Ignore: .*not today"),
        (lambda self, other: (_ for _ in ()).throw(Reject("bad order")), "Reject: .*bad order"),
        (lambda self, other: self.replace(other.si()), "Ignore: .*Replaced by new task"),
        (lambda self, other: self.retry(args=("x",), countdown=0), "Retry: .*other arguments"),
    ],
    ids=["Ignore", "Reject", "replace", "other-arguments"],
)
def test_a_task_that_ends_without_an_outcome_fails_the_step_with_the_reason(site, reason, named):
    """`Ignore`, `Reject`, `replace` and a retry with other arguments raise `StepFailed` that says which."""
    ran = []

    @site.task(name=f"adopted.other.{id(reason)}")
    def other() -> None:
        ran.append("other")

    @site.task(bind=True, name=f"adopted.odd.{id(reason)}")
    def odd(self: Any, n: int) -> None:
        ran.append("odd")
        reason(self, other)

    odd_step = step(odd)

    async def asks() -> None:
        await odd_step(1)

    run = site.run(asks)

    with pytest.raises(RunFailed, match=named) as raised:
        run.result(timeout=1)
    assert isinstance(raised.value.__cause__, StepFailed)
    assert ran.count("odd") == 1


def test_a_rejected_message_that_comes_back_does_not_run_again(site):
    """`Reject(requeue=True)` of a late-acknowledged task: its copies find nothing to do, and there is no loop."""
    ran = []

    @site.task(name="adopted.requeue", acks_late=True)
    def requeue() -> None:
        ran.append(1)
        raise Reject("later", requeue=True)

    requeue_step = step(requeue)

    async def asks() -> None:
        await requeue_step()

    run = site.run(asks)

    assert run.status == "failed"
    assert ran == [1]


def test_a_failure_is_the_workflows_exception(site):
    """What the task raises is raised where it is awaited, and Celery sees a failed task."""
    failed = []

    class Handled(Task):
        def on_failure(self, exc: Exception, *rest: Any) -> None:
            failed.append(repr(exc))

    @site.task(base=Handled, name="adopted.fails")
    def fails(card: str) -> None:
        raise LookupError(card)

    fails_step = step(fails)

    async def asks() -> str:
        try:
            await fails_step("4242")
        except LookupError as error:
            return f"no card {error.args[0]!r}"
        return "?"

    assert site.run(asks).result(timeout=1) == "no card '4242'"
    assert failed == ["LookupError('4242')"]


def test_a_result_that_cannot_cross_fails_the_step(site):
    """The error names the value, and the step is not tried again."""

    @site.task(name="adopted.strange")
    def strange() -> Any:
        return threading.Event()

    strange_step = step(strange)

    async def asks() -> Any:
        return await strange_step()

    run = site.run(asks)

    assert "SerializationError" in ended(run).error
    assert ended(run).attempt == 1


# More than one of it.


def test_a_second_delivery_runs_nothing(site):
    """A copy of the message, while the attempt is over, is ignored; the body ran once."""
    ran = []

    @site.task(name="adopted.once")
    def once() -> int:
        ran.append(1)
        return len(ran)

    once_step = step(once)

    async def asks() -> int:
        return await once_step()

    run = site.run(asks)
    site.engine.dispatch.send_step(StepRow(run.id, ended(run).op_id, "adopted.once", 1, 0, None, None))

    assert once.delay().get(timeout=10) == 2  # behind it in the same queue

    assert run.result(timeout=1) == 1


def test_a_call_of_the_task_in_itself_is_a_plain_call(site):
    """A task that calls itself runs its function, and makes no step."""

    @site.task(name="adopted.countdown")
    def down(n: int) -> int:
        return 0 if n == 0 else 1 + down(n - 1)

    down_step = step(down)

    async def counts() -> int:
        return await down_step(3)

    run = site.run(counts)

    assert run.result(timeout=1) == 3
    assert kinds(run).count("step_created") == 1


def test_a_step_that_calls_an_adopted_task_calls_it_in_place(site):
    """In another step, as everywhere outside of a workflow body, a call is a call."""

    @site.task(name="adopted.inner")
    def inner(n: int) -> int:
        return n + 1

    inner_step = step(inner)

    @step(name="adopted.outer")
    def outer(n: int) -> int:
        return inner_step(n) * 10

    async def calls() -> int:
        return await outer(1)

    run = site.run(calls)

    assert run.result(timeout=1) == 20
    assert kinds(run).count("step_created") == 1


def test_the_task_is_left_as_it_was_when_the_engine_is_closed(idle):
    """Its `run` and `retry` are its own again."""

    @idle.task(name="adopted.returned")
    def returned() -> None: ...

    step(returned)
    idle.celery.finalize()
    task = idle.celery.tasks["adopted.returned"]
    assert hasattr(task.run, "remove")

    idle.engine.close()

    assert task.run is type(task).run
    assert task.retry == type(task).retry.__get__(task)


# What cannot be sent.


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"soft_time_limit": 9, "time_limit": 3}, "soft_time_limit"),
        ({"queue": "nowhere"}, "Queue 'nowhere' missing from task_queues"),
    ],
    ids=["limits", "queue"],
)
def test_a_step_whose_message_cannot_be_made_fails_with_the_reason(site, monkeypatch, options, reason):
    """It fails at once and without a retry, in the workflow's hands; the step beside it ends as ever."""
    monkeypatch.setattr(site.celery.amqp.queues, "create_missing", False)

    @step(name="adopted.unsendable", **options)
    def unsendable() -> str:
        return "sent"

    @step(name="adopted.sendable")
    def sendable() -> str:
        return "done"

    async def both() -> list[Any]:
        return await asyncio.gather(unsendable(), sendable(), return_exceptions=True)

    failed, done = site.run(both).result(timeout=1)

    assert done == "done"
    assert isinstance(failed, StepFailed)
    assert "no message can be sent for adopted.unsendable" in str(failed)
    assert reason in str(failed)


def test_the_format_of_the_whole_app_is_its_own_tasks(database, own_registry):
    """With task_serializer, task_compression and task_annotations of the app's, turns, alarms and steps still cross."""
    with Site(database).open() as other:
        other.celery.conf.update(
            task_serializer="yaml",
            task_compression="gzip",
            task_annotations={"*": {"serializer": "morse", "compression": "vacuum", "expires": -1}},
            task_reject_on_worker_lost=False,
            task_acks_on_failure_or_timeout=False,
            task_ignore_result=False,
            result_accept_content=["pickle"],
            result_serializer="pickle",
            worker_deduplicate_successful_tasks=True,
            worker_pool_restarts=True,
        )

        @other.task(name="adopted.in_yaml")
        def in_yaml(order: Order) -> Order:
            return order

        @step(name="adopted.plain")
        def plain() -> str:
            return "done"

        yaml_step = step(in_yaml)

        async def all_kinds() -> Any:
            await sleep("10ms")
            return await asyncio.gather(yaml_step(ORDER), plain())

        with other.working():
            assert other.run(all_kinds).result(timeout=1) == [ORDER, "done"]


# Without a worker.


def test_a_simple_task_works_in_eager_mode(idle):
    """With task_always_eager the run has ended when `start` returns, also after a failure."""
    idle.celery.conf.task_always_eager = True

    @idle.task(name="adopted.eager")
    def divide(a: int, b: int) -> float:
        return a / b

    divide_step = step(divide)

    async def divides() -> Any:
        try:
            return await divide_step(1, 0)
        except ZeroDivisionError:
            return await divide_step(1, 4)

    assert idle.engine.start(workflow(divides)).result(timeout=1) == 0.25


def test_in_eager_mode_a_retry_with_a_delay_stays_pending(idle):
    """Nothing is there that would wait for it."""
    idle.celery.conf.task_always_eager = True

    @idle.task(bind=True, name="adopted.eager.later")
    def later(self: Any) -> None:
        raise self.retry(countdown=60)

    later_step = step(later)

    async def asks() -> None:
        await later_step()

    run = idle.engine.start(workflow(asks))

    assert run.status == "running"
    with idle.engine.store.read() as tx:
        row = step_rows.pending(tx, run.id, "r#1", 2)
    assert row is not None


def test_the_example_of_the_docs_runs(idle):
    """docs/how-to/celery-users.md: its tasks as they are, and the workflow that takes the place of the canvas."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "celery-users.md").read_text()
    tasks_py, canvas, after = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    keys = []
    names: dict[str, Any] = {
        "__name__": "adopted_example",
        "shared_task": shared_task,
        "bank": SimpleNamespace(charge=lambda order_id, cents, key: keys.append(key) or f"{order_id}: {cents}"),
        "warehouse": SimpleNamespace(reserve=lambda order_id, sku: f"{sku} for {order_id}"),
        "mail": SimpleNamespace(send=lambda order_id, reservations: f"{order_id} gets {len(reservations)}"),
    }
    exec(tasks_py, names)
    tasks = SimpleNamespace(**{name: names[name] for name in ("charge", "reserve", "confirm")})
    after_names: dict[str, Any] = {"__name__": "adopted_example_flow", "asyncio": asyncio, "tasks": tasks}
    exec(after, after_names)
    idle.celery.conf.task_always_eager = True

    run = idle.engine.start(after_names["fulfil"], "o-1", 1200, ["a", "b"])

    assert run.result(timeout=1) == {"receipt": "o-1: 1200", "status": "o-1 gets 2"}
    assert keys == [f"{run.id}:{next(e.op_id for e in run.events() if e.kind == 'step_created')}"]
    assert "chord(" in canvas
