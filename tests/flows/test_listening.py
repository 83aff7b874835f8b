"""Hooks and webhooks on every database: payloads in, tokens held, requests answered."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from driving import all_databases, kinds, settle

from durable import (
    Durable,
    HookClosed,
    HookConflict,
    HookNotFound,
    Request,
    Response,
    Run,
    create_hook,
    create_webhook,
    race,
    sleep,
    step,
    workflow,
)
from durable.web import record_request

pytestmark = all_databases()


# Hooks.


@workflow
async def takes(token: str, count: int) -> list[Any]:
    hook = create_hook(token=token, metadata={"for": "tests"})
    return [await hook for _ in range(count)]


def test_c45_payloads_come_in_the_order_in_which_they_were_sent(engine, token):
    """Also those that come before the workflow awaits them."""
    run = engine.start(takes, token, 5)
    settle(engine, run)
    for number in range(5):
        assert engine.resume_hook(token, {"number": number}) == run
    settle(engine, run)

    assert run.result() == [{"number": number} for number in range(5)]


def test_concurrent_payloads_are_all_taken_once(engine, token):
    """Twenty threads at once: each payload arrives exactly once."""
    run = engine.start(takes, token, 20)
    settle(engine, run)
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(lambda number: engine.resume_hook(token, number), range(20)))
    settle(engine, run)

    assert sorted(run.result()) == list(range(20))


def test_c55_a_hook_can_be_looked_at_while_it_is_open(engine, token):
    """Its run and metadata; a closed one is not found, and takes nothing."""
    run = engine.start(takes, token, 1)
    settle(engine, run)
    found = engine.get_hook(token)
    assert (found.run_id, found.metadata, found.is_webhook) == (run.id, {"for": "tests"}, False)

    engine.resume_hook(token, 1)
    settle(engine, run)

    with pytest.raises(HookNotFound):
        engine.get_hook(token)
    with pytest.raises(HookNotFound):
        engine.resume_hook(token, 2)
    assert run.result() == [1]


@workflow
async def asks(token: str) -> Any:
    hook = create_hook(token=token)
    owner = await hook.get_conflict()
    try:
        return owner, await hook
    except HookConflict as conflict:
        return owner, conflict.run_id


def test_c47_a_token_has_one_owner(engine, token):
    """A second run learns the owner's id; any run may take the token once it is free."""
    owner = engine.start(asks, token)
    settle(engine, owner)
    second = engine.start(asks, token)
    settle(engine, second)

    assert list(second.result()) == [owner.id, owner.id]
    engine.resume_hook(token, "mine")
    settle(engine, owner)
    assert list(owner.result()) == [None, "mine"]
    third = engine.start(asks, token)
    settle(engine, third)
    assert engine.get_hook(token).run_id == third.id


@workflow
async def uses_again(token: str) -> Any:
    with create_hook(token=token) as first:
        one = await first
    second = create_hook(token=token)
    assert await second.get_conflict() is None
    two = await second
    try:
        await first
    except HookClosed:
        return one, two
    return "a closed hook gave something"


def test_c46_a_token_goes_from_one_hook_to_the_next_in_one_turn(engine, token):
    """Closed and created again in one go: no conflict with oneself."""
    run = engine.start(uses_again, token)
    settle(engine, run)
    engine.resume_hook(token, 1)
    settle(engine, run)
    engine.resume_hook(token, 2)
    settle(engine, run)

    assert list(run.result()) == [1, 2]


@workflow
async def races(token: str) -> Any:
    hook = create_hook(token=token)

    async def listen() -> Any:
        return await hook

    async def tire() -> str:
        await sleep("20ms")
        return "tired"

    return await race(listen(), tire()), await hook


def test_c53_a_lost_race_swallows_no_payload(engine, token):
    """What comes after the sleep won is there for the next await."""
    run = engine.start(races, token)
    settle(engine, run)
    engine.resume_hook(token, "late")
    settle(engine, run)

    assert list(run.result()) == ["tired", "late"]


# Webhooks.


@step
def reply(request: Request) -> str:
    """Two replies: the first one wins."""
    answers = [
        request.respond_with(Response(request.data, 201, content_type="application/x-echo")),
        request.respond_with("too late"),
    ]
    assert answers == [True, False]
    return request.text()


@workflow
async def serves(mode: str) -> Any:
    webhook = create_webhook(respond_with="manual")
    taken = []
    async for request in webhook:
        taken.append(request.id)
        if mode == "echo":
            return await reply(request)
        if mode == "fail":
            raise ValueError("no reply")
        if mode == "forget":
            break
        if mode == "sit":
            await sleep("1h")
    return taken


@pytest.fixture
def listen(engine: Durable) -> Callable[[str], tuple[Run[Any], Callable[..., str]]]:
    """Starts a run that listens; a function that puts a request into its webhook, and tells the request's id."""

    def start(mode: str) -> tuple[Run[Any], Callable[..., str]]:
        run = engine.start(serves, mode)
        settle(engine, run)
        (hook,) = run.hooks()
        row = record_request.find_webhook(engine, hook["token"])
        assert row is not None

        def send(body: bytes = b"") -> str:
            request = Request(id=secrets.token_urlsafe(18), method="POST", url=hook["url"], data=body)
            assert request.id is not None
            record_request.accept_request(engine, row, request, holder="")
            return request.id

        return run, send

    return start


def answered(engine: Durable, request_id: str) -> tuple[int, bytes] | None:
    found = record_request.answers(engine, [request_id]).get(request_id)
    return None if found is None else (found.status, found.body)


def status(engine: Durable, request_id: str) -> int | None:
    found = answered(engine, request_id)
    return None if found is None else found[0]


def test_c63_a_step_answers_exactly(engine, listen):
    """Bytes 0 to 255 there and back."""
    run, send = listen("echo")
    body = bytes(range(256))
    request_id = send(body)
    assert answered(engine, request_id) is None
    settle(engine, run)

    assert answered(engine, request_id) == (201, body)
    assert run.result() == body.decode("utf-8", "replace")


@pytest.mark.parametrize("mode", ["fail", "forget"])
def test_c65_a_run_that_ends_answers_what_it_took_and_what_it_did_not(engine, listen, mode):
    """500 to the one that it took and forgot, 410 to those still queued."""
    run, send = listen(mode)
    taken, queued = send(b"1"), send(b"2")
    settle(engine, run)

    assert run.status == ("failed" if mode == "fail" else "completed")
    assert [status(engine, request_id) for request_id in (taken, queued)] == [500, 410]
    with pytest.raises(HookClosed):
        send(b"3")


def test_c65_a_cancelled_run_answers_503(engine, listen):
    """To what it took and to what it did not."""
    run, send = listen("sit")
    held = [send(b"1"), send(b"2")]
    settle(engine, run)
    assert [status(engine, request_id) for request_id in held] == [None, None]

    run.cancel()
    settle(engine, run)

    assert run.status == "cancelled"
    assert [status(engine, request_id) for request_id in held] == [503, 503]


def test_c53_what_was_accepted_as_the_run_ended_is_in_its_log(engine, listen):
    """Every request that was accepted is in the log once, and has an answer."""
    run, send = listen("forget")
    ids = [send(str(number).encode()) for number in range(5)]
    settle(engine, run)

    assert kinds(run).count("hook_received") == 5
    assert sorted(event.request_id for event in run.events() if event.kind == "hook_received") == sorted(ids)
    assert all(status(engine, request_id) is not None for request_id in ids)
