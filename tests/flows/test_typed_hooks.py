"""Hooks whose payloads have a type: what fits is delivered as that type, what does not is refused where it is sent."""

from __future__ import annotations

import enum
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, Optional, TypedDict, Union

import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, settle
from pydantic import AfterValidator, BaseModel, Field, HttpUrl, SecretStr, field_validator

from durable import ConfigurationError, HookPayloadError, RunFailed, define_hook, step, workflow
from durable.client import describe
from durable.store.schema import inbox


@dataclass
class Approval:
    by: str
    amount: Decimal = Decimal(0)


class Address(TypedDict):
    street: str
    number: int


class Card(BaseModel):
    kind: Literal["card"]
    digits: str = Field(min_length=4, max_length=4)


class Transfer(BaseModel):
    kind: Literal["transfer"]
    iban: str

    @field_validator("iban")
    @classmethod
    def without_blanks(cls, iban: str) -> str:
        return iban.replace(" ", "")


Payment = Annotated[Union[Card, Transfer], Field(discriminator="kind")]  # noqa: UP007  as authors still write it
Percent = Annotated[int, Field(ge=0, le=100)]

KINDS = {
    "dataclass": define_hook(Approval, name="typed.approval"),
    "typed dict": define_hook(Address, name="typed.address"),
    "model": define_hook(Card, name="typed.card"),
    "union": define_hook(Payment, name="typed.payment"),
    "constraint": define_hook(Percent, name="typed.percent"),
    "optional": define_hook(Optional[Approval], name="typed.optional"),  # noqa: UP045
    "generic": define_hook(dict[str, list[Approval]], name="typed.generic"),
    "builtin": define_hook(int),
}

#: What is sent, and what the workflow gets.
FITTING: list[tuple[str, Any, Any]] = [
    ("dataclass", {"by": "kim", "amount": "1.50"}, Approval("kim", Decimal("1.50"))),
    ("dataclass", Approval("kim"), Approval("kim")),
    ("typed dict", {"street": "High", "number": "7"}, {"street": "High", "number": 7}),
    ("model", {"kind": "card", "digits": "1234"}, Card(kind="card", digits="1234")),
    ("union", {"kind": "transfer", "iban": "DE 12 34"}, Transfer(kind="transfer", iban="DE1234")),
    ("union", Card(kind="card", digits="1234"), Card(kind="card", digits="1234")),
    ("constraint", "42", 42),
    ("optional", None, None),
    ("optional", {"by": "kim"}, Approval("kim")),
    ("generic", {"all": [{"by": "kim"}]}, {"all": [Approval("kim")]}),
    ("builtin", "7", 7),
]

#: What is sent, and where pydantic finds fault with it.
UNFIT: list[tuple[str, Any, list[tuple[Any, ...]]]] = [
    ("dataclass", {"amount": 1}, [("by",)]),
    ("dataclass", {"by": 7, "amount": "much"}, [("by",), ("amount",)]),
    ("dataclass", "kim", [()]),
    ("typed dict", {"street": "High"}, [("number",)]),
    ("model", {"kind": "card", "digits": "12345"}, [("digits",)]),
    ("union", {"kind": "cash"}, [()]),
    ("union", {"kind": "card", "digits": "1"}, [("card", "digits")]),
    ("constraint", 101, [()]),
    ("optional", {"by": None}, [("by",)]),
    ("generic", {"all": [{"by": "kim"}, {}]}, [("all", 1, "by")]),
    ("builtin", "seven", [()]),
]


@workflow
async def takes(kind: str, token: str) -> Any:
    payload = await KINDS[kind].create(token=token)
    return [payload, type(payload).__name__]


@pytest.mark.parametrize("sender", ["definition", "resume_hook"])
@pytest.mark.parametrize(("kind", "sent", "expected"), FITTING)
def test_c51_what_fits_is_delivered_as_its_type(engine, token, kind, sent, expected, sender):
    """Transformed as pydantic does it, whichever way it is sent."""
    run = engine.start(takes, kind, token)
    settle(engine, run)

    if sender == "definition":
        KINDS[kind].resume(token, sent)
    else:
        engine.resume_hook(token, sent)
    settle(engine, run)

    assert run.result(timeout=1) == [expected, type(expected).__name__]


class Account(BaseModel):
    home: HttpUrl
    password: SecretStr


class Size(enum.StrEnum):
    S = "s"


ACCOUNT: dict[str, Any] = {"home": "https://shop.test/a", "password": "hunter2"}
account_hook = define_hook(Account, name="typed.account")


@step
def opens(account: Account, size: str) -> tuple[HttpUrl, Account]:
    assert isinstance(size, Size)
    return account.home, account


@workflow
async def opens_accounts(account: Account, token: str) -> Any:
    opened = await opens(account, Size.S)
    return [account, opened, await account_hook.create(token=token)]


