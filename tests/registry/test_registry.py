"""Steps and workflows: names, options, and what a call means where."""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
from dataclasses import dataclass
from typing import Any

import pytest

from durable import current, registry
from durable.errors import ConfigurationError
from durable.registry.decorators import step, workflow
from durable.registry.definitions import AsyncStep, Step, Workflow
from durable.registry.limits import concurrency, key_of


@pytest.fixture(autouse=True)
def forgotten():
    """What a test defines is forgotten after it."""
    steps, workflows = dict(registry.steps), dict(registry.workflows)
    yield
    for known, before in ((registry.steps, steps), (registry.workflows, workflows)):
        known.clear()
        known.update(before)


@dataclass
class Engine:
    """An engine that notes what it is told to start."""

    started: list[Any]

    def start(self, workflow, *args, **kwargs):
        return self.started.append((workflow.name, args, kwargs, {}))

    def start_with(self, workflow, args, kwargs, options):
        return self.started.append((workflow.name, args, kwargs, options))


@pytest.fixture
def engine():
    made = Engine([])
    before = list(current._engines)
    current.register(made)
    yield made
    current._engines[:] = before


@workflow(name="test_registry.ship")
async def ship(order: int, express: bool = False) -> str:
    """Ship it."""
    return f"{order} {express}"


def module_level(a: int, b: int = 2) -> int:
    """Add."""
    return a + b


def test_c2_names_are_module_and_qualname():
    """Without name= a step is called as its function is."""
    assert f"{__name__}.module_level" == step(module_level).name


def test_a_name_can_be_kept():
    """name= stays when the function moves."""
    kept = step(name="billing.add")(module_level)

    assert kept is registry.steps["billing.add"]


def test_a_step_looks_like_its_function():
    """Name, docstring and signature are the function's, for tools and people."""
    add = step(module_level)

    assert (add.__name__, add.__doc__) == ("module_level", "Add.")
    assert inspect.signature(module_level) == inspect.signature(add)


def test_the_same_lines_may_be_imported_again():
    """A reloader replaces a definition by itself."""
    first, second = step(name="again")(module_level), step(name="again")(module_level)

    assert first is not second
    assert second is registry.steps["again"]


def test_one_name_for_two_functions_is_refused_with_both_places():
    """The error names both files and lines."""

    @step(name="twice")
    def one(): ...

    with pytest.raises(ConfigurationError) as raised:

        @step(name="twice")
        def two(): ...

    assert str(raised.value).count(f"{__file__}:") == 2


def test_a_step_and_a_workflow_of_two_modules_may_share_a_short_name():
    """The module is part of the name (c2)."""
    here, there = step(module_level), step(name="elsewhere.module_level")(module_level)

    assert here.name != there.name


def test_subscribers_hear_of_what_is_defined_later():
    """An engine turns what there is into Celery tasks, and then each new definition."""
    heard = []
    end = registry.subscribe(lambda defined: heard.append(defined.name))
    step(name="later")(module_level)
    end()
    step(name="too late")(module_level)

    assert heard == ["later"]
    assert {"test_registry.ship", "later", "too late"} <= {defined.name for defined in registry.all_definitions()}


def test_c4_outside_a_workflow_a_call_runs_the_function():
    """c4: in a script, a test, or another step."""
    assert step(module_level)(2, b=3) == 5


def test_an_async_step_outside_a_workflow_is_the_plain_coroutine():
    """It can be awaited on any loop."""

    @step
    async def double(n: int) -> int:
        return n * 2

    assert isinstance(double, AsyncStep)
    assert double.is_async
    assert asyncio.run(double(4)) == 8
    assert asyncio.run(double.run(4)) == 8


def test_run_is_the_plain_function():
    """Unit tests call it without any of us."""
    assert module_level is step(module_level).run
    assert asyncio.run(ship.run(3, express=True)) == "3 True"


