"""Whatever is stopped or killed, and started again: runs go on as if nothing had been, and timers keep their time."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from eventually import eventually
from live_flows import answers_late, deadline, gated_orders, naps, never_answers, survives
from processes import Answer, Deployment, deployed, fetch
from servers import new_broker, new_database

from durable import Run, resume_hook
from durable.broker import embedded
from durable.store.schema import requests

pytestmark = pytest.mark.live

SECOND = 1_000_000


@pytest.fixture(scope="module", params=["postgresql-redis-prefork", "sqlite-rabbitmq-threads"])
def deployment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One worker and one web process that each test finds running, and leaves running."""
    database, broker, pool = request.param.split("-")
    folder = tmp_path_factory.mktemp(request.param)
    with new_database(database, folder) as database_url, new_broker(broker, folder) as broker_url:
        described = Deployment(
            folder,
            database_url,
            broker_url,
            "live_app",
            "live_app:create_app()",
            {"DURABLE_RESEND_AFTER": "1"},
            worker_options=("--pool", pool, "--concurrency", "2"),
        )
        with deployed(described) as made:
            yield made


@pytest.fixture
def site(deployment: Deployment) -> Deployment:
    """The deployment with its processes running, also when a failed test has left it without."""
    missing = {"worker", "web"} - set(deployment.processes)
    if "worker" in missing:
        deployment.start_worker(ready=False)
    if "web" in missing:
        deployment.start_web(ready=False)
    deployment.wait_for("worker", "web")
    return deployment


def url_of(run: Run[Any]) -> str:
    """The URL of the run's webhook, once it is open."""
    hooks = eventually(lambda: [hook for hook in run.hooks() if hook["is_webhook"]], 20, "the webhook is open")
    return str(hooks[0]["url"])


def received(site: Deployment, run: Run[Any]) -> list[str]:
    """The ids of the requests that the run has been sent."""
    with site.engine.store.read() as tx:
        query = sa.select(requests.c.id).where(requests.c.run_id == run.id).order_by(requests.c.received_at)
        return list(tx.execute(query).scalars())


def kinds(run: Run[Any]) -> list[str]:
    return [event.kind for event in run.events()]


def took(run: Run[Any]) -> float:
    """Seconds from the run's first turn to its end, by the database's clock."""
    assert run.started_at is not None
    assert run.completed_at is not None
    return (run.completed_at - run.started_at).total_seconds()


# Stopped, killed, started again.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_c66_the_ledger_is_the_same_whatever_was_stopped_at_each_stage(site, number, tmp_path):
    """Worker and web are ended before the run begins, while it waits, with requests held, and amid a step."""
    with ThreadPoolExecutor(4) as threads:
        # Before the run has begun.
        site.stop("worker", number)
        run = site.engine.start(gated_orders, str(tmp_path))
        assert run.status == "pending"
        site.start_worker()
        url = url_of(run)

        # While it waits: both at once.
        site.stop("worker", number)
        site.stop("web", number)
        site.start_web()

        # With a connection held, and no worker there to answer it.
        first = threads.submit(fetch, "POST", url, b"one")
        eventually(lambda: len(received(site, run)) == 1)
        site.start_worker()
        assert (first.result(20).status, first.result().data) == (200, b"answer to one")

        # The worker, in the midst of the step that answers; on SIGTERM it ends its work first.
        second = threads.submit(fetch, "POST", f"{url}?gated=1", b"two")
        eventually((tmp_path / "begun").exists)
        if number == signal.SIGKILL:
            site.stop("worker", number)
            (tmp_path / "open").touch()
        else:
            site.processes["worker"].popen.send_signal(number)
            (tmp_path / "open").touch()
            site.stop("worker", number)
        site.start_worker()
        assert (second.result(20).status, second.result().data) == (200, b"answer to two")

        # The web process, while it holds the connection: the answer is kept for later requests.
        (tmp_path / "begun").unlink()
        (tmp_path / "open").unlink()
        third = threads.submit(_fetch_or_lose, f"{url}?gated=1&last=1", b"three")
        eventually((tmp_path / "begun").exists)
        site.stop("web", number)
        lost = third.result(20)
        (tmp_path / "open").touch()

    assert run.result(timeout="20s") == {"ledger": ["one", "two", "three"], "status": "settled"}
    told = kinds(run)
    assert (told.count("step_completed"), told.count("hook_received")) == (3, 3)
    # The attempt that was killed is in the log; the one that was stopped came to its end.
    assert told.count("step_retrying") == (1 if number == signal.SIGKILL else 0)
    # A server that is stopped says where to ask; one that is killed says nothing.
    assert (lost is None) == (number == signal.SIGKILL)
    assert lost is None or lost.status == 202
    site.start_web()
    polled = fetch("GET", f"{url}/requests/{received(site, run)[-1]}")
    assert (polled.status, polled.data) == (200, b"answer to three")
    assert polled.headers["Durable-Recorded"] == "true"
    assert fetch("POST", url, b"four").status == 410


