"""What cannot cross is refused by its path, and what is not known here is never imported."""

from __future__ import annotations

import secrets
import sys
import threading
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, settle, work
from pydantic import BaseModel

from durable import SerializationError, StepFailed, codec, step, workflow
from durable.client import describe, operate
from durable.store.schema import inbox
from durable.turns.drive import drive


@workflow
async def takes(values: list[Any]) -> Any:
    return values


# Refused by path.


class Courier:
    """A class that nothing carries."""


@dataclass
class Item:
    sku: str
    price: Any


@dataclass
class Order:
    id: str
    items: list[Item]


ORDER = Order("o-1", [Item("a", 1), Item("b", 2)])


def with_price(price: object) -> Order:
    return Order("o-1", [Item("a", 1), Item("b", 2), Item("c", 3), Item("d", price)])


@step
def ships(order: Order) -> str:
    return order.id


attempts: dict[str, int] = {}


@step(retry_backoff=0)
def returns(key: str, what: str) -> Any:
    attempts[key] = attempts.get(key, 0) + 1
    return {"price": UNCARRIED[what]}


@workflow
async def catches_what_cannot_cross(key: str, what: str) -> list[str]:
    told = []
    for call in (lambda: ships(with_price(UNCARRIED[what])), lambda: returns(key, what)):
        try:
            await call()
        except SerializationError as error:
            told.append(error.path)
    return told


UNCARRIED: dict[str, Any] = {
    "function": print,
    "lock": threading.Lock(),
    "file": sys.__stdout__,
    "class": Courier,
    "instance": Courier(),
    "step": ships,
    "workflow": takes,
}


@pytest.mark.parametrize("what", UNCARRIED)
def test_c36_what_cannot_cross_names_the_path_and_can_be_caught(engine, what):
    """Functions, locks, files: an argument is refused at the call, a result at the first attempt; the run goes on."""
    key = secrets.token_hex(4)
    run = engine.start(catches_what_cannot_cross, key, what)
    settle(engine, run)

    assert run.result() == ["args.order.items[3].price", "result.price"]
    assert attempts[key] == 1
    assert kinds(run).count("step_created") == 1


def test_c36_a_start_with_what_cannot_cross_names_the_path(engine):
    """The caller gets the error, and nothing is written."""
    with pytest.raises(SerializationError, match=r"args\.values\[0\]\.items\[3\]\.price: .*lock cannot be serialized"):
        engine.start(takes, [with_price(threading.Lock())])

    with engine.store.read() as tx:
        assert tx.execute(sa.select(inbox)).all() == []


class Parcel(BaseModel):
    number: int
    note: str = ""


@step(retry_backoff=0)
def returns_incomplete(key: str) -> Parcel:
    attempts[key] = attempts.get(key, 0) + 1
    return Parcel.model_construct(note="no number")


@workflow
async def catches_incomplete(key: str) -> str:
    try:
        await returns_incomplete(key)
    except SerializationError as error:
        return error.path
    return "recorded"


@all_databases()
def test_c36_an_incomplete_model_is_refused_where_it_is_written(engine):
    """`model_construct` leaves out a required field: the caller and the step are told, and no run is blocked."""
    key = secrets.token_hex(4)
    with pytest.raises(SerializationError, match=r"args\.values\[0\]\.number: this required field"):
        engine.start(takes, [Parcel.model_construct()])
    run = engine.start(catches_incomplete, key)
    settle(engine, run)

    assert (run.result(), attempts[key]) == ("result.number", 1)


def test_c34_an_instance_of_a_class_that_is_no_data_is_refused_by_path(engine):
    """There is no registry of encodings: dataclasses, models and named tuples cross, other classes do not."""
    with pytest.raises(SerializationError, match=r"args\.order\.items\[3\]\.price: a \S+\.Courier cannot"):
        codec.encode_arguments({"order": with_price(Courier())})
    crossed = codec.decode(codec.encode(ORDER))

    assert (type(crossed), crossed) == (Order, ORDER)


