"""Webhooks over HTTP on every database: a Flask client sends, this process plays the worker."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, settle, settle_family
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from durable import (
    Durable,
    FatalError,
    Request,
    Response,
    Run,
    RunFailed,
    create_hook,
    create_webhook,
    get_step_metadata,
    race,
    sleep,
    step,
    workflow,
)
from durable.attempts.outcome import give_up
from durable.store import claimed_attempts
from durable.store.requests import load
from durable.store.schema import requests, waits
from durable.turns import wake
from durable.turns.drive import drive
from durable.web import create_blueprint

BASE = "https://hooks.test"


@pytest.fixture
def client(engine: Durable) -> FlaskClient:
    """A sender: posts to the blueprint of an application."""
    app = flask.Flask("flows")
    app.register_blueprint(create_blueprint(engine))
    return app.test_client()


def path(url: str) -> str:
    return url.removeprefix(BASE)


def urls(run: Run[Any]) -> list[str]:
    """The URLs of the run's open webhooks, in the order of their creation."""
    return [hook["url"] for hook in run.hooks() if hook["is_webhook"]]


def recorded(engine: Durable, run: Run[Any]) -> dict[str, bytes]:
    """The run's requests: bodies by id."""
    with engine.store.read() as tx:
        ids = list(tx.execute(sa.select(requests.c.id).where(requests.c.run_id == run.id)).scalars())
        return {request_id: request.data for request_id, request in load(tx, ids).items()}


@contextmanager
def held(engine: Durable, run: Run[Any], *posts: Callable[[], TestResponse]) -> Iterator[list[Any]]:
    """Send, and go on once all are recorded: futures of their answers."""
    before = len(recorded(engine, run))
    with ThreadPoolExecutor(len(posts)) as threads:
        sent = [threads.submit(post) for post in posts]
        pause = threading.Event()
        while len(recorded(engine, run)) < before + len(posts):
            assert not any(future.done() and future.exception() for future in sent)
            pause.wait(0.005)
        yield sent


@step
def look(request: Request) -> dict[str, Any]:
    return {"method": request.method, "url": request.url, "data": request.data}


@step
def answer(request: Request) -> str:
    request.respond_with(Response(b"answer to " + request.data, content_type="text/plain"))
    return request.text()


# Ways to answer


@workflow
async def three_webhooks() -> list[Any]:
    default = create_webhook()
    static = create_webhook(respond_with=Response("pay first", 402), methods=("PUT",))
    manual = create_webhook(respond_with="manual")
    first = await look(await default)
    second = await look(await static)
    request = await manual
    return [first, second, await look(request), await answer(request)]


@all_databases()
def test_c57_three_webhooks_in_one_run(engine, client):
    """202 with nothing, the Response given, what a step says; method, URL and body are recorded as sent."""
    run = engine.start(three_webhooks)
    settle(engine, run)
    assert [hook["is_webhook"] for hook in run.hooks()] == [True] * 3
    default, static, manual = map(path, urls(run))

    one = client.post(f"{default}?a=%20b", data=b"\x00\xff")
    two = client.put(static, data=b"two")
    with held(engine, run, lambda: client.post(manual, data=b"three")) as (three,):
        settle(engine, run)

    assert (one.status_code, one.data) == (202, b"")
    assert (two.status_code, two.data) == (402, b"pay first")
    assert (three.result().status_code, three.result().data) == (200, b"answer to three")
    assert run.result(timeout=1) == [
        {"method": "POST", "url": f"http://localhost{default}?a=%20b", "data": b"\x00\xff"},
        {"method": "PUT", "url": f"http://localhost{static}", "data": b"two"},
        {"method": "POST", "url": f"http://localhost{manual}", "data": b"three"},
        "three",
    ]


@step
def answer_with(request: Request) -> None:
    """What the sender asks for by its body."""
    answers = {
        b"204": Response.empty(),
        b"304": Response(b"", 304, {"ETag": '"7"'}),
        b"large": Response(b"x" * 900 * 1024),
        b"cookies": Response("ok", headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]),
        b"redirect": Response.redirect("https://elsewhere.test/?q=1"),
    }
    request.respond_with(answers[request.data])


@workflow
async def answers_each() -> None:
    async for request in create_webhook(respond_with="manual"):
        await answer_with(request)


