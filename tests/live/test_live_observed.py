"""What Celery's world sees of steps that fail: signals, events, Flower, Sentry, OpenTelemetry; in every pool."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eventually import eventually
from pools import MANNERS, own_flows, worker_in_pool
from processes import Deployment, fetch, free_port
from task_events import events_of

pytestmark = pytest.mark.live

FLAKY, BROKEN, ADOPTED = (f"observed_flows.{name}" for name in ("flaky", "broken", "adopted_broken"))
#: By task: how many attempts succeed, are retried, and fail.
ATTEMPTS = {FLAKY: (2, 2, 0), BROKEN: (0, 1, 1), ADOPTED: (0, 0, 1)}


@pytest.fixture(scope="module")
def flows() -> Iterator[Any]:
    with own_flows("observed_flows") as found:
        yield found


@pytest.fixture(scope="module", **MANNERS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, flows: Any) -> Iterator[Deployment]:
    """One worker that sends task events, in place or message by message."""
    files, folder = {"OBSERVED": "observed"}, tmp_path_factory.mktemp
    with worker_in_pool(request.param, folder, "observed_app", "", "-E", files=files) as made:
        yield made


def observed(site: Deployment, kind: str) -> list[dict[str, Any]]:
    """What the worker's processes have noted of one kind."""
    with contextlib.suppress(FileNotFoundError):
        lines = map(json.loads, Path(site.settings["OBSERVED"]).read_text().splitlines())
        return [line for line in lines if line["kind"] == kind]
    return []


def test_each_attempt_ends_for_celery_as_it_did(site, flows):
    """One signal, one event, one span each: a success, a retry or a failure, with the step's own exception."""
    with events_of(site) as heard:
        run = site.engine.start(flows.orders, "A-1")
        assert run.result(timeout=40) == "A-1 again"
        ends = ("task-succeeded", "task-retried", "task-failed")
        ended = lambda: [e for e in heard if e["type"] in ends and str(e["uuid"]).startswith(run.id)]  # noqa: E731
        eventually(lambda: len(ended()) >= sum(map(sum, ATTEMPTS.values())), 20, "each attempt has ended for Celery")
        received = {e["uuid"]: e for e in heard if e["type"] == "task-received"}

    by_event = Counter((received[e["uuid"]]["name"], e["type"]) for e in ended())
    wanted = {(task, kind): n for task, counts in ATTEMPTS.items() for kind, n in zip(ends, counts, strict=True) if n}
    assert by_event == wanted
    failed = {received[e["uuid"]]["name"]: e for e in ended() if e["type"] == "task-failed"}
    assert failed[BROKEN]["exception"] == "ValueError('A-1 cannot be charged 7')"
    assert "in broken" in failed[BROKEN]["traceback"]
    retried = {received[e["uuid"]]["name"]: e for e in ended() if e["type"] == "task-retried"}
    assert "ConnectionError('no answer for A-1" in retried[FLAKY]["exception"]
    assert "ValueError('A-1 cannot be charged 7')" in retried[BROKEN]["exception"]
    shown = received[f"{run.id}:{_op(run, FLAKY)}:1"]
    assert (shown["args"], shown["kwargs"]) == ("(an order)", "{}")
    assert received[f"{run.id}:{_op(run, BROKEN)}:1"]["kwargs"] == "{'order': 'A-1', 'amount': 7}"

    kinds = ("task_success", "task_retry", "task_failure")
    for kind, position in zip(kinds, range(3), strict=True):
        noted = [each["task"] for each in observed(site, kind) if str(each["id"]).startswith(run.id)]
        assert Counter(noted) == {task: counts[position] for task, counts in ATTEMPTS.items() if counts[position]}
    spans = eventually(lambda: [s for s in observed(site, "span") if s["name"] == f"run/{BROKEN}"], 10, "spans")
    assert [span["status"] for span in spans] == ["UNSET", "ERROR"]


def test_sentry_gets_one_event_of_a_failed_step(site, flows):
    """With the step's traceback and the run's id, none for a retry, and none for durable's own log line."""
    run = site.engine.start(flows.orders, "A-2")
    assert run.result(timeout=40) == "A-2 again"
    mine = lambda: [  # noqa: E731
        event
        for line in observed(site, "sentry")
        if (event := line["event"]).get("tags", {}).get("durable.run_id") == run.id
    ]
    eventually(lambda: len(mine()) >= 2, 10, "Sentry has the failures")

    shown = {event["tags"]["durable.step"]: event for event in mine()}
    assert sorted(event["tags"]["durable.step"] for event in mine()) == sorted([BROKEN, ADOPTED])
    error = shown[BROKEN]["exception"]["values"][-1]
    assert (error["type"], error["value"]) == ("ValueError", "A-2 cannot be charged 7")
    assert error["stacktrace"]["frames"][-1]["function"] == "broken"
    crumbs = [crumb["message"] for crumb in shown[BROKEN]["breadcrumbs"]["values"] if crumb["category"] == "durable"]
    assert crumbs == [f"Attempt 1 of step {BROKEN} failed: ValueError: A-2 cannot be charged 7"]


def test_flower_shows_failures_and_retries(site, flows):
    """By its HTTP API: the state of each attempt, its exception and its arguments."""
    port = free_port()
    command = [sys.executable, "-m", "celery", "--broker", site.broker_url, "flower", f"--port={port}"]
    environment = {**site._environment(), "FLOWER_UNAUTHENTICATED_API": "true"}
    with (site.folder / "flower.log").open("w") as log:
        flower = subprocess.Popen(command, env=environment, cwd=site.folder, stdout=log, stderr=log)
        try:
            base = f"http://127.0.0.1:{port}/api"
            eventually(lambda: _json(f"{base}/workers"), 30, "Flower sees the worker")
            run = site.engine.start(flows.orders, "A-3")
            assert run.result(timeout=40) == "A-3 again"

            def states() -> Counter[tuple[str, str]]:
                tasks = _json(f"{base}/tasks") or {}
                return Counter((t["name"], t["state"]) for key, t in tasks.items() if key.startswith(run.id))

            wanted = {(FLAKY, "RETRY"): 2, (FLAKY, "SUCCESS"): 2, (BROKEN, "RETRY"): 1, (BROKEN, "FAILURE"): 1}
            eventually(lambda: states() == {**wanted, (ADOPTED, "FAILURE"): 1}, 20, "Flower shows each attempt")
        finally:
            flower.terminate()
            flower.wait(20)


def _json(url: str) -> Any:
    with contextlib.suppress(OSError, ValueError):
        answer = fetch("GET", url)
        return answer.json() if answer.status == 200 else None
    return None


def _op(run: Any, name: str) -> str:
    return next(event.op_id for event in run.events() if getattr(event, "name", None) == name)
