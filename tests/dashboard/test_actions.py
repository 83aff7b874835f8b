"""What people do to runs: each form, its permission, its entry in the audit, and what it refuses."""

from __future__ import annotations

import json
import re
from datetime import date

import flask
import pytest
import scene
import sqlalchemy as sa
from driving import settle
from test_pages import ids

from durable import create_hook, sleep, step, workflow
from durable.attempts import outcome
from durable.attempts.claim import Address, claim
from durable.store import audit, claimed_attempts, fork_run, retention
from durable.store.schema import runs
from durable.turns.drive import drive

pytestmark = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@workflow(name="actions.napping")
async def napping(name: str) -> str:
    await sleep("1h")
    return name


@workflow(name="actions.asking")
async def asking(token: str) -> object:
    return await create_hook(token=token)


@step(name="actions.once", semantics="at_most_once")
def once() -> int:
    return 1


@workflow(name="actions.doubting")
async def doubting() -> int:
    return await once()


@workflow(name="actions.typed")
async def typed(name: str, count: int, *rest: int, fast: bool = False, **others: str) -> list[object]:
    return [name, count, list(rest), fast, others]


@workflow(name="actions.first_and_rest")
async def first_and_rest(a: int = 1, *rest: int) -> list[object]:
    return [a, list(rest)]


@workflow(name="actions.by_place")
async def by_place(a: date = date(2026, 1, 31), b: int = 2, /) -> list[object]:
    return [a.isoformat(), b]


@workflow(name="actions.needs_first")
async def needs_first(a: int, *rest: int) -> list[object]:
    return [a, list(rest)]


def entries(engine, run):
    """The run's audit, oldest first: action, actor, detail, outcome."""
    with engine.store.read() as tx:
        found = audit.of_run(tx, run.id, 100)
    return [(entry.action, entry.actor, entry.detail, entry.outcome) for entry in found][::-1]


def block(engine, run):
    """Block a run before its first turn, as a turn does whose code does not match."""
    with engine.store.begin() as tx:
        tx.execute(sa.update(runs).where(runs.c.id == run.id).values(status="blocked", blocked="recorded x, asked y"))


def test_cancel_asks_the_run_to_stop(engine, browser):
    """The run ends as cancelled, with the reason, and the audit names who did it."""
    run = engine.start(napping, "a")
    settle(engine, run)

    page = browser.post(f"/run/{run.id}/cancel", reason="wrong order")
    settle(engine, run)

    assert "asked to stop" in page
    assert run.status == "cancelled"
    assert entries(engine, run) == [("cancel", "ada", "wrong order", "done")]
    assert "wrong order" in browser.get(f"/run/{run.id}")
    refused = browser.post(f"/run/{run.id}/cancel", 409)
    assert "has ended" in refused
    assert entries(engine, run)[-1][3].startswith("refused: ")


@pytest.mark.parametrize("action", ["cancel", "retry", "wake", "resolve", "resume", "again", "token"])
def test_what_authorize_refuses_is_not_done(engine, browser, permissions, action):
    """Each form asks ``authorize`` for its own action; a refused one changes nothing and is not offered."""
    run = engine.start(asking, f"refused-{action}")
    settle(engine, run)
    named = {"again": "start", "token": "reveal_token"}.get(action, action)
    permissions.denied = {named}
    operation = next(event.op_id for event in run.events() if hasattr(event, "token"))

    fields = {"operation": operation, "payload": "1", "outcome": "failed", "message": "m", "step": "r#1"}
    page = browser.post(f"/run/{run.id}/{action}", 403, **fields)

    assert "You may not do this" in page
    assert (named, run.id) in permissions.asked
    assert run.status == "running"
    assert entries(engine, run) == []
    assert f'/run/{run.id}/{action}"' not in browser.get(f"/run/{run.id}")


def test_wake_ends_a_sleep(engine, browser):
    """The sleep is over at once, and the run completes."""
    run = engine.start(napping, "b")
    settle(engine, run)

    page = browser.post(f"/run/{run.id}/wake")
    settle(engine, run)

    assert "1 pending sleeps" in page
    assert run.result(timeout=1) == "b"