@pytest.mark.parametrize(
    ("asked", "status", "size"),
    [("204", 204, 0), ("304", 304, 0), ("large", 200, 900 * 1024), ("cookies", 200, 2), ("redirect", 303, None)],
)
def test_c66_answers_of_every_shape(engine, client, asked, status, size):
    """No body with 204 and 304, large ones, repeated headers, redirects: as the step gave them."""
    run = engine.start(answers_each)
    settle(engine, run)

    with held(engine, run, lambda: client.post(path(urls(run)[0]), data=asked.encode())) as (sent,):
        settle(engine, run)

    assert sent.result().status_code == status
    assert size is None or len(sent.result().data) == size
    assert sent.result().headers.getlist("Set-Cookie") == (["a=1", "b=2"] if asked == "cookies" else [])
    assert asked != "redirect" or sent.result().headers["Location"] == "https://elsewhere.test/?q=1"


# Tokens


@workflow
async def listens(how: str) -> Any:
    async for request in create_webhook():
        if how == "fails":
            raise ValueError(request.text())
        if how == "returns":
            return request.text()
        break
    return await create_hook()


@all_databases()
@pytest.mark.parametrize("how", ["returns", "fails", "breaks", "is cancelled"])
def test_c62_c64_a_webhook_that_is_over_is_410(engine, client, how):
    """After its run has ended, however that came, and after the loop was left: told at once, nothing recorded."""
    run = engine.start(listens, how)
    settle(engine, run)
    (url,) = urls(run)
    if how == "is cancelled":
        run.cancel()
    else:
        assert client.post(path(url), data=b"x").status_code == 202
    settle(engine, run)
    before = recorded(engine, run)

    late = client.post(path(url), data=b"late")

    assert (late.status_code, late.content_type) == (410, "application/problem+json")
    assert recorded(engine, run) == before
    assert run.status == {"returns": "completed", "fails": "failed", "is cancelled": "cancelled"}.get(how, "running")


@workflow
async def two_webhooks() -> list[str]:
    first, second = create_webhook(), create_webhook()
    of_second = (await second).text()
    return [(await first).text(), of_second]


def test_c64_two_webhooks_of_one_run_keep_their_requests_apart(engine, client):
    """Each has a token of its own, and gets what was sent to it."""
    run = engine.start(two_webhooks)
    settle(engine, run)
    first, second = map(path, urls(run))
    assert first != second

    client.post(first, data=b"for the first")
    client.post(second, data=b"for the second")
    settle(engine, run)

    assert run.result(timeout=1) == ["for the first", "for the second"]


def test_c64_a_token_is_not_found_by_guessing(engine, client):
    """256 random bits: neither a part of a token, nor one that differs in a character, is anything."""
    run = engine.start(two_webhooks)
    settle(engine, run)
    token = run.hooks()[0]["token"]
    assert len(token) == 43

    swapped = token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]
    near = [token[:-1], token + "A", swapped, token.swapcase(), token[::-1]]

    assert {client.post(path(urls(run)[0]).replace(token, guess)).status_code for guess in near} == {404}
    assert recorded(engine, run) == {}


clients: dict[str, FlaskClient] = {}


@step
def call(url: str, body: str) -> int:
    """What an outside service does with a URL that it was given."""
    return int(clients["now"].post(path(url), data=body).status_code)


@workflow
async def calls(url: str) -> int:
    return await call(url, "from the child")


@workflow
async def calls_what_it_is_sent(token: str) -> int:
    told = await create_hook(token=token)
    return await call(told["url"], "from the receiver of the URL")


@workflow
async def gives_its_url_away(token: str) -> list[Any]:
    webhook = create_webhook()
    child = calls(webhook.url)
    await call(webhook.url, "from the first step")
    heard = [(await webhook).text(), (await webhook).text(), (await webhook).text()]
    return [sorted(heard), await child]


@all_databases()
def test_c64_c56_a_url_may_be_given_away_at_once(engine, client):
    """To the first step, to a child run, in a payload: it works from the moment that anybody could see it."""
    clients["now"] = client
    token = secrets.token_hex(8)
    run, other = engine.start(gives_its_url_away, token), engine.start(calls_what_it_is_sent, token)
    settle(engine, run, other)
    child = engine.get_run(next(e.run_id for e in run.events() if e.kind == "child_created"))

    engine.resume_hook(token, {"url": urls(run)[0]})
    settle(engine, other, child, run)
    settle(engine, run)

    assert other.result(timeout=1) == 202
    assert run.result(timeout=1) == [
        ["from the child", "from the first step", "from the receiver of the URL"],
        202,
    ]


