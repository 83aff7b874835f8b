"""Annotations say what arrives, and calls are recorded by parameter name: what a deploy may change."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, Literal, NewType, TypeVar

import pytest
from driving import all_databases, kinds, settle
from pydantic import BaseModel
from typing_extensions import TypedDict

from durable import HookPayloadError, RunFailed, SerializationError, define_hook, registry, sleep, step, workflow
from durable.client import describe, operate
from durable.registry.definitions import Step, Workflow

T = TypeVar("T")
UserId = NewType("UserId", int)


class Line(TypedDict):
    sku: str
    price: Decimal


class Address(BaseModel):
    street: str
    zip: int | None = None


@dataclass
class Box(Generic[T]):
    inner: T


@dataclass
class Typed:
    """One field of each kind, as plain JSON of another program would fill it."""

    lines: list[Line]
    address: Address
    user: UserId
    how: Literal["post", "pick-up"]
    note: str | None
    size: int | list[int]
    box: Box[int]
    later: list[Later]


@dataclass
class Later:
    """Defined after the class that names it."""

    at: int


PLAIN: dict[str, Any] = {
    "lines": [{"sku": "a", "price": "1.50"}],
    "address": {"street": "s", "zip": "10115"},
    "user": "7",
    "how": "post",
    "note": None,
    "size": [1, 2],
    "box": {"inner": "5"},
    "later": [{"at": "3"}],
}
TYPED = Typed(
    [{"sku": "a", "price": Decimal("1.50")}],
    Address(street="s", zip=10115),
    UserId(7),
    "post",
    None,
    [1, 2],
    Box(5),
    [Later(3)],
)


@step
def takes_typed(typed: Typed) -> Any:
    return typed


@step
def gives_typed() -> Typed:
    return PLAIN  # type: ignore[return-value]


typed_hook = define_hook(Typed, name="values.typed")


@workflow
async def types_everywhere(key: str, typed: Typed, *more: Later, **named: UserId) -> Any:
    return [
        typed,
        more,
        named,
        await takes_typed(PLAIN),  # type: ignore[arg-type]
        await gives_typed(),
        await typed_hook.create(token=key),
    ]


@all_databases()
def test_annotations_say_what_arrives(engine, token):
    """Arguments of workflows and of steps, results and payloads become what is annotated, at every depth."""
    run = engine.start(types_everywhere, token, PLAIN, {"at": "1"}, {"at": 2}, user="8")
    settle(engine, run)
    typed_hook.resume(token, PLAIN)
    settle(engine, run)

    assert run.result() == [TYPED, (Later(1), Later(2)), {"user": 8}, TYPED, TYPED, TYPED]


class Parcel(BaseModel, Generic[T]):
    content: T


@step
def packs(box: Box[int]) -> Parcel[Box[int]]:
    return Parcel[Box[int]](content=Box[int](box.inner + 1))


@workflow
async def passes_generics(box: Box[int]) -> Any:
    return await packs(box)


@all_databases()
def test_generic_values_cross_with_their_parameters(engine):
    """What `Box[int](4)` makes, a dataclass or a model, is an argument and a result like any other."""
    run = engine.start(passes_generics, Box[int](4))
    settle(engine, run)

    assert run.result() == Parcel[Box[int]](content=Box(5))


MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"lines": [{"sku": "a", "price": "1"}, {"sku": "b", "price": "dear"}]}, "lines[1].price"),
    ({"address": {"street": 5}}, "address.street"),
    ({"user": "x"}, "user"),
    ({"how": "drone"}, "how"),
    ({"box": {"inner": "x"}}, "box.inner"),
    ({"later": [{}]}, "later[0].at"),
]


@step(retry_backoff=0)
def returns_misfit(number: int) -> Typed:
    return PLAIN | MISFITS[number][0]  # type: ignore[return-value]


@workflow
async def catches_misfits(number: int) -> list[str]:
    told = []
    for call in (lambda: takes_typed(PLAIN | MISFITS[number][0]), lambda: returns_misfit(number)):  # type: ignore[arg-type]
        try:
            await call()
        except SerializationError as error:
            told.append(error.path)
    return told


@pytest.mark.parametrize("number", range(len(MISFITS)), ids=[path for _, path in MISFITS])
def test_c29_what_does_not_fit_an_annotation_fails_the_step_without_retry(engine, number, token):
    """The error names the part, can be caught, and there is one attempt; a hook refuses the same payload."""
    wrong, path = MISFITS[number]
    run = engine.start(catches_misfits, number)
    settle(engine, run)

    name = returns_misfit.name
    assert run.result() == [f"args.typed.{path}", f"result of {name}.{path}"]
    assert "step_retrying" not in kinds(run)
    with pytest.raises(HookPayloadError) as refused:
        typed_hook.validate(token, PLAIN | wrong)
    assert refused.value.errors


def test_c29_a_run_whose_arguments_do_not_fit_fails_with_the_path(engine):
    """`start` takes what can cross; the run says what its workflow cannot use."""
    run = engine.start(types_everywhere, "key", PLAIN | MISFITS[0][0])
    settle(engine, run)

    with pytest.raises(RunFailed, match=r"SerializationError: args\.typed\.lines\[1\]\.price: 'dear' does not fit"):
        run.result()


def test_instances_are_taken_as_they_are(engine, token):
    """A dataclass that is one already is not validated again: its fields are the sender's business."""
    odd = dataclasses.replace(TYPED, user="not a number", later=[])  # type: ignore[arg-type]
    run = engine.start(types_everywhere, token, odd)
    settle(engine, run)
    typed_hook.resume(token, odd)
    settle(engine, run)

    assert run.result()[0] == run.result()[5] == odd


