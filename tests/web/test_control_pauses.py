"""Pauses and actions on many runs by HTTP, on SQLite: who may do what, what is audited, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from celery import Celery
from flask.testing import FlaskClient
from servers import migrate

from durable import Durable, FatalError, Run, create_hook, step, workflow
from durable.client import pauses
from durable.recovery import housekeeping
from durable.store import audit, runs
from durable.web import create_blueprint
from durable.web.operations import OPERATIONS
from durable.web.wsgi_request import ROOT


@workflow(name="paused_by_http.waiting")
async def waiting() -> Any:
    return await create_hook()


@step(name="paused_by_http.breaks", max_retries=0)
def breaks() -> None:
    raise FatalError("broken")


@workflow(name="paused_by_http.failing")
async def failing() -> None:
    await breaks()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Durable]:
    celery = Celery("paused-by-http", broker="memory://")
    celery.conf.task_always_eager = True
    made = Durable(celery, database_url=f"sqlite:///{tmp_path}/durable.db", public_url="https://h.test")
    migrate(made)
    yield made
    housekeeping.end(made)
    made.close()


def client_of(engine: Durable, **options: Any) -> FlaskClient:
    app = flask.Flask("paused-by-http")
    app.register_blueprint(create_blueprint(engine, **options))
    return app.test_client()


@pytest.fixture
def client(engine: Durable) -> FlaskClient:
    return client_of(engine, control=lambda _request: True)


def post(client: FlaskClient, path: str, expected: int = 200, /, **body: Any) -> Any:
    answer = client.post(f"{ROOT}{path}", json=body)
    assert answer.status_code == expected, answer.text
    return answer.get_json()


def entries(engine: Durable, subject: str) -> list[tuple[str, str | None, str | None, str | None]]:
    with engine.store.read() as tx:
        return [(each.action, each.actor, each.detail, each.outcome) for each in audit.of_run(tx, subject, 20)][::-1]


def test_a_run_is_paused_and_resumed(engine, client):
    """The run's document says so; each change has an entry in the audit, also one that was refused."""
    run = engine.start(waiting)
    assert post(client, f"runs/{run.id}/pause", reason="a strike") == {"id": run.id, "paused": True}
    assert run.paused is True
    shown = client.get(f"{ROOT}runs/{run.id}").get_json()
    assert shown["paused_at"] is not None
    assert [(each["kind"], each["reason"]) for each in shown["paused_by"]] == [("run", "a strike")]
    listed = client.get(f"{ROOT}runs", query_string={"paused": "true"}).get_json()["runs"]
    assert [each["id"] for each in listed] == [run.id]
    assert post(client, f"runs/{run.id}/pause", 409)["code"] == "run-not-paused"

    assert post(client, f"runs/{run.id}/resume") == {"id": run.id, "paused": False}
    assert post(client, f"runs/{run.id}/resume", 409)["code"] == "run-not-resumed"
    assert post(client, "runs/unknown/pause", 404)["code"] == "run-not-found"
    assert entries(engine, run.id) == [
        ("pause", None, "a strike", "done"),
        ("pause", None, None, "refused: The run has ended, or was paused already."),
        ("unpause", None, None, "done"),
        (
            "unpause",
            None,
            None,
            "refused: The run is not paused by itself.  GET pauses shows which workflows and queues are paused.",
        ),
    ]


@workflow(name="paused_by_http.calling")
async def calling() -> None:
    await waiting()


def test_child_runs_are_paused_by_http(engine, client):
    """With the run, and with many runs; the answer of a bulk has the runs that match."""
    run = engine.start(calling)
    with engine.store.read() as tx:
        (child,) = (engine.get_run(each) for each in runs.open_children_of(tx, [run.id]))
    for path, more in (("runs/{}/{}", {}), ("bulk", {"name": calling.name})):
        for verb, paused in (("pause", True), ("resume", False)):
            body = more and {**more, "action": verb}
            answer = post(client, path.format(run.id, verb), children=True, **body)
            assert (run.paused, child.paused) == (paused, paused)
            assert not more or [each["id"] for each in answer["runs"]] == [run.id]
    assert post(client, f"runs/{run.id}/resume", 422, children="yes")["code"] == "bad-arguments"