def test_c8_a_method_is_called_without_its_instance():
    """There are no bound steps: what a step in a class needs of the instance is passed as an argument."""
    with pytest.raises(TypeError, match=r"does not pass the instance.*Pass every argument: Counter\.add\("):
        Counter(3).add(4)
    assert Counter.add(Counter(3), 4) == Counter(7)


@dataclass
class Counter:
    total: int

    @step
    def add(self, number: int) -> Counter:
        return Counter(self.total + number)


@workflow
async def counts(counter: Counter) -> Any:
    added = await Counter.add(counter, 2)
    return counter, added


def test_c8_an_instance_crosses_by_value(engine):
    """A dataclass may be a step's `self`: what comes back is another one."""
    run = engine.start(counts, Counter(1))
    settle(engine, run)

    assert run.result() == (Counter(1), Counter(3))


def test_c9_a_step_as_an_argument_is_refused(engine):
    """The error says what to pass instead: its name."""
    with pytest.raises(SerializationError, match=r"args\.values\[0\]: .*Pass its name"):
        engine.start(takes, [ships])


def test_c37_a_cycle_is_refused_by_path(engine):
    """Not by an overflow of the stack."""
    ring: dict[str, Any] = {"a": []}
    ring["a"].append(ring)

    with pytest.raises(SerializationError, match=r"args\.values\[0\]\.a\[0\]: it contains itself"):
        engine.start(takes, [ring])


# Classes that are not here.


@step
def makes_an_order() -> Any:
    return ORDER


@workflow
async def awaits_an_order() -> Any:
    return await makes_an_order()


HOSTILE = (
    '{"$":"dataclass","c":"antigravity:Order","v":{}}',
    '{"$":"exception","c":"antigravity:Error","type":"Error","message":"x","args":[]}',
    '{"$":"enum","c":"antigravity:Colour","n":"RED","v":1}',
    '{"$":"dataclass","c":"subprocess:Popen","v":{"args":"true"}}',
    '{"$":"model","c":"os:system","v":{}}',
    '{"$":"namedtuple","c":"builtins:tuple","v":{}}',
    '{"$":"pickle","v":"gASVBQAAAAAAAABLAS4="}',
)


@pytest.fixture
def manner() -> dict[str, Any]:
    """Message by message: outcomes come through the inbox, into which these tests write."""
    return {"continuation": 0}


@all_databases()
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_the_log_imports_nothing(engine, text, monkeypatch):
    """
    A class path in the log is looked up among imported modules, and is never called: the run is blocked,
    or gets an error in place of the unknown one.
    """
    imported: list[str] = []
    run = engine.start(awaits_an_order)
    drive(engine, run.id)
    work(engine, run)
    with engine.store.begin() as tx:
        tx.execute(sa.update(inbox).where(inbox.c.run_id == run.id).values(value=text))
    monkeypatch.setattr("builtins.__import__", noting(imported, __import__))

    settle(engine, run)

    assert "antigravity" not in sys.modules
    assert {"antigravity", "pickle", "_pickle"}.isdisjoint(imported)
    if '"exception"' in text:
        assert type(run.result()) is StepFailed
    else:
        assert run.status == "blocked"


def noting(names: list[str], import_: Any) -> Any:
    def note(name: str, *args: Any, **kwargs: Any) -> Any:
        names.append(name)
        return import_(name, *args, **kwargs)

    return note


def test_a_class_that_is_gone_blocks_the_run_until_it_is_back(engine, monkeypatch):
    """The diff names the class; nothing of the run is lost."""
    run = engine.start(awaits_an_order)
    drive(engine, run.id)
    module = sys.modules[__name__]
    work(engine, run)
    monkeypatch.delattr(module, "Order")
    drive(engine, run.id)
    assert run.status == "blocked"
    assert f"module '{__name__}' has no class Order any more" in describe.describe(engine, run.id)["error"]

    monkeypatch.undo()
    operate.retry(engine, run.id)
    settle(engine, run)
    assert run.result() == ORDER