def test_retry_unblocks_a_run(engine, browser):
    """A blocked run shows why it is blocked, and continues after a retry; other runs are refused."""
    run = engine.start(napping, "c")
    assert "not blocked" in browser.post(f"/run/{run.id}/retry", 409)
    block(engine, run)

    assert "recorded x, asked y" in browser.get(f"/run/{run.id}")
    browser.post(f"/run/{run.id}/retry")
    settle(engine, run)

    assert run.status == "running"


def test_resolve_ends_a_doubt(engine, browser):
    """A step in doubt is resolved with a result, and its run completes with that."""
    run = engine.start(doubting)
    drive(engine, run.id)
    claim(engine, once, Address(run.id, "r#1", 1), None)
    with engine.store.read() as tx:
        claimed = claimed_attempts.find(tx, run.id, "r#1")
    assert claimed is not None
    outcome.give_up(engine, claimed)

    page = browser.get(f"/run/{run.id}")
    assert "is in doubt" in page
    assert "A step is in doubt" in browser.post(f"/run/{run.id}/retry", 409)
    assert "not JSON" in browser.post(f"/run/{run.id}/resolve", 400, step="r#1", outcome="completed", result="{")
    browser.post(f"/run/{run.id}/resolve", step="r#1", outcome="completed", result="41")
    settle(engine, run)

    assert run.result(timeout=1) == 41


def test_resume_delivers_json_to_a_hook(engine, browser):
    """The payload reaches the workflow; a malformed one, or a closed hook, is refused."""
    run = engine.start(asking, "resume-me")
    settle(engine, run)
    operation = next(event.op_id for event in run.events() if hasattr(event, "token"))

    assert "not JSON" in browser.post(f"/run/{run.id}/resume", 400, operation=operation, payload="yes")
    browser.post(f"/run/{run.id}/resume", operation=operation, payload='{"yes": true}')
    settle(engine, run)

    assert run.result(timeout=1) == {"yes": True}
    assert "is closed" in browser.post(f"/run/{run.id}/resume", 409, operation=operation, payload="1")
    assert "Hook not found" in browser.post(f"/run/{run.id}/resume", 404, operation="r#99", payload="1")


def test_start_again_repeats_the_arguments(engine, browser):
    """A new run of the same workflow, with the same arguments."""
    run = engine.start(asking, "again-1")
    settle(engine, run)
    page = browser.post(f"/run/{run.id}/again")

    again = re.search(r'<dd class="id">([0-9a-f]+)</dd>', page)[1]
    assert again != run.id
    assert "again-1" in page
    assert [entry[0] for entry in entries(engine, run)] == ["start"]


def test_the_form_is_made_from_the_signature(engine, browser):
    """Each parameter is a field with its type; the arguments arrive as these types, and wrong ones start nothing."""
    page = browser.get("/start?workflow=actions.typed")
    for text in ("name</strong>: str", "count</strong>: int", "a list of int", "an object of str", "optional"):
        assert text in page

    arguments = {
        "arg:name": "x",
        "arg:count": "3",
        "arg:rest": "[1, 2]",
        "arg:fast": "true",
        "arg:others": '{"a": "b"}',
    }
    page = browser.post("/start", workflow="actions.typed", **arguments)
    run = engine.get_run(re.search(r'<dd class="id">([0-9a-f]+)</dd>', page)[1])
    settle(engine, run)

    assert run.result(timeout=1) == ["x", 3, [1, 2], True, {"a": "b"}]
    wrong = browser.post("/start", 422, workflow="actions.typed", **(arguments | {"arg:count": '"many"'}))
    assert "The run was not started" in wrong
    assert "not started" in browser.post("/start", 422, workflow="actions.typed", **{"arg:name": "x"})
    twice = arguments | {"arg:others": '{"fast": "b"}'}
    assert "multiple values" in browser.post("/start", 422, workflow="actions.typed", **twice)
    browser.post("/start", 404, workflow="actions.nothing")


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        ("first_and_rest", {"arg:rest": "[5, 6]"}, [1, [5, 6]]),
        ("first_and_rest", {"arg:a": "4", "arg:rest": ""}, [4, []]),
        ("by_place", {"arg:b": "7"}, ["2026-01-31", 7]),
        ("by_place", {"arg:a": '"2026-02-01"'}, ["2026-02-01", 2]),
    ],
)
def test_an_empty_field_shifts_no_argument(engine, browser, name, arguments, result):
    """A parameter whose field is empty has its default, also before arguments that are passed by their place."""
    page = browser.post("/start", workflow=f"actions.{name}", **arguments)
    run = engine.get_run(re.search(r'<dd class="id">([0-9a-f]+)</dd>', page)[1])
    settle(engine, run)

    assert run.result(timeout=1) == result


