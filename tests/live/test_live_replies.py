"""Questions in real processes: workers and callers are killed between the payload and the reply."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from eventually import eventually
from pools import own_flows
from processes import Deployment, deployed, fetch, post_json
from servers import new_broker, new_database

from durable.store.schema import requests

pytestmark = pytest.mark.live

SERVERS = [("postgresql", "redis"), ("mariadb", "rabbitmq")]
CONTROL = "/.well-known/workflow/v1/hooks"


@pytest.fixture
def flows() -> Iterator[Any]:
    with own_flows("replying_flows") as module:
        yield module


@pytest.fixture
def settings() -> dict[str, str]:
    """What the processes find in their environment; a test may change it between two starts."""
    return {"DURABLE_RESEND_AFTER": "1"}


@pytest.fixture(params=SERVERS, ids="-".join)
def site(request: pytest.FixtureRequest, settings: dict[str, str], tmp_path: Path) -> Iterator[Deployment]:
    database, broker = request.param
    with new_database(database, tmp_path) as database_url, new_broker(broker, tmp_path) as broker_url:
        described = Deployment(
            tmp_path, database_url, broker_url, "replying_app", "replying_app:create_app()", settings
        )
        with deployed(described) as made:
            yield made


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def is_asked(site: Deployment) -> bool:
    with site.engine.store.read() as tx:
        return tx.execute(sa.select(requests.c.id).limit(1)).first() is not None


def ask(threads: ThreadPoolExecutor, flows: Any, token: str, name: str) -> Future[Any]:
    return threads.submit(flows.visits.ask, token, flows.Visit(name), wait="30s", timeout="60s")


def test_a_worker_is_killed_between_the_payload_and_the_reply(site, flows, threads, tmp_path):
    """With kill -9, while its step is about to reply: the caller waits on, and another worker's attempt replies."""
    held = tmp_path / "held-ann"
    held.touch()
    site.start_worker()
    run = site.engine.start(flows.busy_porter, "door", str(tmp_path))
    asking = ask(threads, flows, "door", "ann")
    eventually(lambda: (tmp_path / "held-ann.1").exists(), 30, "the first attempt is there")
    site.stop("worker", signal.SIGKILL)
    assert not asking.done()
    site.start_worker("second")
    assert asking.result(60) == flows.Greeting("hello ann", 2)
    assert run.result(timeout="30s") is True


@pytest.mark.parametrize("point", ["turn.committed", "turn.read"])
def test_a_worker_crashes_around_the_turn_that_replies(site, flows, threads, settings, point):
    """Before the turn is decided, or once it is committed and nobody is notified: one reply, and one only."""
    settings["DURABLE_FAILPOINTS"] = f"{point}=crash@2"
    worker = site.start_worker("worker", "--pool", "solo")
    run = site.engine.start(flows.porter, "gate", "bob")
    first = ask(threads, flows, "gate", "ann")
    eventually(lambda: not worker.running, 30, "the worker has crashed")
    settings.pop("DURABLE_FAILPOINTS")
    site.start_worker("second", "--pool", "solo")
    assert first.result(60) == flows.Greeting("hello ann", 1)
    second = ask(threads, flows, "gate", "bob")
    assert second.result(60) == flows.Greeting("hello bob", 2)
    assert run.result(timeout="30s") == 2
    assert [event.kind for event in run.events()].count("reply_sent") == 2


def test_a_step_has_replied_and_its_worker_dies_before_it_says_so(site, flows, threads, settings, tmp_path):
    """The reply is recorded, so the caller finds it without a notification; the next attempt's reply is refused."""
    settings["DURABLE_FAILPOINTS"] = "response.recorded=crash@1"
    worker = site.start_worker("worker", "--pool", "solo")
    run = site.engine.start(flows.busy_porter, "door", str(tmp_path))
    asking = ask(threads, flows, "door", "ann")
    assert asking.result(60) == flows.Greeting("hello ann", 1)
    eventually(lambda: not worker.running, 30, "the worker has crashed")
    settings.pop("DURABLE_FAILPOINTS")
    site.start_worker("second", "--pool", "solo")
    assert run.result(timeout="60s") is False


def test_a_caller_that_is_killed_loses_nothing(site, flows, tmp_path):
    """The web process dies while it holds the caller; the run gets the payload, and its reply can be polled."""
    site.start_web()
    run = site.engine.start(flows.porter, "gate", "ann")
    site.start_worker()
    eventually(lambda: run.hooks(), 30, "the hook is open")
    site.stop("worker", signal.SIGKILL)
    with ThreadPoolExecutor(1) as caller:
        asking = caller.submit(
            post_json, f"{site.url}{CONTROL}/ask", {"token": "gate", "payload": {"name": "ann"}, "timeout": 55}
        )
        eventually(lambda: is_asked(site), 30, "the payload is recorded")
        site.stop("web", signal.SIGKILL)
        with pytest.raises((OSError, HTTPException)):
            asking.result(30)
    site.start_worker("second")
    assert run.result(timeout="60s") == 1
    with site.engine.store.read() as tx:
        request_id = tx.execute(sa.select(requests.c.id)).scalar_one()
    site.start_web()
    polled = fetch("GET", f"{site.url}{CONTROL}/replies/{request_id}")
    assert (polled.status, polled.json()["reply"]) == (200, {"text": "hello ann", "number": 1})


def test_views_and_control_routes_reply_at_once(site, flows, threads):
    """Twenty callers at the same time, half of them through a view that asks, half through the control route."""
    site.start_web()
    site.start_worker()
    run = site.engine.start(flows.porter, "gate", "last")
    eventually(lambda: run.hooks(), 30, "the hook is open")

    def call(number: int) -> Any:
        if number % 2:
            return post_json(f"{site.url}/visit/gate", {"name": f"n{number}"}).json()
        body = {"token": "gate", "payload": {"name": f"n{number}"}}
        return post_json(f"{site.url}{CONTROL}/ask", body).json()["reply"]

    assert call(0)["text"] == "hello n0"  # the connections are made
    found = list(threads.map(call, range(1, 21)))
    assert [each["text"] for each in found] == [f"hello n{number}" for number in range(1, 21)]
    assert sorted(each["number"] for each in found) == list(range(2, 22))
    assert call(99)["number"] == 22
    site.engine.get_run(run.id).cancel()


def test_a_run_that_is_cancelled_by_another_process_releases_its_callers(site, flows, threads):
    """At once, although they would wait for a minute: also one that a web process holds."""
    site.start_web()
    site.start_worker()
    run = site.engine.start(flows.busy_porter, "door", "/nonexistent")
    eventually(lambda: run.hooks(), 30, "the hook is open")
    site.stop("worker", signal.SIGKILL)
    held = threads.submit(
        post_json, f"{site.url}{CONTROL}/ask", {"token": "door", "payload": {"name": "ann"}, "timeout": 55}
    )
    here = ask(threads, flows, "door", "bob")
    eventually(lambda: count(site) == 2, 30, "both are recorded")
    run.cancel()
    site.start_worker("second")
    error = here.exception(30)
    assert "was cancelled before it replied" in str(error)
    assert (held.result(30).status, held.result(30).json()["code"]) == (409, "reply-not-sent")


def count(site: Deployment) -> int:
    with site.engine.store.read() as tx:
        return int(tx.execute(sa.select(sa.func.count()).select_from(requests)).scalar_one())
