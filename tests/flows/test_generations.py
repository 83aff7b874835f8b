"""Generations: a run that continues as new is one run to the rest of the world, and loses nothing on the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, settle, settle_family, work
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from durable import (
    Durable,
    Request,
    Response,
    Run,
    RunCancelled,
    RunConflict,
    continue_as_new,
    create_hook,
    create_webhook,
    define_hook,
    get_workflow_metadata,
    race,
    resume_hook,
    set_attributes,
    should_continue_as_new,
    sleep,
    step,
    workflow,
)
from durable.client import describe, operate
from durable.recovery.prune import prune_batch
from durable.store.schema import hooks, inbox, metadata, requests, runs
from durable.turns.drive import drive
from durable.web import create_blueprint, record_request

pytestmark = all_databases()

doing: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    doing.clear()


@pytest.fixture
def client(engine: Durable) -> FlaskClient:
    app = flask.Flask("generations")
    app.register_blueprint(create_blueprint(engine))
    return app.test_client()


def path_of(run: Run[Any]) -> str:
    (webhook,) = [each for each in run.hooks() if each["is_webhook"]]
    return str(webhook["url"]).removeprefix("https://hooks.test")


@step
def add_in_generation(total: int, more: int) -> int:
    return total + more


@workflow
async def counting_down(left: int, total: int = 0) -> int:
    set_attributes(left=str(left))
    total = await add_in_generation(total, left)
    if left:
        try:
            continue_as_new(left - 1, total=total)
        except Exception:
            doing.append("except")
        finally:
            doing.append("finally")
    return total


def settle_all(engine: Durable, run: Run[Any]) -> None:
    """Do all that a run and its later generations ask for now."""
    known = 0
    while len(found := run.generations()) > known:
        known = len(found)
        settle(engine, *found)


def test_generations_are_one_run(engine):
    """Each generation has a log of its own; result, status and attributes of the first are those of the last."""
    run = engine.start(counting_down, 3)
    settle_all(engine, run)

    generations = run.generations()
    assert run.result(0) == 6
    assert len(generations) == 4
    assert generations[0] == run
    assert [each.generations() for each in generations] == [generations] * 4
    assert [describe.describe(engine, each.id)["status"] for each in generations] == ["continued"] * 3 + ["completed"]
    assert {each.status for each in generations} == {"completed"}
    assert {each.attributes["left"] for each in generations} == {"0"}
    assert kinds(run) == [
        "run_created",
        "run_started",
        "attributes_set",
        "step_created",
        "step_completed",
        "run_continued",
    ]
    second = describe.describe(engine, generations[1].id)
    assert (second["previous_generation"], second["next_generation"]) == (run.id, generations[2].id)
    assert "except" not in doing


@workflow
async def taking_in(token: str, total: int = 0, rounds: int = 2) -> int:
    hook = create_hook(token)
    async for payload in hook:
        if payload == "end":
            return total
        total += payload
        if payload == 1 and rounds:
            continue_as_new(token, total, rounds=rounds - 1)
    return -1


def test_a_hook_goes_along_with_what_was_not_taken(engine):
    """What was not taken comes first in the next generation; a process that resumes the hook finds it at any time."""
    run = engine.start(taking_in, "taken-along")
    settle(engine, run)
    for payload in (10, 1, 20, 1, 30, 1):
        resume_hook("taken-along", payload)
    settle(engine, run)

    # The next generation has not begun, and takes payloads in.
    assert run.status == "pending"
    later = resume_hook("taken-along", "end")
    assert later == run.generations()[1]
    settle_all(engine, run)

    assert run.result(0) == 63
    assert len(run.generations()) == 3
    with engine.store.read() as tx:
        still_open = sa.select(hooks.c.run_id).where(hooks.c.token == "taken-along", hooks.c.closed_at.is_(None))
        assert tx.execute(still_open).all() == []
        ids = [each.id for each in run.generations()]
        assert tx.execute(sa.select(inbox).where(inbox.c.run_id.in_(ids))).all() == []


@step
def reply_in_generation(request: Request, number: int) -> int:
    request.respond_with(Response(f"{number}:{request.text()}"))
    return number + 1


@workflow
async def counter_page(number: int = 0) -> int:
    webhook = create_webhook(respond_with="manual", timeout=0, name="page", dedupe="X-Id", metadata={"n": number})
    async for request in webhook:
        if request.text() == "end":
            await reply_in_generation(request, number)
            return number
        number = await reply_in_generation(request, number)
        continue_as_new(number)
    return -1


def posting(client: FlaskClient, path: str) -> Callable[..., TestResponse]:
    def post(body: str, **headers: str) -> TestResponse:
        return client.post(path, data=body.encode(), headers={"X-Id": body, **headers})

    return post


def test_a_webhook_keeps_its_url_and_its_requests(engine, client):
    """Requests to one URL pass through generations in order; polls and duplicates find the answers of all of them."""
    run = engine.start(counter_page)
    settle(engine, run)
    path = path_of(run)
    post = posting(client, path)
    polls = [post(body).headers["Location"].removeprefix("https://hooks.test") for body in ("a", "b", "c")]
    settle_all(engine, run)
    polls.append(post("end").headers["Location"].removeprefix("https://hooks.test"))
    assert path_of(run) == path
    settle_all(engine, run)

    assert [client.get(poll).get_data(as_text=True) for poll in polls] == ["0:a", "1:b", "2:c", "3:end"]
    assert run.result(0) == 3
    assert len(run.generations()) == 4
    assert post("a").headers["Idempotent-Replayed"] == "true"
    assert (post("a").data, post("c").data) == (b"0:a", b"2:c")
    assert post("new").status_code == 410


def test_a_request_finds_the_webhook_of_the_next_generation(engine, client, monkeypatch):
    """A request that has found the webhook before its run continues is recorded for the next generation."""
    run = engine.start(counter_page)
    settle(engine, run)
    post = posting(client, path_of(run))
    found = record_request.find_webhook

    def find_then_continue(engine: Durable, token: str) -> Any:
        webhook = found(engine, token)
        monkeypatch.setattr(record_request, "find_webhook", found)
        post("a")
        settle(engine, run)
        assert len(run.generations()) == 2
        return webhook

    monkeypatch.setattr(record_request, "find_webhook", find_then_continue)
    assert post("b").status_code == 202
    settle_all(engine, run)

    assert len(run.generations()) == 3


@workflow
async def leaving_open(again: bool = True) -> str:
    webhook = create_webhook(respond_with="manual", timeout=0, name="open")
    payload = await create_hook(f"go:{get_workflow_metadata().name}:{again}")
    if again:
        continue_as_new(False)
    return str(payload) + webhook.url[:5]


@pytest.mark.parametrize("cancels", [False, True])
def test_what_no_generation_takes_is_answered_at_the_end(engine, client, cancels):
    """A request that went along and was never taken gets 410, or 503 when the run is cancelled."""
    run = engine.start(leaving_open)
    settle(engine, run)
    poll = posting(client, path_of(run))("a").headers["Location"].removeprefix("https://hooks.test")
    name = leaving_open.name
    resume_hook(f"go:{name}:True", None)
    settle_all(engine, run)
    assert client.get(poll).status_code == 202
    with engine.store.read() as tx:
        mine = sa.select(requests.c.handed_to).where(requests.c.run_id == run.id)
        handed = tx.execute(mine).scalars().all()
    assert handed == [run.generations()[-1].id]

    if cancels:
        assert run.cancel()
    else:
        resume_hook(f"go:{name}:False", "x")
    settle_all(engine, run)

    assert client.get(poll).status_code == (503 if cancels else 410)
    if cancels:
        with pytest.raises(RunCancelled):
            run.result(0)
    else:
        assert run.result(0) == "xhttps"


@workflow
async def passing_a_request(request: Request | None = None) -> str:
    if request is not None:
        return str(await reply_in_generation(request, 5))
    taken = await create_webhook(respond_with="manual", timeout=0, name="passed")
    continue_as_new(taken)


def test_a_request_among_the_arguments_can_be_answered(engine, client):
    """The workflow has taken it; the next generation answers it."""
    run = engine.start(passing_a_request)
    settle(engine, run)
    poll = posting(client, path_of(run))("q").headers["Location"].removeprefix("https://hooks.test")
    settle_all(engine, run)

    assert client.get(poll).data == b"5:q"
    assert run.result(0) == "6"


Verdict = define_hook(int, name="test_generations.verdict")


@workflow
async def late_opener(token: str, generation: int = 1) -> list[Any]:
    if generation == 1:
        webhook = create_webhook(name="late")
        hook: Any = Verdict.create(token)
        await create_hook(f"{token}:first")
        continue_as_new(token, 2)
    await create_hook(f"{token}:second")
    hook, webhook = Verdict.create(token), create_webhook(name="late")
    return [await hook, (await webhook).text(), await hook]


def test_a_hook_keeps_its_payloads_until_it_is_opened_again(engine, client):
    """Also when a generation opens it only after it has waited for something else, and in several turns."""
    run = engine.start(late_opener, "late")
    settle(engine, run)
    path = path_of(run)
    resume_hook("late", 1)
    resume_hook("late:first", None)
    settle_all(engine, run)
    posting(client, path)("x")
    settle_all(engine, run)
    resume_hook("late", 2)
    settle_all(engine, run)
    assert run.status == "running"
    engine.replays.close()
    resume_hook("late:second", None)
    settle_all(engine, run)

    assert run.result(0) == [1, "x", 2]


@workflow
async def in_a_race(token: str, generation: int = 1) -> Any:
    hook = create_hook(token)
    if generation > 1:
        return [await hook, await hook]

    async def slow_loser() -> None:
        try:
            await sleep("1h")
        finally:
            await sleep("1ms")

    waiting = asyncio.ensure_future(race(hook, slow_loser()))
    await create_hook(f"{token}:go")
    assert not waiting.done()
    continue_as_new(token, 2)


def test_a_payload_in_a_race_is_handed_over(engine):
    """A race that has taken a payload and not returned it yet loses nothing."""
    run = engine.start(in_a_race, "raced")
    drive(engine, run.id)
    resume_hook("raced", "a")
    resume_hook("raced", "b")
    resume_hook("raced:go", None)
    settle_all(engine, run)

    assert run.result(0) == ["a", "b"]


@workflow
async def nameless(closes: bool = False) -> str:
    hook = create_hook() if not naming["now"] else create_hook(name="found")
    payload = await create_hook(f"nameless:{closes}")
    if payload == "close":
        hook.close()
    if payload != "end":
        continue_as_new(True)
    return hook.token


naming = {"now": False}


def test_a_hook_that_cannot_be_found_again_blocks_the_run(engine):
    """Nothing is lost: with a name in the corrected code, the run goes on, and the hook goes along."""
    naming["now"] = False
    run = engine.start(nameless)
    settle(engine, run)
    token = run.hooks()[0]["token"]
    resume_hook("nameless:False", "go")
    settle(engine, run)
    assert run.status == "blocked"
    assert "without a name" in str(describe.describe(engine, run.id)["error"])

    naming["now"] = True
    operate.retry(engine, run.id)
    settle_all(engine, run)
    resume_hook("nameless:True", "end")
    settle_all(engine, run)

    assert run.result(0) == token


@workflow
async def misfitting(number: int = 0, bad: str = "count") -> int:
    if number:
        return number
    match bad:
        case "count":
            continue_as_new(*(1, 2, 3))
        case "type":
            continue_as_new("many")
        case "value":
            continue_as_new(object())
    return 0


@pytest.mark.parametrize("bad", ["count", "type", "value"])
def test_arguments_that_do_not_fit_block_the_run(engine, bad):
    """The error is recorded with the run, and names the workflow."""
    run = engine.start(misfitting, bad=bad)
    settle(engine, run)

    assert run.status == "blocked"
    assert "misfitting(number" in str(describe.describe(engine, run.id)["error"])
    run.cancel()
    settle(engine, run)


@workflow
async def child_without_end(left: int) -> str:
    if left:
        continue_as_new(left - 1)
    return str(await create_hook("child-without-end"))


@workflow
async def parent_of_generations(waits: bool) -> str:
    if waits:
        return await child_without_end(2)
    return str(await race(child_without_end(2), create_hook("given-up")))


def test_a_parent_awaits_the_last_generation(engine):
    """The child's generations have the same parent, whose await returns what the last one returns."""
    run = engine.start(parent_of_generations, True)
    settle_family(engine, run)
    resume_hook("child-without-end", "done")
    settle_family(engine, run)

    assert run.result(0) == "done"