def test_an_empty_field_without_a_default_is_refused_before_the_rest(browser):
    """The first of the rest does not take the place of the argument that is missing."""
    page = browser.post("/start", 422, workflow="actions.needs_first", **{"arg:rest": "[5, 6]"})

    assert "missing a required argument" in page


def test_bulk_actions_ask_first_and_act_on_what_matches(engine, browser, permissions):
    """A filter or a selection is confirmed with its number; each run has its entry, and others stay as they are."""
    with engine.store.begin() as tx:
        tx.execute(sa.update(runs).values(status="completed"))
    started = [engine.start(asking, f"bulk-{number}") for number in range(5)]
    settle(engine, *started)
    started[4].cancel()
    settle(engine, started[4])

    question = browser.get("/runs/bulk?action=cancel&name=actions.asking")
    assert "Cancel 4 runs" in question
    upto = re.search(r'name="upto" value="(\d+)"', question)[1]
    late = engine.start(asking, "bulk-late")
    settle(engine, late)
    selected = browser.get(f"/runs/bulk?action=cancel&run={started[0].id}&run={started[1].id}")
    assert "Cancel 2 runs" in selected
    page = browser.post("/runs/bulk", action="cancel", name="actions.asking", upto=upto)
    settle(engine, *started, late)

    assert "4 runs are asked to stop" in page
    assert {run.status for run in started} == {"cancelled"}
    assert late.status == "running"
    assert entries(engine, started[0]) == [("cancel", "ada", "bulk", "done")]
    assert "0 runs are asked to stop.  1 were left" in browser.post("/runs/bulk", action="cancel", run=started[0].id)
    assert "No run is chosen" in browser.get("/runs/bulk?action=cancel", 400)
    permissions.denied = {"bulk_cancel"}
    browser.post("/runs/bulk", 403, action="cancel", name="actions.asking")
    assert "Cancel all" not in browser.get("/runs?name=actions.asking")


def test_bulk_retry_takes_blocked_runs(engine, browser):
    """Of the runs that match, only blocked ones are retried."""
    blocked, other = engine.start(napping, "d"), engine.start(napping, "e")
    settle(engine, other)
    block(engine, blocked)
    with engine.store.begin() as tx:
        tx.execute(sa.update(runs).where(runs.c.id.not_in([blocked.id, other.id])).values(status="completed"))

    assert "Retry 1 run?" in browser.get("/runs/bulk?action=retry&error=asked")
    page = browser.post("/runs/bulk", action="retry", error="asked")
    settle(engine, blocked)

    assert "1 runs are being retried" in page
    assert blocked.status == "running"
    assert ids(browser.get("/runs?error=asked")) == []


def test_a_bulk_goes_on_when_authorize_aborts_for_a_run(engine, browser, permissions, monkeypatch):
    """The application answers with ``flask.abort`` for one run: it counts as refused, and the next one is done."""
    first, second = engine.start(napping, "f"), engine.start(napping, "g")
    settle(engine, first, second)

    def abort_for_first(_self: object, _action: str, run_id: str | None) -> str:
        return flask.abort(403) if run_id == first.id else "ada"

    monkeypatch.setattr(type(permissions), "__call__", abort_for_first)
    page = browser.post("/runs/bulk", action="cancel", run=[first.id, second.id])
    settle(engine, first, second)

    assert "1 runs are asked to stop.  1 were left" in page
    assert (first.status, second.status) == ("running", "cancelled")
    assert entries(engine, first) == []