@pytest.mark.parametrize("method", ["delay", "apply_async"])
def test_a_step_cannot_be_sent_by_hand(method):
    """A step has no meaning without a run."""
    with pytest.raises(TypeError, match="await it in a workflow"):
        getattr(step(module_level), method)()


def test_step_options_are_kept_apart_by_who_reads_them():
    """The policy and the timeout are ours, the rest is Celery's."""
    defined = step(max_retries=None, retry_backoff=0.5, timeout="1m", queue="slow", rate_limit="5/m")(module_level)

    assert (defined.policy.max_retries, defined.policy.backoff) == (None, 0.5)
    assert defined.timeout == 60_000_000
    assert defined.options == {"queue": "slow", "rate_limit": "5/m"}


@pytest.mark.parametrize(
    "options",
    [{"max_retries": -1}, {"max_retries": "3"}, {"retry_backoff": -1}, {"timeout": "soon"}, {"timeout": 0}],
)
def test_invalid_step_options_are_refused_at_the_decorator(options):
    """The import of a module with an invalid option fails."""
    with pytest.raises(ConfigurationError):
        step(**options)(module_level)


def test_bind_is_no_option():
    """get_step_metadata() is there instead."""
    with pytest.raises(TypeError, match="bind"):
        step(bind=True)


def _generator():
    yield


async def _async_generator():
    yield


@pytest.mark.parametrize("what", [3, int, _generator, _async_generator, ship, staticmethod(module_level)])
def test_only_functions_can_be_steps(what):
    """Classes, generators and workflows are refused.  (Celery tasks: test_celery_tasks.py.)"""
    with pytest.raises(ConfigurationError):
        step(what)


def test_a_step_above_staticmethod_is_refused_with_the_fix():
    """The two lines stand the wrong way round."""
    with pytest.raises(ConfigurationError, match="Swap the two lines"):
        step(staticmethod(module_level))


class Shop:
    """Steps and workflows in a class, in each way that they can be written there."""

    @step(name="shop.charge")
    def charge(self, amount: int = 3) -> tuple[Any, int]:
        return self, amount

    @step(name="shop.me")
    def me(me, amount: int = 3) -> tuple[Any, int]:
        return me, amount

    @step(name="shop.wait")
    async def wait(self, amount: int = 3) -> tuple[Any, int]:
        return self, amount

    @workflow(name="shop.sell")
    async def sell(self, amount: int = 3) -> tuple[Any, int]:
        return self, amount

    @classmethod
    @step(name="shop.of_class")
    def of_class(cls, amount: int = 3) -> tuple[Any, int]:
        return cls, amount

    @staticmethod
    @step(name="shop.free")
    def free(amount: int) -> int:
        return amount

    @staticmethod
    @workflow(name="shop.ordered")
    async def ordered(amount: int) -> int:
        return amount

    add = step(name="shop.add")(module_level)

    def calls_itself(self) -> Any:
        return self.charge(5)


def _outside(self: Any, amount: int = 3) -> tuple[Any, int]:
    return self, amount


class SubShop(Shop):
    """Inherits them."""

    outside = step(name="shop.outside")(_outside)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Shop().charge(5),
        lambda: Shop().charge(amount=5),
        lambda: Shop().me(5),
        lambda: Shop().wait(5),
        lambda: Shop().charge.run(5),
        lambda: Shop().sell(5),
        lambda: Shop().sell.start(5),
        lambda: Shop().sell.with_options(run_id="a"),
        lambda: Shop().calls_itself(),
        lambda: SubShop().charge(5),
        lambda: SubShop().outside(5),
    ],
)
def test_a_method_on_an_instance_is_refused_with_the_fix(engine, call):
    """It would run with 5 for `self`, whatever the receiver is called; nothing is started."""
    with pytest.raises(TypeError, match=r"(Step|Workflow) shop\..*does not pass the instance.*@staticmethod above"):
        call()
    assert engine.started == []


def test_a_method_gets_its_self_as_an_argument():
    """Looked up on the class it is the step, as a plain function is."""
    assert Shop.charge(1, 2) == (1, 2)
    assert asyncio.run(Shop.sell.run(1, 2)) == (1, 2)