@all_databases()
def test_pydantics_types_are_arguments_results_and_payloads(engine, token, caplog):
    """A URL and a secret arrive as they were at each place, and a StrEnum's member at a `str` parameter."""
    expected = Account(**ACCOUNT)
    run = engine.start(opens_accounts, expected, token)
    settle(engine, run)
    account_hook.resume(token, ACCOUNT)
    settle(engine, run)

    assert run.result(timeout=1) == [expected, (expected.home, expected), expected]
    assert "hunter2" not in repr(describe.describe(engine, run.id)) + caplog.text


@pytest.mark.parametrize("sender", ["definition", "resume_hook"])
@pytest.mark.parametrize(("kind", "sent", "places"), UNFIT)
def test_c51_what_does_not_fit_is_refused_and_not_recorded(engine, token, kind, sent, places, sender):
    """The error has pydantic's errors, field by field; the run goes on waiting."""
    run = engine.start(takes, kind, token)
    settle(engine, run)
    before = kinds(run)
    send = KINDS[kind].resume if sender == "definition" else engine.resume_hook

    with pytest.raises(HookPayloadError, match=token) as refused:
        send(token, sent)

    assert [error["loc"] for error in refused.value.errors] == places
    assert all(error["msg"] for error in refused.value.errors)
    settle(engine, run)
    assert kinds(run) == before


@all_databases()
def test_c51_a_refused_payload_leaves_nothing_behind(engine, token):
    """Neither in the inbox nor in the log; the next one that fits is the first."""
    run = engine.start(takes, "dataclass", token)
    settle(engine, run)

    with pytest.raises(HookPayloadError):
        engine.resume_hook(token, {})
    with engine.store.read() as tx:
        assert tx.execute(sa.select(inbox).where(inbox.c.run_id == run.id)).all() == []
    engine.resume_hook(token, {"by": "kim"})
    settle(engine, run)

    assert run.result(timeout=1) == [Approval("kim"), "Approval"]


def test_c51_an_early_sender_is_refused_when_the_hook_is_there(engine, token):
    """With wait=, the payload is held to the type of the hook that was waited for."""
    run = engine.start(takes, "constraint", token)
    with ThreadPoolExecutor(1) as threads:
        early = threads.submit(engine.resume_hook, token, 1000, "10s")
        settle(engine, run)
        with pytest.raises(HookPayloadError):
            early.result(10)

    assert "hook_received" not in kinds(run)


@step(max_retries=0)
def approve_wrongly(token: str) -> None:
    KINDS["dataclass"].resume(token, {"by": 7})


@workflow
async def sends_what_does_not_fit(token: str) -> None:
    await approve_wrongly(token)


def test_c51_the_error_crosses_from_a_step(engine, token):
    """A step that sends what does not fit fails with the error, its fields included."""
    waiting = engine.start(takes, "dataclass", token)
    settle(engine, waiting)
    run = engine.start(sends_what_does_not_fit, token)
    settle(engine, run)

    with pytest.raises(RunFailed, match="HookPayloadError") as failed:
        run.result(timeout=1)
    cause = failed.value.__cause__
    assert isinstance(cause, HookPayloadError)
    assert [error["loc"] for error in cause.errors] == [("by",)]


def test_c51_create_outside_a_workflow_raises():
    """And names the hook."""
    with pytest.raises(RuntimeError, match=r"typed\.approval\.create\(\) was called outside"):
        KINDS["dataclass"].create(token="t")


# Names


def _positive(number: int) -> int:
    assert number > 0
    return number


def test_a_kind_without_a_stable_name_wants_one():
    """The name is compared on each replay: one that holds an address would differ in every process."""
    with pytest.raises(ConfigurationError, match="name="):
        define_hook(Annotated[int, AfterValidator(_positive)])

    assert define_hook(Annotated[int, AfterValidator(_positive)], name="typed.positive").name == "typed.positive"


@pytest.mark.parametrize("name", ["", "x" * 256, "hook", "webhook", 7])
def test_names_that_no_kind_may_have(name):
    """They go into a column of 255, and hooks without a kind have names of their own."""
    with pytest.raises(ConfigurationError, match="name"):
        define_hook(int, name=name)


def test_one_name_for_two_types_is_refused():
    """Payloads are validated by the name: the first type would be forgotten silently."""
    define_hook(int, name="typed.twice")
    assert define_hook(int, name="typed.twice").name == "typed.twice"

    with pytest.raises(ConfigurationError, match=r"typed\.twice"):
        define_hook(str, name="typed.twice")


def test_a_module_with_a_kind_may_be_loaded_again(tmp_path):
    """Its types are other objects then, of the same name."""
    (tmp_path / "again.py").write_text(
        "from dataclasses import dataclass\nfrom durable import define_hook\n"
        "@dataclass\nclass Order:\n    number: int\n"
        "orders = define_hook(list[Order])\nnamed = define_hook(Order, name='orders')\n"
    )
    script = "import importlib, again; importlib.reload(again); print(again.orders.name)"

    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("list[again.Order]\n", "")