def test_a_bulk_takes_the_runs_that_its_question_was_about(engine, browser, monkeypatch):
    """A time like ``10m`` means 10 minutes before the question, however late the form is sent."""
    older, newer = engine.start(napping, "h"), engine.start(napping, "i")
    settle(engine, older, newer)
    minute, now = 60_000_000, engine.now()
    with engine.store.begin() as tx:
        tx.execute(sa.update(runs).values(status="completed").where(runs.c.id.not_in([older.id, newer.id])))
        for run, minutes in ((older, 15), (newer, 5)):
            tx.execute(sa.update(runs).where(runs.c.id == run.id).values(created_at=now - minutes * minute))

    question = browser.get("/runs/bulk?action=cancel&name=actions.napping&until=10m")
    upto = re.search(r'name="upto" value="(\d+)"', question)[1]
    with monkeypatch.context() as later:
        later.setattr(engine, "now", lambda: now + 30 * minute)
        page = browser.post("/runs/bulk", action="cancel", name="actions.napping", until="10m", upto=upto)
    settle(engine, older, newer)

    assert "Cancel 1 run?" in question
    assert "1 runs are asked to stop" in page
    assert (older.status, newer.status) == ("cancelled", "running")


def test_a_bulk_does_not_reach_into_the_future(engine, browser):
    """A form that says that its question is of tomorrow is taken as one of now."""
    run = engine.start(napping, "j")
    settle(engine, run)
    tomorrow = engine.now() + 86_400_000_000
    page = browser.post(
        "/runs/bulk", action="cancel", name="actions.napping", id=run.id, until="1h", upto=str(tomorrow)
    )

    assert "0 runs are asked to stop" in page


def test_an_action_whose_outcome_cannot_be_written_is_shown_as_done(engine, browser, monkeypatch, caplog):
    """Nobody is led to do it again.  The log says what the audit lacks."""
    run = engine.start(napping, "a")
    settle(engine, run)

    def fail(*_: object) -> None:
        raise sa.exc.OperationalError("UPDATE", {}, OSError("gone"))

    monkeypatch.setattr(audit, "finish", fail)
    page = browser.post(f"/run/{run.id}/cancel")

    assert "asked to stop" in page
    settle(engine, run)
    assert run.status == "cancelled"
    assert "The audit lacks what came of an action" in caplog.text


def test_the_audit_goes_with_its_run(engine):
    """Pruning a run deletes its entries."""
    run = engine.start(scene.approval, json.dumps("x"))
    with engine.store.begin() as tx:
        audit.begin(tx, run.id, at=1, action="cancel", actor="ada", detail=None)
        retention.remove(tx, [run.id])

    assert entries(engine, run) == []


#: Whether the step of ``going_on`` fails.
failing = {"is": False}


@step(name="actions.fails", max_retries=0)
def fails() -> str:
    if failing["is"]:
        raise LookupError("no address")
    return "sent"


@workflow(name="actions.going_on")
async def going_on() -> str:
    return await fails()


def test_a_failed_run_goes_on_as_another(engine, browser, permissions, monkeypatch):
    """The page of each of the two shows both as a tree, and the audit of the old one names who did it."""
    monkeypatch.setitem(failing, "is", True)
    run = engine.start(going_on)
    settle(engine, run)
    monkeypatch.setitem(failing, "is", False)

    permissions.denied = {"fork"}
    assert f'/run/{run.id}/fork"' not in browser.get(f"/run/{run.id}")
    browser.post(f"/run/{run.id}/fork", 403)
    permissions.denied = set()
    assert "Go on from the failure" in browser.get(f"/run/{run.id}")
    page = browser.post(f"/run/{run.id}/fork")
    assert "goes on where the other one has stood" in page
    assert run.id in page
    with engine.store.read() as tx:
        (fork,) = fork_run.forks_of(tx, [run.id])
    settle(engine, engine.get_run(fork.id))

    assert engine.get_run(fork.id).result(timeout=1) == "sent"
    assert entries(engine, run) == [("fork", "ada", None, "done")]
    for shown in (run.id, fork.id):
        tree = re.search(r'id="forks">Forks(.*?)</section>', browser.get(f"/run/{shown}"), re.DOTALL)
        assert tree is not None
        assert tree[1].index(run.id) < tree[1].index("└") < tree[1].index(fork.id)
    assert "no step" in browser.post(f"/run/{run.id}/fork", 409, step="actions.unknown")