def test_a_workflow_and_a_queue_are_paused_by_http(engine, client):
    """A second call changes nothing; the audit has them under their names."""
    run = engine.start(waiting)
    path = f"workflows/{waiting.name}"
    for _ in range(2):
        assert post(client, f"{path}/pause") == {"kind": "workflow", "name": waiting.name, "paused": True}
    post(client, "queues/slow/pause", reason="an outage")
    listed = client.get(f"{ROOT}pauses").get_json()["pauses"]
    assert [(each["kind"], each["name"], each["runs"]) for each in listed] == [
        ("workflow", waiting.name, 1),
        ("queue", "slow", 0),
    ]
    assert run.paused is True
    assert post(client, f"{path}/resume")["paused"] is False
    assert post(client, "queues/slow/resume")["paused"] is False
    assert run.paused is False
    assert client.get(f"{ROOT}pauses").get_json() == {"pauses": []}
    assert post(client, "workflows/unknown/pause", 404)["code"] == "nothing-to-pause"
    assert [each[0] for each in entries(engine, audit.subject("queue", "slow"))] == ["pause_queue", "resume_queue"]


def test_many_runs_are_paused_in_batches(engine, client):
    """A dry run changes nothing; each batch says where the next one begins; what starts meanwhile is left."""
    runs = [engine.start(waiting) for _ in range(5)]
    wanted = {"action": "pause", "name": waiting.name, "limit": 2.0}
    dry = post(client, "bulk", **wanted, dry_run=True)
    assert (dry["count"], len(dry["runs"]), dry["next"]) == (5, 2, None)
    assert not any(run.paused for run in runs)

    seen: list[str] = []
    after, batches = None, 0
    while after is not None or not batches:
        batch = post(client, "bulk", **wanted, reason="an outage", after=after)
        seen += [each["id"] for each in batch["runs"]]
        after, batches = batch["next"], batches + 1
        if batches == 1:
            late = engine.start(waiting)
    assert sorted(seen) == sorted(run.id for run in runs)
    assert batches >= 3
    assert all(run.paused for run in runs)
    assert not late.paused
    assert entries(engine, runs[0].id) == [("pause", None, "bulk", "done")]

    assert post(client, "bulk", action="resume", name=waiting.name)["count"] == 5
    assert post(client, "bulk", action="cancel", status="running", reason="over")["count"] == 6
    assert {run.status for run in runs} == {"cancelled"}


def test_runs_that_are_resumed_in_batches_go_on_at_a_bounded_rate(engine, client, monkeypatch):
    """However fast the caller sends the batches, the next runs go on when the time of those before is over."""
    monkeypatch.setattr(pauses, "_SECOND", 3600 * 1_000_000)
    runs = [engine.start(waiting) for _ in range(4)]
    post(client, "bulk", action="pause", name=waiting.name)
    after, done = None, 0
    while after is not None or not done:
        batch = post(client, "bulk", action="resume", name=waiting.name, limit=2, after=after)
        after, done = batch["next"], done + batch["count"]
    assert (done, sum(run.paused for run in runs)) == (4, 2)
    (listed,) = client.get(f"{ROOT}pauses").get_json()["pauses"]
    assert (listed["kind"], listed["name"], listed["runs"], listed["resuming"]) == ("run", None, 2, True)


def test_runs_that_have_failed_are_forked_in_bulk(engine, client):
    """The answer has the new runs; a run that was forked before is refused."""
    run = engine.start(failing)
    assert run.status == "failed"
    (done,) = post(client, "bulk", action="fork", name=failing.name, status="failed")["runs"]
    fork: Run[Any] = engine.get_run(done["fork"])
    assert (done["id"], fork.name) == (run.id, failing.name)
    again = post(client, "bulk", action="fork", name=failing.name)
    assert [each["id"] for each in again["refused"]] == [run.id]


@workflow(name="paused_by_http.falls_behind_its_hook")
async def falls_behind_its_hook(token: str) -> str:
    hook = create_hook(token=token)
    first = await good(await hook)
    await breaks()
    return first + str(await hook)


@step(name="paused_by_http.good")
def good(text: str) -> str:
    return text