# Many at once


@workflow
async def answers_many(count: int) -> list[str]:
    taken = []
    async for request in create_webhook(respond_with="manual"):
        taken.append(await answer(request))
        if len(taken) == count:
            break
    return taken


@all_databases()
def test_c65_requests_at_once_are_answered_each_by_its_own(engine, client):
    """Twelve connections held together: every sender gets its answer, and the log has each request once, in order."""
    run = engine.start(answers_many, 12)
    settle(engine, run)
    (url,) = urls(run)
    bodies = [b"%d" % number for number in range(12)]

    def post(body: bytes) -> Callable[[], TestResponse]:
        return lambda: client.application.test_client().post(path(url), data=body)

    with held(engine, run, *map(post, bodies)) as sent:
        settle(engine, run)

    assert [future.result().data for future in sent] == [b"answer to " + body for body in bodies]
    known = recorded(engine, run)
    told = [known[event.request_id].decode() for event in run.events() if event.kind == "hook_received"]
    assert run.result(timeout=1) == told
    assert sorted(told) == sorted(body.decode() for body in bodies)


# Faults of the step that answers


@step(retry_backoff=0.01)
def answers_then_fails(request: Request) -> list[Any]:
    attempt = get_step_metadata().attempt
    first = request.respond_with(f"attempt {attempt}")
    if attempt == 1:
        raise ConnectionError("after the answer")
    return [attempt, first]


@workflow
async def answered_by_a_retried_step() -> list[Any]:
    return await answers_then_fails(await create_webhook(respond_with="manual"))


@all_databases()
def test_c66_a_step_that_is_retried_after_its_answer_answers_once(engine, client):
    """The sender has what the first attempt said; the second is told that it was not the first."""
    run = engine.start(answered_by_a_retried_step)
    settle(engine, run)

    with held(engine, run, lambda: client.post(path(urls(run)[0]))) as (sent,):
        settle(engine, run)

    assert sent.result().data == b"attempt 1"
    assert run.result(timeout=1) == [2, False]


@workflow
async def has_it_answered(request: Request) -> str:
    return await answer(request)


@workflow
async def hands_it_to_a_child() -> str:
    return await has_it_answered(await create_webhook(respond_with="manual"))


@all_databases()
def test_c66_a_step_of_a_child_answers_its_parents_request(engine, client):
    """Whose run the request came to does not matter to the step that answers it."""
    run = engine.start(hands_it_to_a_child)
    settle(engine, run)

    with held(engine, run, lambda: client.post(path(urls(run)[0]), data=b"child")) as (sent,):
        settle_family(engine, run)

    assert sent.result().data == b"answer to child"
    assert run.result(timeout=1) == "child"


engines: dict[str, Any] = {}


@step(retry_backoff=0)
def loses_its_process(request: Request, when: str) -> list[Any]:
    metadata, engine = get_step_metadata(), engines["now"]
    early = request.respond_with("early") if when == "after" else None
    if metadata.attempt == 1:
        with engine.store.read() as tx:
            mine = claimed_attempts.find(tx, metadata.run_id, metadata.step_id)
        assert mine is not None
        give_up(engine, mine)  # as the sweep does, once the process is gone
    return [metadata.attempt, early, request.respond_with(f"attempt {metadata.attempt}")]


@workflow
async def answered_by_a_lost_attempt(when: str) -> list[Any]:
    return await loses_its_process(await create_webhook(respond_with="manual"), when)


@all_databases()
@pytest.mark.parametrize(
    ("when", "body", "result"),
    [("before", b"attempt 2", [2, None, True]), ("after", b"early", [2, False, False])],
)
def test_c66_an_attempt_whose_process_is_lost_answers_no_more(engine, client, when, body, result):
    """Lost before its answer: the next attempt answers.  Lost after it: the answer stands."""
    engines["now"] = engine
    run = engine.start(answered_by_a_lost_attempt, when)
    settle(engine, run)

    with held(engine, run, lambda: client.post(path(urls(run)[0]))) as (sent,):
        settle(engine, run)

    assert sent.result().data == body
    assert run.result(timeout=1) == result
    assert kinds(run).count("step_retrying") == 1