# Signatures that change between two deploys.


def deploy(monkeypatch: pytest.MonkeyPatch, old: Any, new: Callable[..., Any]) -> None:
    """From now on this process has *new* under the name of *old*."""
    if isinstance(old, Workflow):
        monkeypatch.setitem(registry.workflows, old.name, Workflow(new, name=old.name))
    else:
        monkeypatch.setitem(registry.steps, old.name, Step(new, name=old.name))


@step
def prices(sku: str, count: int) -> str:
    return f"{count} x {sku}"


@workflow
async def buys(order_id: str, count: int) -> Any:
    await sleep("1h")
    return order_id, count, await prices("a", count)


async def buys_reordered(count: int, order_id: str) -> Any:
    await sleep("1h")
    return order_id, count, await prices(count=count, sku="a")


async def buys_with_a_new_default(order_id: str, count: int, *, gift: bool = False) -> Any:
    await sleep("1h")
    return order_id, count, await prices("a", count)


async def buys_without_count(order_id: str) -> Any:
    await sleep("1h")
    return order_id, 1, await prices("a", 1)


async def buys_with_a_new_parameter(order_id: str, count: int, gift: bool) -> Any:
    await sleep("1h")
    return order_id, count, await prices("a", count)


def prices_reordered(count: int, sku: str, currency: str = "EUR") -> str:
    return f"{count} x {sku} in {currency}"


@all_databases()
@pytest.mark.parametrize("new", [buys_reordered, buys_with_a_new_default])
def test_parameters_may_be_reordered_and_added_with_a_default(engine, new, monkeypatch):
    """A run that was started, and has slept, under the old signature ends as it would have."""
    run = engine.start(buys, "o-1", 2)
    settle(engine, run)

    deploy(monkeypatch, buys, new)
    run.wake_up()
    settle(engine, run)

    assert run.result() == ("o-1", 2, "2 x a")


def test_parameters_of_a_step_may_be_reordered_and_added_with_a_default(engine, monkeypatch):
    """A call that was recorded before the deploy reaches the new function by name."""
    run = engine.start(buys, "o-1", 2)
    settle(engine, run)
    run.wake_up()

    deploy(monkeypatch, prices, prices_reordered)
    settle(engine, run)

    assert run.result() == ("o-1", 2, "2 x a in EUR")


@all_databases()
@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (buys_without_count, "args.count: the function has no parameter 'count' any more"),
        (buys_with_a_new_parameter, "missing a required argument: 'gift'.  Give a new parameter a default"),
    ],
)
def test_a_signature_that_the_arguments_do_not_fit_blocks_the_run(engine, new, reason, monkeypatch):
    """The diff shows the arguments and the new signature; with the old code the run goes on."""
    run = engine.start(buys, "o-1", 2)
    settle(engine, run)
    run.wake_up()

    deploy(monkeypatch, buys, new)
    settle(engine, run)
    assert run.status == "blocked"
    shown = describe.describe(engine, run.id)["error"]
    assert reason in shown
    assert '{"order_id":"o-1","count":2}' in shown

    monkeypatch.undo()
    assert operate.retry(engine, run.id)
    settle(engine, run)
    assert run.result() == ("o-1", 2, "2 x a")


def test_a_key_outlives_a_new_default(engine, monkeypatch):
    """The same call under the same key is the same run, though the workflow has a new parameter."""
    key = secrets.token_hex(8)
    run = buys.with_options(idempotency_key=key).start("o-1", 2)

    newer: Workflow[..., Any] = Workflow(buys_with_a_new_default, name=buys.name)

    assert newer.with_options(idempotency_key=key).start("o-1", count=2) == run
    assert newer.with_options(idempotency_key=key).start("o-1", 2, gift=False) == run


# Annotations that are written otherwise.


def shadowed() -> Step[..., Any]:
    """A step whose annotation cannot be resolved: it checks nothing, and breaks nothing."""

    def odd(value: Nowhere.At.All) -> Any:  # type: ignore[name-defined] # noqa: F821
        return value

    return Step(odd, name="typed.odd")


def test_an_annotation_that_cannot_be_resolved_checks_nothing():
    """It may be there for a type checker only."""
    assert shadowed().annotation("value") is Any


def nested_reference(value: "list['Later']", other: list["Later"]) -> None:  # noqa: UP037
    """Names within names, as one writes them without the future import."""


nested_reference.__annotations__["other"] = list["Later"]


@pytest.mark.parametrize("name", ["value", "other"])
def test_a_forward_reference_within_an_annotation_is_resolved(name):
    """`list["Later"]` is a list of that class, wherever the quotes stand."""
    assert Step(nested_reference, name="typed.nested").annotation(name) == list[Later]
