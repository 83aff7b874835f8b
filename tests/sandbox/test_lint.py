"""What no guard can see while a workflow runs is found when it is registered, or when it first runs."""

from __future__ import annotations

import datetime
import datetime as dt
import logging
import sys
import time as clock
from collections.abc import Callable
from datetime import UTC, date
from datetime import datetime as moment
from types import FunctionType, ModuleType
from typing import Any

import pytest
from simulator import Simulator

import durable
from durable import ConfigurationError, registry, sandbox, step
from durable.registry.definitions import Workflow
from durable.sandbox import guards, lint, unrestricted

# Like a module that was imported before the guards came, whatever ran before this one.
_STOCK = {call: function for function, call, _ in guards.originals()}
time, sleep, choice, uuid4, token_hex = (
    _STOCK[f"{module}.{name}"]
    for module, name in [
        ("time", "time"),
        ("time", "sleep"),
        ("random", "choice"),
        ("uuid", "uuid4"),
        ("secrets", "token_hex"),
    ]
)
utcnow = datetime.datetime.utcnow


def found(function: Callable[..., Any]) -> list[tuple[str, int]]:
    """The calls that are found in a body, and on which of its lines."""
    assert isinstance(function, FunctionType)
    try:
        lint.check(function, "flow")
    except ConfigurationError as error:
        lines = str(error).splitlines()[1:]
        code = function.__code__
        where = [line.strip().removeprefix(f"{code.co_filename}:").split(": ", 1) for line in lines]
        return [(call.partition("(")[0], int(number) - code.co_firstlineno) for number, call in where]
    return []


async def now_from_the_class():
    return moment.now(UTC)


async def now_from_the_module():
    return datetime.datetime.now(tz=UTC)


async def today_by_an_alias():
    return dt.date.today(), moment.today()


async def yesterday():
    return date.today() - dt.timedelta(days=1)


async def kept_under_another_name():
    return utcnow()


async def imported_in_the_body():
    from datetime import datetime

    return datetime.now()


async def module_imported_in_the_body():
    import datetime

    return datetime.datetime.utcnow().isoformat()


async def by_name():
    sleep(1)
    return f"{time()}"


async def random_by_name():
    return choice([1]), uuid4(), token_hex(8)


async def nested():
    async def inner():
        return [moment.now() for _ in range(2)]

    return await inner()


async def among_arguments():
    return print(1, *[2], end=(lambda: moment.now().isoformat())())  # noqa: PLC3002 - the call that lint has to find


@pytest.mark.parametrize(
    ("body", "calls"),
    [
        (now_from_the_class, [("datetime.now", 1)]),
        (now_from_the_module, [("datetime.now", 1)]),
        (today_by_an_alias, [("date.today", 1), ("datetime.today", 1)]),
        (yesterday, [("date.today", 1)]),
        (kept_under_another_name, [("datetime.utcnow", 1)]),
        (imported_in_the_body, [("datetime.now", 3)]),
        (module_imported_in_the_body, [("datetime.utcnow", 3)]),
        (by_name, [("time.sleep", 1), ("time.time", 2)]),
        (random_by_name, [("random.choice", 1), ("uuid.uuid4", 1), ("secrets.token_hex", 1)]),
        (nested, [("datetime.now", 2)]),
        (among_arguments, [("datetime.now", 1)]),
    ],
)
def test_c11_what_escapes_the_guards_is_found_in_the_body(body, calls):
    """However the clock and randomness are reached by name: the call, and its line."""
    assert found(body) == calls


def test_a_name_that_an_outer_function_holds_is_followed():
    """A closure is resolved as the globals are."""
    now = moment.now

    async def flow():
        return now()

    assert found(flow) == [("datetime.now", 1)]


class Calendar:
    """Not the clock, though it is spelt so."""

    def now(self) -> int:
        return 1

    def today(self) -> int:
        return 2


async def another_now(datetime: Any, date: Any):
    time = Calendar().now
    return datetime.now(), date.today(), time(), Calendar().now()


async def durable_now():
    from durable import now

    return now(), durable.now(), durable.uuid4()


async def not_a_call():
    return isinstance(1, moment), moment(2024, 1, 1), moment.min, [moment.now, utcnow][0], moment.fromtimestamp(1, UTC)


async def caught_when_it_runs():
    return clock.time()


async def stored_twice():
    from datetime import datetime

    datetime = Calendar()  # noqa: F811
    return datetime.now()


async def shadowed_by_the_body():
    utcnow = Calendar().now

    async def inner():
        return utcnow()

    return await inner()


async def in_a_class():
    class Inner:
        time = Calendar().now
        value = time()

    return Inner.value


async def not_there_yet():
    return defined_nowhere()  # noqa: F821