def test_a_classmethod_never_runs_without_its_class():
    """Python 3.13 passes the class, as for any function; before, the step is refused as on an instance."""
    called: object
    try:
        called = Shop.of_class(5)
    except TypeError as error:
        called = str(error)
    assert called == (Shop, 5) or "@staticmethod above" in str(called)


@pytest.mark.parametrize("owner", [Shop, Shop(), SubShop()])
def test_staticmethod_makes_a_step_of_a_class(engine, owner):
    """On the class and on an instance, for steps and for workflows."""
    owner.ordered.start(6)

    assert owner.free(5) == 5
    assert owner.free is registry.steps["shop.free"]
    assert engine.started == [("shop.ordered", (6,), {}, {})]


@pytest.mark.parametrize("owner", [Shop, Shop(), SubShop()])
def test_a_step_from_elsewhere_may_stand_in_a_class(owner):
    """It was not written there and takes no `self`: a class may keep it under a name."""
    assert owner.add(1, 2) == 3


def test_a_workflow_is_an_async_def():
    """A plain def could await nothing."""
    with pytest.raises(ConfigurationError, match="async def"):
        workflow(module_level)


def test_the_return_annotation_is_an_object():
    """Also where annotations are text, as in this module."""
    assert step(module_level).return_annotation is int


def test_an_annotation_that_cannot_be_resolved_checks_nothing():
    """It may name what is imported for type checkers only."""

    @step
    def strange() -> Unheard:  # noqa: F821
        ...

    assert strange.return_annotation is Any


def test_an_annotation_is_resolved_as_soon_as_it_can_be_and_only_once(monkeypatch):
    """A class that a module defines after the step is found later; from then on nobody looks for it again."""

    @step
    def early(order: Coming) -> None:  # noqa: F821
        ...

    assert early.annotation("order") is Any
    monkeypatch.setitem(globals(), "Coming", int)
    assert early.annotation("order") is int
    monkeypatch.setitem(globals(), "Coming", str)
    assert early.annotation("order") is int


def test_an_annotation_may_name_what_the_function_closes_over():
    """A class of an enclosing function is found when the body uses it."""

    class Local: ...

    @step
    def local() -> Local:
        return Local()

    assert local.return_annotation is Local


def test_calling_a_workflow_outside_of_one_names_start():
    """c-: `await ship(1)` in a view is a mistake with a known fix."""
    with pytest.raises(TypeError, match=r"ship\.start\("):
        ship(1)


def test_start_takes_the_workflows_own_arguments(engine):
    """Every keyword of start and delay is the workflow's."""
    ship.start(1, express=True)
    ship.delay(2)

    assert (engine.started) == [
        ("test_registry.ship", (1,), {"express": True}, {}),
        ("test_registry.ship", (2,), {}, {}),
    ]


def test_options_of_a_start_have_celerys_words(engine):
    """with_options, then start; or apply_async with both."""
    ship.with_options(run_id="a", countdown=3).start(1)
    ship.apply_async((2,), {"express": True}, idempotency_key="k")
    ship.with_options(queue="q").apply_async((3,), priority=1)

    assert engine.started == [
        ("test_registry.ship", (1,), {}, {"run_id": "a", "countdown": 3}),
        ("test_registry.ship", (2,), {"express": True}, {"idempotency_key": "k"}),
        ("test_registry.ship", (3,), {}, {"queue": "q", "priority": 1}),
    ]


@pytest.mark.parametrize("call", [ship.with_options, lambda **o: ship.apply_async((1,), **o)])
def test_an_unknown_start_option_is_a_type_error(call):
    """A typing mistake does not start a run."""
    with pytest.raises(TypeError, match="run_idd"):
        call(run_idd="a")


