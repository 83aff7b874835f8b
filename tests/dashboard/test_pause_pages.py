"""Pauses on the dashboard: buttons and badges of runs, workflows and queues, and actions on many runs."""

from __future__ import annotations

import secrets

import pytest
from driving import settle
from test_actions import asking, entries

from durable import Request, receiver, workflow
from durable.client import pauses
from durable.store import audit, received, runs
from durable.web import create_blueprint

pytestmark = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def run(engine):
    started = engine.start(asking, secrets.token_hex(8))
    settle(engine, started)
    return started


def test_a_run_is_paused_and_resumed_on_its_page(engine, browser, run):
    """The page shows the badge, the reason and the other button; the audit has both."""
    page = browser.post(f"/run/{run.id}/pause", reason="a strike")
    assert run.paused is True
    assert "status-paused" in page
    assert "by itself since" in page
    assert ": a strike" in page
    assert f'action="/durable/run/{run.id}/unpause"' in page
    assert f'action="/durable/run/{run.id}/pause"' not in page
    assert "not paused" in browser.post(f"/run/{run.id}/pause", 409)

    page = browser.post(f"/run/{run.id}/unpause")
    assert run.paused is False
    assert "status-paused" not in page
    assert [(entry[0], entry[3].partition(":")[0]) for entry in entries(engine, run)] == [
        ("pause", "done"),
        ("pause", "refused"),
        ("unpause", "done"),
    ]


@workflow(name="pauses.family")
async def family(token: str) -> object:
    """A child run that waits; it waits too."""
    return await asking(token)


@pytest.fixture
def parent(engine):
    started = engine.start(family, secrets.token_hex(8))
    settle(engine, started)
    return started


@pytest.fixture
def child(engine, parent):
    with engine.store.read() as tx:
        (run_id,) = runs.open_children_of(tx, [parent.id])
    return engine.get_run(run_id)


def test_a_run_is_paused_and_resumed_with_its_child_runs(engine, browser, parent, child):
    """By a box that is not checked at first; the page shows which child runs are paused, and the audit says so."""
    box = 'name="children" value="yes"'
    page = browser.post(f"/run/{parent.id}/pause")
    assert (parent.paused, child.paused) == (True, False)
    assert "The run is paused." in page
    assert box in page
    browser.post(f"/run/{parent.id}/unpause")

    page = browser.post(f"/run/{parent.id}/pause", children="yes", reason="a strike")
    assert (parent.paused, child.paused) == (True, True)
    assert "The run and its open child runs are paused." in page
    assert "status-paused" in page[page.index('id="children"') :]
    refused = browser.post(f"/run/{parent.id}/pause", 409, children="yes")
    assert "It and its child runs have ended, or were paused already." in refused

    page = browser.post(f"/run/{parent.id}/unpause", children="yes")
    assert (parent.paused, child.paused) == (False, False)
    assert "The run and its child runs are not paused by themselves any more" in page
    assert "status-paused" not in page
    found = [(entry[0], entry[2], entry[3].partition(":")[0]) for entry in entries(engine, parent)]
    assert found == [
        ("pause", None, "done"),
        ("unpause", None, "done"),
        ("pause", "with child runs: a strike", "done"),
        ("pause", "with child runs", "refused"),
        ("unpause", "with child runs", "done"),
    ]


def test_a_run_without_child_runs_has_no_box_for_them(browser, run, parent):
    """Nor has a run that has ended a button at all."""
    assert 'name="children"' not in browser.get(f"/run/{run.id}")
    assert 'id="pause-children"' in browser.get(f"/run/{parent.id}")


def test_many_runs_are_paused_and_resumed_with_their_child_runs(engine, browser, parent, child):
    """By the box of the page that asks, which other actions do not have."""
    for action in ("pause", "resume"):
        assert 'name="children"' in browser.get(f"/runs/bulk?action={action}&run={parent.id}")
    assert 'name="children"' not in browser.get(f"/runs/bulk?action=cancel&run={parent.id}")
    browser.post("/runs/bulk", action="pause", run=parent.id, children="yes")
    assert (parent.paused, child.paused) == (True, True)
    browser.post("/runs/bulk", action="resume", run=parent.id, children="yes")
    assert (parent.paused, child.paused) == (False, False)
    assert [entry[2] for entry in entries(engine, parent)] == ["with child runs: bulk"] * 2
    browser.post("/runs/bulk", action="pause", run=parent.id)
    assert (parent.paused, child.paused) == (True, False)
    browser.post("/runs/bulk", action="cancel", run=parent.id, children="yes")
    assert entries(engine, parent)[-1][2] == "bulk"


def test_the_list_shows_paused_runs(browser, run):
    """With a badge; and a filter lists them alone."""
    run.pause()
    row = browser.get(f"/runs?id={run.id}")
    assert "status-paused" in row
    assert run.id in browser.get("/runs?paused=yes")
    run.resume()
    assert run.id not in browser.get("/runs?paused=yes")