@pytest.mark.parametrize("by", ["cancel", "race"])
def test_a_child_is_cancelled_in_its_last_generation(engine, by):
    """Whether the parent is cancelled, or gives the call up."""
    run = engine.start(parent_of_generations, by == "cancel")
    settle_family(engine, run)
    if by == "cancel":
        run.cancel()
    else:
        resume_hook("given-up", 1)
    settle_family(engine, run)

    assert run.status == ("cancelled" if by == "cancel" else "completed")
    with engine.store.read() as tx:
        children = sa.select(runs.c.status).where(runs.c.parent_run_id == run.id).order_by(runs.c.generation)
        assert tx.execute(children).scalars().all() == ["continued", "continued", "cancelled"]


@workflow
async def stubborn_generation() -> None:
    try:
        await create_hook("stubborn-generation")
    except asyncio.CancelledError:
        continue_as_new()


def test_a_run_that_was_asked_to_cancel_does_not_continue(engine):
    """``continue_as_new`` in its cleanup ends it as cancelled."""
    run = engine.start(stubborn_generation)
    settle(engine, run)
    run.cancel()
    settle_all(engine, run)

    assert run.status == "cancelled"
    assert len(run.generations()) == 1


def test_a_key_finds_the_run_in_any_generation(engine):
    """A second start returns the first generation, whose arguments are compared."""
    options = counting_down.with_options(idempotency_key="generations-once")
    run = options.start(2)
    settle_all(engine, run)

    assert options.start(2) == run
    with pytest.raises(RunConflict):
        options.start(3)


