"""Celery tasks as steps: when they are looked at, what they are called and called with, and what is refused."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
from celery import Celery, Task, shared_task
from celery.exceptions import DuplicateTaskNameWarning
from celery.local import Proxy
from pydantic import BaseModel
from simulator import Simulator

from durable import ConfigurationError, registry, step, workflow
from durable.registry.celery_tasks import AdoptedStep
from durable.worker import adopted_tasks

pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.fixture(autouse=True)
def no_engines(monkeypatch):
    """Engines that other tests have left in this process do not look at what is defined here."""
    monkeypatch.setattr(registry.tables, "_subscribers", [])


@pytest.fixture
def app():
    made = Celery("adopting", broker="memory://")
    yield made
    made.close()


class Money(BaseModel):
    cents: int


def nothing() -> None: ...


def plus_one(n: int) -> int:
    return n + 1


def pays(self: Any, money: Money, *, fast: bool = False) -> Money:
    """Pay it."""
    return money


# When Celery makes the task.


def test_a_task_is_not_made_by_adopting_it(app):
    """Configuration that comes after `step(task)` counts for the task as ever."""

    @app.task(name="adopted.late")
    def late() -> None: ...

    adopted = step(late)
    app.conf.task_acks_late = True

    assert not late.__evaluated__()
    assert adopted.name == "adopted.late"
    assert late.acks_late


def test_no_proxy_is_asked_for_anything():
    """Nor is a `shared_task`, which would make an app to look for it."""
    asked = []

    @shared_task(name="adopted.unasked")
    def unasked() -> None: ...

    step(Proxy(lambda: asked.append("asked") or unasked))

    assert asked == []


def test_a_task_has_its_name_once_anybody_asks(app):
    """Until then it has none to be found by."""

    @app.task(name="adopted.named")
    def named() -> None: ...

    adopted = step(named)
    assert "adopted.named" not in registry.steps

    assert adopted.policy.max_retries == 3
    assert registry.steps["adopted.named"] is adopted
    assert registry.unnamed == []


def test_a_task_may_be_adopted_in_two_modules(app):
    """Both names are the same step."""

    @app.task(name="adopted.both")
    def both() -> None: ...

    one, two = step(both), step(both)

    assert one.name == two.name


def test_a_name_that_a_step_has_is_refused_with_both_places(app):
    """A task and a `@step` cannot be told apart by one name."""

    @step(name="adopted.taken")
    def first() -> None: ...

    @app.task(name="adopted.taken")
    def second() -> None: ...

    with pytest.raises(ConfigurationError) as raised:
        _ = step(second).name

    assert str(raised.value).count(f"{__file__}:") == 2


# What it is.


@pytest.mark.parametrize("options", [{}, {"autoretry_for": (OSError,)}, {"pydantic": True}])
def test_a_task_has_the_signature_that_its_callers_see(app, options):
    """Without `self`, whatever Celery has wrapped around the function; `run` is called so, too."""
    adopted = step(app.task(bind=True, name="adopted.pays", **options)(pays))

    assert isinstance(adopted, AdoptedStep)
    assert list(adopted.signature.parameters) == ["money", "fast"]
    assert list(inspect.signature(adopted).parameters) == ["money", "fast"]
    assert adopted.annotation("money") is Money
    assert adopted.return_annotation is Money
    assert adopted.__name__ == "pays"
    assert adopted.run(Money(cents=3)) in (Money(cents=3), {"cents": 3})


def test_a_task_of_a_class_is_known_by_its_run(app):
    """Its place is that of the method, and its policy its own."""

    class Pays(Task):
        name = "adopted.class"
        max_retries = None

        def run(self, n: int) -> int:
            return n + 1

    adopted = step(app.register_task(Pays()))

    assert list(adopted.signature.parameters) == ["n"]
    assert adopted.place.startswith(__file__)
    assert adopted.policy.max_retries is None
    assert adopted.run(1) == 2


def test_a_task_may_stand_in_a_class(app):
    """Its `self` is the task, which Celery gives it: an instance is nothing to it."""

    class Shop:
        pay = step(app.task(bind=True, name="adopted.in_class")(pays))

    assert Shop().pay is Shop.pay
    assert Shop().pay(Money(cents=3)) == Money(cents=3)


def test_elsewhere_a_call_is_a_call_of_the_task(app):
    """Outside of a workflow the task runs in place, by Celery's own `__call__`."""
    called = []

    class Noted(Task):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            called.append(args)
            return self.run(*args, **kwargs)

    adopted = step(app.task(base=Noted, name="adopted.call")(plus_one))

    assert adopted(1) == 2
    assert called == [(1,)]