def test_many_runs_are_paused_and_resumed(engine, browser, run):
    """After a page that asks; the permission is that of the bulk and of each run."""
    assert "Pause 1 run?" in browser.get(f"/runs/bulk?action=pause&run={run.id}")
    page = browser.post("/runs/bulk", action="pause", run=run.id)
    assert "1 runs are paused" in page
    assert run.paused is True
    assert "Resume 1 run?" in browser.get(f"/runs/bulk?action=resume&id={run.id}")
    browser.post("/runs/bulk", action="resume", id=run.id, upto=str(engine.now() + 1))
    assert run.paused is False


def test_a_workflow_and_a_queue_are_paused_on_their_pages(engine, browser, run):
    """Both are listed among what is paused, with a button that resumes them."""
    queue = f"q{secrets.token_hex(4)}"
    try:
        page = browser.post(f"/pause/workflow/{asking.name}")
        assert f'action="/durable/resume/workflow/{asking.name}"' in page
        assert "status-paused" in page
        assert run.paused is True
        assert f"by the workflow {asking.name}" in browser.get(f"/run/{run.id}").replace("  ", " ").replace("\n", "")
        page = browser.post(f"/pause/queue/{queue}")
        assert f'action="/durable/resume/queue/{queue}"' in page
    finally:
        pauses.resume(engine, "workflow", asking.name)
    browser.post(f"/resume/queue/{queue}")
    with engine.store.read() as tx:
        found = [(each.action, each.outcome) for each in audit.of_run(tx, audit.subject("queue", queue), 10)]
    assert found == [("resume_queue", "done"), ("pause_queue", "done")]
    assert "There is no workflow" in browser.post("/pause/workflow/unknown", 409)
    browser.post("/pause/nothing/x", 404)


def test_a_receiver_is_paused_on_the_page_of_webhooks(engine, app, browser, own_registry):
    """With a button each, and the number of requests that it holds; the page of what is paused has a button too."""
    app.register_blueprint(create_blueprint(engine))
    orders = receiver(f"pages.{secrets.token_hex(4)}")
    orders.start(when=lambda request: True)(taking)
    pause, resume = (f'action="/durable/{verb}/receiver/{orders.name}"' for verb in ("pause", "resume"))
    page = browser.get("/webhooks")
    assert (pause in page, resume in page) == (True, False)
    try:
        page = browser.post(f"/pause/receiver/{orders.name}")
        assert "It keeps the requests that come" in page
        assert (pause in page, resume in page) == (False, True)
        for number in range(2):
            sent = browser.client.post(f"/.well-known/workflow/v1/receive/{orders.name}", json={"id": number})
            assert sent.status_code == 202
        row = next(row for row in browser.get("/webhooks").split("<tr>") if resume in row)
        assert "status-paused" in row
        assert '<td class="number">2</td>' in row
        assert resume in browser.get("/workers")
    finally:
        page = browser.post(f"/resume/receiver/{orders.name}")
    assert pause in page
    with engine.store.read() as tx:
        found = [
            (each.action, each.actor, each.outcome)
            for each in audit.of_run(tx, audit.subject("receiver", orders.name), 9)
        ]
        outcomes = {row.outcome for row in received.newest(tx, receiver=orders.name, outcomes=(), limit=9)}
    assert found == [("resume_receiver", "ada", "done"), ("pause_receiver", "ada", "done")]
    assert outcomes == {"started"}
    assert "There is no receiver" in browser.post("/pause/receiver/unknown", 409)


def test_a_receiver_is_paused_by_those_who_may(app, browser, permissions, own_registry):
    """Who may not has no button and gets 403, and so does a form without the token of the browser."""
    orders = receiver(f"pages.{secrets.token_hex(4)}")
    orders.start(when=lambda request: True)(taking)
    permissions.denied = {"pause_receiver", "resume_receiver"}
    assert f"/pause/receiver/{orders.name}" not in browser.get("/webhooks")
    browser.post(f"/pause/receiver/{orders.name}", 403)
    browser.post(f"/resume/receiver/{orders.name}", 403)
    permissions.denied = set()
    assert app.test_client().post(f"/durable/pause/receiver/{orders.name}").status_code == 403


@workflow(name="pauses.taking")
async def taking(request: Request) -> None:
    pass


def test_authorize_is_asked_for_pauses(browser, permissions, run):
    """What it refuses is neither offered nor done."""
    permissions.denied = {"pause", "pause_workflow", "bulk_pause"}
    assert "/pause" not in browser.get(f"/run/{run.id}")
    browser.post(f"/run/{run.id}/pause", 403)
    browser.post(f"/pause/workflow/{asking.name}", 403)
    browser.get(f"/runs/bulk?action=pause&run={run.id}", 403)
    assert run.paused is False