def test_only_the_first_generation_outlives_its_retention(engine):
    """While the run goes on, generations between the first and the last are pruned; afterwards all are."""
    with engine.store.begin() as tx:
        for table in metadata.sorted_tables:
            tx.execute(sa.delete(table))
    run = engine.start(child_without_end, 3)
    settle_all(engine, run)
    first, *_, last = run.generations()
    prune_batch(engine, engine.now() + 1_000_000)
    assert run.generations() == [first, last]
    assert run.status == "running"
    resume_hook("child-without-end", "x")
    settle_all(engine, run)
    assert run.result(0) == "x"

    for _ in range(2):
        prune_batch(engine, engine.now() + 1_000_000)
    assert not first.exists
    assert not last.exists


@workflow
async def by_the_log(generation: int = 1, seen: int = 0) -> list[int]:
    while not should_continue_as_new():
        seen = await add_in_generation(seen, 1)
    if generation < 3:
        continue_as_new(generation + 1, seen)
    return [generation, seen]


def test_a_long_log_asks_to_continue(engine):
    """It does so at half of ``max_events``, at the same event on every replay."""
    engine.settings = replace(engine.settings, max_events=40)
    run = engine.start(by_the_log)
    while run.status not in ("completed", "failed", "blocked"):
        engine.replays.close()  # each turn replays the whole log
        for each in run.generations():
            drive(engine, each.id)
            work(engine, each)

    assert run.result(0) == [3, 27]
    assert [len(each.events()) for each in run.generations()] == [21, 21, 21]


@workflow
async def swallowing() -> None:
    if get_workflow_metadata().run_id == doing[0]:
        with contextlib.suppress(BaseException):
            continue_as_new()
        doing.append("went on")
        await sleep("1h")


def test_the_run_ends_at_the_call_whatever_the_code_does(engine):
    """Code that catches everything, and goes on, changes nothing."""
    run = engine.start(swallowing)
    doing.append(run.id)
    settle_all(engine, run)

    assert (run.status, len(run.generations())) == ("completed", 2)


@workflow
async def in_another_task(left: int = 1) -> str:
    async def background() -> None:
        await create_hook("another-task")
        continue_as_new(left - 1)

    if left:
        async with asyncio.TaskGroup() as group:
            group.create_task(background())
            await sleep("1h")
    return "next"


def test_any_task_may_continue(engine):
    """The other tasks end where they wait, and the next generation begins."""
    run = engine.start(in_another_task)
    settle(engine, run)
    resume_hook("another-task", None)
    settle_all(engine, run)

    assert run.result(0) == "next"
    assert kinds(run)[-1] == "run_continued"
