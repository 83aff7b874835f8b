"""Values on their way through the databases: what arrives is what was sent, with its types, by copy."""

from __future__ import annotations

import secrets
from decimal import Decimal
from typing import Any

import pytest
from driving import all_databases, settle
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from values import VALUES, form

from durable import Durable, Request, Response, Run, codec, create_hook, create_webhook, step, workflow
from durable import events as log_events
from durable.client import describe
from durable.store import run_log
from durable.web import record_request

MIB = 1024 * 1024
LARGE = {"text": "null byte \0" + "x" * (2 * MIB), "bytes": bytes(range(256)) * 4096}

quick = settings(
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.nested_given],
)


# Every value, through every place.


def arbitrary(examples: int, size: int) -> list[list[Any]]:
    """Lists of values as Hypothesis makes them."""
    drawn: list[list[Any]] = []

    @settings(quick, max_examples=examples, database=None)
    @given(st.lists(VALUES, min_size=size, max_size=size))
    def draw(values: list[Any]) -> None:
        drawn.append(values)

    draw()
    return drawn


@all_databases()
def test_c33_a_log_gives_back_what_it_was_given(engine):
    """Hundreds of arbitrary values, written as events and read again by the same transaction."""
    run_id = secrets.token_hex(16)
    seqs = iter(range(1, 1000))

    with engine.store.begin() as tx:

        @settings(quick, max_examples=300)
        @given(VALUES)
        def crosses(value: Any) -> None:
            seq = next(seqs)
            text = codec.encode(value)
            told = log_events.StepCompleted(at=seq, seq=seq, op_id=f"r#{seq}", attempt=1, started_at=0, result=text)
            run_log.append(tx, run_id, [told])
            (read,) = run_log.read(tx, run_id, after=seq - 1, upto=seq)
            assert read == told
            assert form(codec.decode(read.result)) == form(value)

        crosses()
        tx.rollback()
    assert next(seqs) > 300


#: What each place has seen of the values of a run, by place and run.
seen: dict[tuple[str, str], Any] = {}


@step
def returns_values(key: str, values: list[Any]) -> list[Any]:
    seen["step", key] = values
    return values


@workflow
async def every_hop(key: str, values: list[Any]) -> list[Any]:
    seen["workflow", key] = values
    returned = await returns_values(key, values)
    seen["step result", key] = returned
    hook = create_hook(token=key, metadata=returned)
    seen["payload", key] = payload = await hook
    return payload


HOPS = ("workflow", "step", "step result", "payload")


def send_through_every_hop(engine: Durable, key: str, values: list[Any]) -> Run[Any]:
    run = engine.start(every_hop, key, values)
    settle(engine, run)
    seen["metadata", key] = engine.get_hook(key).metadata
    engine.resume_hook(key, values)
    settle(engine, run)
    seen["result", key] = run.result()
    return run


@all_databases()
def test_c33_arbitrary_values_make_all_hops(engine, token):
    """Argument, step argument, step result, payload, metadata and result: equal, with types and signs."""
    for number, values in enumerate(arbitrary(examples=8, size=40)):
        key = f"{token}-{number}"
        send_through_every_hop(engine, key, values)

        for hop in (*HOPS, "metadata", "result"):
            assert form(seen[hop, key]) == form(values), hop


@all_databases()
@pytest.mark.parametrize("kind", LARGE)
def test_c33_nul_and_large_payloads_make_all_hops(engine, token, kind):
    """A text that begins with a NUL, and a MiB of every byte."""
    send_through_every_hop(engine, token, [LARGE[kind]])

    for hop in (*HOPS, "metadata", "result"):
        assert seen[hop, token] == [LARGE[kind]], hop


def test_every_value_can_be_looked_at_from_outside(engine, token):
    """Arguments, result and metadata are plain JSON for the command line, whatever they consist of."""
    values = [b"x", {1: {2, 3}}, Decimal("1.5"), ValueError("no"), Response("x"), Run("r")]
    run = engine.start(every_hop, token, values)
    settle(engine, run)

    (hook,) = run.hooks()
    shown = describe.describe(engine, run.id)
    engine.resume_hook(token, values)
    settle(engine, run)

    assert hook["metadata"] == shown["args"]["values"] == describe.describe(engine, run.id)["result"]
    assert hook["metadata"][:4] == ["eA==", {"1": [2, 3]}, "1.5", {"type": "ValueError", "message": "no"}]


@workflow
async def tells_of_a_request() -> Any:
    request = await create_webhook()
    return await create_hook(token=f"about-{request.text()}", metadata={"request": request})


@all_databases()
def test_a_recorded_request_may_stand_in_metadata(engine, token):
    """The hook's metadata contains the whole request."""
    run = engine.start(tells_of_a_request)
    settle(engine, run)
    row = record_request.find_webhook(engine, run.hooks()[0]["token"])
    record_request.accept_request(
        engine, row, Request("POST", "/x", data=token.encode(), id=secrets.token_hex(9)), holder=None
    )
    settle(engine, run)

    assert engine.get_hook(f"about-{token}").metadata["request"].text() == token


# By copy.


@step
def appends(items: list[int]) -> list[int]:
    items.append(4)
    return items


@workflow
async def keeps_its_own(items: list[int]) -> Any:
    mine = [1, 2, 3]
    longer = await appends(mine)
    longer.append(5)
    return mine, longer, items


def test_c35_a_step_changes_its_own_copy(engine):
    """What a step does to an argument is not seen in the workflow, nor what the caller does after the start."""
    given = [0]
    run = engine.start(keeps_its_own, given)
    given.append(1)
    settle(engine, run)

    assert run.result() == ([1, 2, 3], [1, 2, 3, 4, 5], [0])