def test_the_code_version_follows_the_code():
    """Another constant is another version; another path or line is not."""

    def version(source: str, filename: str = "a.py") -> str:
        scope: dict[str, Any] = {"__name__": "somewhere"}
        exec(compile(source, filename, "exec"), scope)
        return registry.code_version(Workflow(scope["f"]))

    old = version("async def f(): return {'a', 'b'}, (1, 2)")

    assert old == version("\n\nasync def f():\n    return {'a', 'b'}, (1, 2)  # comment", "b.py")
    assert old != version("async def f(): return {'a', 'b'}, (1, 3)")


def test_the_code_version_covers_the_module():
    """A helper or a step that changes may change what the workflow does."""
    assert registry.code_version(ship) == registry.code_version(ship)
    assert len(registry.code_version(ship)) == 16


class Registered:
    """Looks its attributes up, like many registries and settings; any other name is a KeyError."""

    def __init__(self, **known: Any) -> None:
        vars(self)["known"] = known

    def __getattr__(self, name: str) -> Any:
        return self.known[name]


def test_the_code_version_does_not_depend_on_objects_that_raise_when_asked(monkeypatch):
    """They may be in a workflow's module, be a class, or be in a class: what has code there still counts."""

    class Meta(type):
        def __getattr__(cls, name: str) -> Any:
            return {}[name]

    def version(source: str) -> str:
        module = types.ModuleType("with_registered")
        vars(module).update(Registered=Registered, Meta=Meta)
        exec(source, vars(module))
        monkeypatch.setitem(sys.modules, "with_registered", module)
        return registry.code_version(Workflow(vars(module)["f"]))

    module = (
        "async def f(): pass\n"
        "settings = Registered()\n"
        "mine = Registered(__module__=__name__)\n"
        "class Holder(metaclass=Meta):\n"
        "    settings = Registered()\n"
        "    def method(self): return 1\n"
    )

    assert version(module) == version(module)
    assert version(module) != version(module.replace("return 1", "return 2"))
    assert version(module) != version(module + "def helper(): pass\n")


def test_definitions_are_told_apart_in_a_list():
    """repr names what it is."""
    assert repr(ship) == "<workflow test_registry.ship>"
    assert isinstance(ship, Workflow)
    assert not isinstance(ship, Step)


def test_argsrepr_is_text():
    """Anything else would fail each message of the step, so it is refused where the step is defined."""
    with pytest.raises(ConfigurationError, match="argsrepr=5 is no text"):
        step(argsrepr=5)


@pytest.mark.parametrize(
    ("define", "message"),
    [
        (
            lambda: step(retries=3),
            r"@step has no option 'retries'.  Did you mean max_retries\?  The options are max_re",
        ),
        (lambda: step(module_level, time_out=3), r"@step has no option 'time_out'.  Did you mean timeout\?"),
        (lambda: step(bind=True), r"@step has no option 'bind'.  The options are"),
        (
            lambda: workflow(que="slow"),
            r"@workflow has no option 'que'.  Did you mean queue\?  The options are name, qu",
        ),
    ],
)
def test_a_misspelt_option_is_refused_with_the_nearest(define, message):
    """A TypeError, as for a keyword of any function, with the options that there are."""
    with pytest.raises(TypeError, match=message):
        define()


def test_a_misspelt_option_of_a_start_is_refused_with_the_nearest():
    """``with_options(idempotence_key=…)`` would start a run that may start twice."""

    @workflow(name="misspelt.start")
    async def body() -> None: ...

    with pytest.raises(TypeError, match=r"'idempotence_key'.*  Did you mean idempotency_key\?"):
        body.with_options(idempotence_key="a")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("shop", "all"),
        (lambda region, shop: f"{region}:{shop}", "eu:all"),
        (lambda region: region, "eu"),
        (lambda *given: str(len(given)), "2"),
    ],
)
def test_a_key_is_made_from_the_arguments_and_their_defaults(key, expected):
    """A function that takes fewer parameters than the step gets only what the call gives."""

    def fetch(region: str, shop: str = "all") -> None:
        pass

    call = inspect.signature(fetch).bind("eu")
    assert key_of(concurrency("registry.api", 1, key=key), call) == expected