def test_in_a_workflow_a_call_is_a_step(app):
    """It is recorded under the task's name, with its arguments by name."""

    @app.task(bind=True, name="adopted.recorded")
    def recorded(self: Any, n: int, m: int = 2) -> int:
        return n + m

    adopted = step(recorded)

    @workflow
    async def calls() -> int:
        return await adopted(1)

    run = Simulator(calls)
    run.turn()
    created = next(event for event in run.log if event.kind == "step_created")

    assert (created.name, created.args) == ("adopted.recorded", '{"n":1}')


@pytest.mark.parametrize("method", ["delay", "apply_async"])
def test_a_step_made_of_a_task_is_not_sent_by_hand(app, method):
    """The error names the task, whose own method is meant."""
    adopted = step(app.task(name="adopted.sent")(nothing))

    with pytest.raises(TypeError, match=rf"adopted\.sent.*\.{method}\(\) of the task"):
        getattr(adopted, method)()


# What is refused.


@pytest.mark.parametrize(
    "adopt", [lambda task: step(task, max_retries=5), lambda task: step(task, queue="q"), lambda task: step()(task)]
)
def test_options_beside_a_task_are_refused(app, adopt):
    """They are the task's own."""
    task = app.task(name="adopted.options")(nothing)

    with pytest.raises(ConfigurationError, match=r"adopted\.options.*Set them on the task"):
        adopt(task)


def test_an_async_task_is_refused(app):
    """Celery would call it and never await it."""

    @app.task(name="adopted.async")
    async def waits() -> None: ...

    with pytest.raises(ConfigurationError, match=r"adopted\.async.*never awaits"):
        _ = step(waits).name


def test_a_worker_does_not_start_with_what_could_not_be_adopted(engine):
    """Celery only logs what is raised while it makes its tasks; the check at its start ends the worker."""

    @engine.celery.task(name="adopted.broken", shared=False)
    async def waits() -> None: ...

    step(waits)

    with pytest.raises(ConfigurationError, match=r"adopted\.broken"):
        adopted_tasks.check(engine)


def test_a_celery_task_made_of_a_step_ends_the_worker(engine):
    """`@app.task` above `@step` is told at the worker's start, with what to do."""

    @engine.celery.task(name="adopted.above", shared=False)
    @step(name="adopted.below")
    def below() -> None: ...

    with pytest.raises(ConfigurationError, match=r"adopted\.above.*@step.*Take @app\.task away"):
        adopted_tasks.check(engine)


def test_a_celery_task_made_of_a_step_of_its_name_says_so_when_it_runs(engine):
    """Where Celery keeps the step's own task, a call of the other says what to take away."""
    engine.celery.finalize()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DuplicateTaskNameWarning)

        @engine.celery.task(name="adopted.below", shared=False)
        @step(name="adopted.below")
        def below(n: int) -> None: ...

    with pytest.raises(TypeError, match=r"below.*if @app\.task stands above @step"):
        below(1)


def test_a_task_of_another_app_is_told(engine, app, caplog):
    """Its attempts cannot run on this engine's workers, and the log says why."""
    engine.celery.finalize()
    step(app.task(name="adopted.elsewhere", shared=False)(nothing))

    assert "adopted.elsewhere" in caplog.text
    assert "not registered with the app" in caplog.text