@pytest.mark.parametrize(
    "body",
    [
        another_now,
        durable_now,
        not_a_call,
        caught_when_it_runs,
        stored_twice,
        shadowed_by_the_body,
        in_a_class,
        not_there_yet,
    ],
)
def test_what_only_looks_like_it_is_left_alone(body):
    """A name counts for what it stands for, and only where it is called."""
    assert found(body) == []


def test_a_workflow_that_reads_the_clock_is_refused_when_it_is_defined():
    """The import fails, naming the workflow, the line, the call and what to write instead; it is not registered."""
    name = "test_lint.refused"
    with pytest.raises(ConfigurationError) as refused:
        registry.workflow(name=name)(now_from_the_class)

    line = now_from_the_class.__code__.co_firstlineno + 1
    assert f"Workflow {name}" in str(refused.value)
    assert f"{__file__}:{line}: datetime.now()" in str(refused.value)
    assert "durable.now()" in str(refused.value)
    assert name not in registry.workflows


def test_a_step_may_read_the_clock():
    """Steps are where it belongs."""

    @step(name="test_lint.reads_the_clock")
    def reads_the_clock() -> Any:
        return moment.now(UTC)

    assert reads_the_clock.run().tzinfo is UTC


def test_code_without_source_is_left_alone():
    """Code that no file has, and code whose file has changed since it was imported, is not judged."""
    code = now_from_the_class.__code__
    nowhere = code.replace(co_filename="<generated>")
    moved = code.replace(co_firstlineno=code.co_firstlineno + 1)
    beyond = code.replace(co_firstlineno=100_000)

    for changed in (nowhere, moved, beyond):
        assert found(FunctionType(changed, now_from_the_class.__globals__)) == []


def test_a_call_in_an_unrestricted_block_is_allowed():
    """However the block's function is reached; the same call outside of it is reported."""

    async def flow():
        with unrestricted():
            moment.now()
        with sandbox.unrestricted():
            moment.now()
        from durable.sandbox import unrestricted as free

        with free():
            moment.now()
        return moment.now()

    assert found(flow) == [("datetime.now", 9)]


def test_a_workflow_in_a_passthrough_module_is_not_checked():
    """Nor are its helpers."""
    defined = registry.workflow(name="test_lint.passed", passthrough_modules=[__name__])(now_from_the_class)

    assert defined.passthrough_modules == (__name__,)


def test_a_function_that_is_forbidden_is_found_where_it_was_imported_by_name(monkeypatch):
    """The guard stands in its module; the body has the function itself."""
    module = ModuleType("test_lint_prices")
    exec("def current_price(): return 1", vars(module))
    monkeypatch.setitem(sys.modules, "test_lint_prices", module)
    monkeypatch.setattr(guards, "_restrictions", list(guards._restrictions))
    current_price = module.current_price
    sandbox.forbid("test_lint_prices:current_price")

    async def flow():
        return current_price()

    assert found(flow) == [("test_lint_prices.current_price", 1)]


def test_an_indented_body_may_hold_text_at_the_margin():
    """A multi-line string does not have to follow the indentation."""

    async def flow():
        _ = """
at the margin
"""
        return moment.now()

    assert found(flow) == [("datetime.now", 4)]


def test_names_bound_in_other_ways_are_left_alone():
    """By a loop, a pattern, an except clause, a walrus or a with statement."""

    async def flow(value: Any):
        for dt in value:  # noqa: F402
            dt.date.today()
        match value:
            case [date, *moment]:
                date.today()
                moment.now()  # type: ignore[attr-defined]
        with value as time:
            time()
        return (utcnow := value) and utcnow()

    assert found(flow) == []


# Helpers


def played(function: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is logged when *function* first runs as a workflow."""
    with caplog.at_level(logging.WARNING, "durable"):
        Simulator(Workflow(function, name="test_lint.flow"), checked=False).turn()
        Simulator(Workflow(function, name="test_lint.flow"), checked=False).turn()
    return [record.getMessage() for record in caplog.records if "no guard sees it" in record.getMessage()]


async def uses_helpers():
    return stamp(), await later()


def stamp():
    return deeper(2)


def deeper(n):
    return moment.now(UTC) if n == 0 else deeper(n - 1)


async def later():
    return 1


@step(name="test_lint.step_with_a_clock")
def step_with_a_clock() -> Any:
    return moment.now(UTC)


async def uses_a_step():
    step_with_a_clock()
    return stamp  # not called


def test_helpers_that_read_the_clock_are_told_when_the_workflow_first_runs(caplog):
    """Once per process, as a warning: those defined below the workflow too, and what they call in turn."""
    line = deeper.__code__.co_firstlineno + 1

    told = played(uses_helpers, caplog)

    assert [each.split(": ")[0] for each in told] == [f"{__file__}:{line}"]
    assert found(uses_helpers) == []


def test_steps_and_helpers_that_are_not_called_are_not_told_of(caplog):
    """A step runs elsewhere, and a function that is only handed on may."""
    assert played(uses_a_step, caplog) == []