@pytest.mark.parametrize(
    ("where", "kinds"),
    [
        ({}, ("step_completed",)),
        ({"from_step": "paused_by_http.good"}, ("hook_received",)),
        ({"from_event": 2, "reapply_payloads": False}, ()),
    ],
)
def test_a_bulk_forks_from_a_step_or_from_an_event(engine, client, where, kinds):
    """As the other forms do: the fork's log ends with what was there before, and it is behind that."""
    run = engine.start(falls_behind_its_hook, "bulk-fork")
    engine.resume_hook("bulk-fork", "one")
    assert run.status == "failed"

    (done,) = post(client, "bulk", action="fork", name=falls_behind_its_hook.name, **where)["runs"]

    log = [event.kind for event in engine.get_run(done["fork"]).events()]
    copied = log[: log.index("run_forked")]
    assert [kind for kind in copied if kind in ("hook_received", "step_completed")][-1:] == list(kinds)


@pytest.mark.parametrize(
    "body",
    [
        {"action": "pause"},
        {"action": "fork", "name": "x", "from_step": "a", "from_event": 1},
        {"action": "fork", "name": "x", "from_event": 0},
        {"action": "fork", "name": "x", "from_event": "1"},
        {"action": "pause", "attributes": {}},
        {"action": "explode", "name": "x"},
        {"action": "pause", "name": "x", "after": "y"},
        {"action": "pause", "since": "yesterday"},
        {"action": "pause", "name": "x", "limit": 0},
    ],
)
def test_a_malformed_bulk_is_refused(client, body):
    """Also one without a condition, which would be for all runs."""
    assert post(client, "bulk", 422, **body)["code"] == "bad-arguments"


def test_authorize_decides_about_each_action_and_run(engine):
    """It is asked with the action and the run; its name is in the audit; what it refuses is not done."""
    first, second = engine.start(waiting), engine.start(waiting)
    asked: list[tuple[str, str | None]] = []

    def may(action: str, run_id: str | None) -> bool | str | None:
        asked.append((action, run_id))
        if action in ("cancel", "bulk_cancel"):
            return False
        return "ada" if run_id != second.id else False

    client = client_of(engine, authorize=may)
    assert client.get(f"{ROOT}runs").status_code == 200
    post(client, f"runs/{first.id}/pause")
    assert post(client, f"runs/{second.id}/pause", 403)["code"] == "forbidden"
    assert post(client, f"runs/{first.id}/cancel", 403)["code"] == "forbidden"
    assert post(client, "bulk", 403, action="cancel", name=waiting.name)["code"] == "forbidden"
    assert asked == [
        ("read", None),
        ("pause", first.id),
        ("pause", second.id),
        ("cancel", first.id),
        ("bulk_cancel", None),
    ]
    assert entries(engine, first.id) == [("pause", "ada", None, "done")]
    assert (second.paused, second.status) == (False, "running")


def test_control_is_asked_before_authorize(engine):
    """A caller without credentials learns nothing of what there is."""
    asked: list[str] = []
    client = client_of(engine, control=lambda _request: None, authorize=lambda action, _: bool(asked.append(action)))
    assert client.get(f"{ROOT}pauses").status_code == 401
    assert asked == []


def test_a_bulk_passes_over_a_run_that_authorize_refuses(engine):
    """The others are done, and the answer names the one that was not."""
    first, second = engine.start(waiting), engine.start(waiting)
    client = client_of(engine, authorize=lambda action, run_id: run_id != second.id)
    batch = post(client, "bulk", action="pause", name=waiting.name)
    assert [each["id"] for each in batch["runs"]] == [first.id]
    assert [each["id"] for each in batch["refused"]] == [second.id]


def test_the_audit_of_a_bulk_says_of_which_runs_nothing_was_done(engine, client):
    """A run that was paused already is refused in the answer, and in its entry."""
    run = engine.start(waiting)
    post(client, f"runs/{run.id}/pause")
    batch = post(client, "bulk", action="pause", name=waiting.name)
    (refused,) = batch["refused"]

    assert batch["runs"] == []
    assert refused["id"] == run.id
    assert entries(engine, run.id)[1:] == [("pause", None, "bulk", f"refused: {refused['detail']}")]


def test_every_operation_says_what_it_asks_for():
    """What changes something has an action of its own."""
    assert {each.action for each in OPERATIONS if each.method == "GET"} == {"read"}
    assert all(each.action != "read" for each in OPERATIONS if each.method != "GET")