def _fetch_or_lose(url: str, data: bytes) -> Answer | None:
    try:
        return fetch("POST", url, data)
    except OSError:
        return None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_c99_a_sleeping_run_survives_the_restart_of_all_processes(site, number):
    """The sleep is a row: it ends when it should, not earlier, on processes that never saw it begin."""
    run = site.engine.start(naps, "4s")
    eventually(lambda: "wait_created" in kinds(run))

    site.stop("worker", number)
    site.stop("web", number)
    site.start_worker(ready=False)
    site.start_web(ready=False)
    site.wait_for("worker", "web")

    assert run.result(timeout="20s") == "awake"
    (slept,) = [event for event in run.events() if event.kind == "wait_completed"]
    (began,) = [event for event in run.events() if event.kind == "wait_created"]
    assert slept.at >= began.due_at
    assert took(run) >= 4


def test_c68_what_comes_while_the_broker_is_away_is_done_when_it_is_back(tmp_path):
    """A start and a request are accepted without a broker, and lost by nobody."""
    with new_database("sqlite", tmp_path) as database_url:
        url = embedded.url(tmp_path)
        settings = {"DURABLE_RESEND_AFTER": "1"}
        described = Deployment(tmp_path, database_url, url, "live_app", "live_app:create_app()", settings)
        with deployed(described) as site, ThreadPoolExecutor(1) as threads:
            with embedded.start(tmp_path):
                site.start_worker(ready=False)
                site.start_web(ready=False)
                site.wait_for("worker", "web")
                waiting = site.engine.start(gated_orders, str(tmp_path))
                webhook = url_of(waiting)

            started = site.engine.start(naps, "1ms")
            held = threads.submit(fetch, "POST", f"{webhook}?last=1", b"one")
            eventually(lambda: len(received(site, waiting)) == 1)
            assert (started.status, held.done()) == ("pending", False)

            with embedded.start(tmp_path):
                assert (held.result(30).status, held.result().data) == (200, b"answer to one")
                assert waiting.result(timeout="10s") == {"ledger": ["one"], "status": "settled"}
                assert started.result(timeout="30s") == "awake"


@pytest.mark.parametrize("deployment", ["postgresql-redis-prefork"], indirect=True)
def test_c30_a_step_that_always_kills_its_process_fails_when_its_attempts_are_spent(site, tmp_path):
    """Each start uses one attempt up; the workflow catches what is left, and its next step finds a worker."""
    run = site.engine.start(survives, str(tmp_path))

    assert run.result(timeout="40s") == {"error": "WorkerLost", "attempts": 2, "after": "alive"}
    assert sorted(path.name for path in tmp_path.glob("attempt-*")) == ["attempt-1", "attempt-2"]


# Deadlines.


def test_c67_a_callback_in_time_wins(site):
    """The run ends with the callback's outcome, long before the deadline."""
    run = site.engine.start(deadline, "30s")

    answer = fetch("POST", url_of(run), b"here")

    assert (answer.status, answer.data) == (200, b"answer to here")
    assert run.result(timeout="10s") == {"status": "verified", "body": "here"}
    assert "wait_cancelled" in kinds(run)


def test_c67_no_callback_loses_at_the_deadline(site):
    """Not early, and at most a second late; what comes later is 410 and changes nothing."""
    run = site.engine.start(deadline, "2s")
    url = url_of(run)

    assert run.result(timeout="10s") == {"status": "timed_out"}

    assert 2 <= took(run) <= 3
    before = run.events()
    late = fetch("POST", url, b"late")
    assert (late.status, late.headers["Content-Type"]) == (410, "application/problem+json")
    assert run.result() == {"status": "timed_out"}
    assert run.events() == before


# Answers that do not come on the connection.


def test_c66_a_run_that_answers_late_is_asked_again(site):
    """202 and Location when the hold is over, 202 from there until there is an answer, then exactly that."""
    go = secrets.token_hex(8)
    run = site.engine.start(answers_late, go)

    held = fetch("POST", url_of(run), b"late")
    where = held.headers["Location"]
    assert (held.status, held.json()["status"]) == (202, "pending")
    assert where == f"{url_of(run)}/requests/{held.json()['request_id']}"
    assert fetch("GET", where).status == 202

    resume_hook(go, None, wait="5s")
    assert run.result(timeout="10s") == "late"
    answer = fetch("GET", where)
    assert (answer.status, answer.data) == (200, b"answer to late")
    assert answer.headers["Content-Type"] == "text/plain"
    assert answer.headers["Durable-Recorded"] == "true"


@pytest.mark.parametrize("how", ["fails", "returns"])
def test_c66_a_run_that_ends_without_answering_tells_the_sender(site, how):
    """500 within a second of the run's end, on the held connection and from then on where it can be asked."""
    run = site.engine.start(never_answers, how)
    url = url_of(run)

    answer = fetch("POST", url, b"?")
    answered_at = site.engine.now()

    assert (answer.status, answer.headers["Content-Type"]) == (500, "application/problem+json")
    assert answer.json()["code"] == "webhook-response-not-sent"
    assert run.completed_at is not None
    assert answered_at - int(run.completed_at.timestamp() * SECOND) < SECOND
    polled = fetch("GET", f"{url}/requests/{received(site, run)[0]}")
    assert (polled.status, polled.data) == (500, answer.data)
    assert polled.headers["Durable-Recorded"] == "true"