# Deadlines


@workflow
async def verification(limit: str) -> dict[str, Any]:
    webhook = create_webhook(respond_with="manual")

    async def callback() -> dict[str, Any]:
        async for request in webhook:
            return {"status": "verified", "body": await answer(request)}
        raise FatalError("Webhook closed without callback")

    async def deadline() -> dict[str, Any]:
        await sleep(limit)
        return {"status": "timed_out"}

    return await race(callback(), deadline())


def ring(engine: Durable, run: Run[Any]) -> bool:
    """End the run's only sleep, which is due."""
    with engine.store.read() as tx:
        (wait,) = tx.execute(sa.select(waits).where(waits.c.run_id == run.id)).all()
    pause = threading.Event()
    while engine.now() < wait.due_at:
        pause.wait(0.002)
    return wake.fire(engine, run.id, wait.op_id)


@workflow
async def first_of_both(limit: str) -> str:
    """The run ends with the one that came first."""
    webhook = create_webhook(respond_with="manual")

    async def callback() -> str:
        return (await webhook).text()

    async def deadline() -> str:
        await sleep(limit)
        return "timed out"

    return await race(callback(), deadline())


@all_databases()
def test_c67_a_request_at_the_very_deadline_that_came_first_wins(engine, client):
    """The request and the end of the sleep are news of one turn: the run ends, once, with the request."""
    run = engine.start(first_of_both, "20ms")
    drive(engine, run.id)

    with held(engine, run, lambda: client.post(path(urls(run)[0]), data=b"in time")) as (sent,):
        assert ring(engine, run)
        settle(engine, run)

    assert run.result(timeout=1) == "in time"
    assert sent.result().status_code == 500  # taken, and not answered
    assert kinds(run).count("run_completed") == 1


@all_databases()
def test_c67_a_request_at_the_very_deadline_that_came_second_loses(engine, client):
    """The sleep was over first: the request, which was accepted, is told that it is not wanted."""
    run = engine.start(verification, "20ms")
    drive(engine, run.id)

    assert ring(engine, run)
    with held(engine, run, lambda: client.post(path(urls(run)[0]), data=b"late")) as (sent,):
        settle(engine, run)

    assert run.result(timeout=1) == {"status": "timed_out"}
    assert sent.result().status_code == 410
    assert kinds(run).count("hook_received") == 1


def test_c61_a_loop_that_ends_without_a_request_is_the_authors_to_judge(engine):
    """The verification pattern, its webhook closed from elsewhere: the FatalError after the loop fails the run."""
    run = engine.start(closed_early)
    settle(engine, run)

    with pytest.raises(RunFailed, match="Webhook closed without callback") as failed:
        run.result(timeout=1)
    assert isinstance(failed.value.__cause__, FatalError)


@workflow
async def closed_early() -> None:
    webhook = create_webhook(respond_with="manual")

    async def callback() -> None:
        async for _ in webhook:
            return
        raise FatalError("Webhook closed without callback")

    async def closes() -> None:
        await sleep("5ms")
        webhook.close()
        await sleep("1h")

    await race(callback(), closes())


def test_c67_deliveries_of_one_id_are_requests_of_their_own(engine, client):
    """Without deduplication a sender that repeats itself is heard twice, in order; the id is the step's to look at."""
    run = engine.start(two_of_one)
    settle(engine, run)
    for _ in range(2):
        assert client.post(path(urls(run)[0]), headers={"webhook-id": "msg_1"}).status_code == 202
    settle(engine, run)

    assert run.result(timeout=1) == ["msg_1", "msg_1"]


@workflow
async def two_of_one() -> list[str]:
    webhook = create_webhook()
    return [(await webhook).headers["webhook-id"] for _ in range(2)]


# What a 202 means


@all_databases()
def test_c68_an_acknowledged_request_has_its_whole_body_stored(engine, client):
    """When the sender gets 202, every byte is in the database, before any worker takes a turn."""
    run = engine.start(listens, "returns")
    settle(engine, run)
    body = secrets.token_bytes(1024 * 1024)

    assert client.post(path(urls(run)[0]), data=body).status_code == 202

    assert list(recorded(engine, run).values()) == [body]
