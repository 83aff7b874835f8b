"""The dashboard's pages of schedules: what they show, and what their forms do."""

from __future__ import annotations

import secrets

import pytest
from driving import all_databases

from durable import create_schedule, duration, get_schedule, schedule, workflow
from durable.schedules import declared
from durable.store import schedules

pytestmark = all_databases()


@workflow(name="shown.nightly")
async def nightly() -> None:
    """Do nothing."""


@pytest.fixture
def found(engine):
    made = create_schedule(f"shown-{secrets.token_hex(4)}", nightly, cron="0 3 * * *", tz="Europe/Vienna")
    yield made
    with engine.store.begin() as tx:
        schedules.remove(tx, made.name)


def test_a_schedule_is_listed_with_its_next_time_and_has_a_page(browser, found):
    listed = browser.get("/schedules")
    assert found.name in listed
    assert found.next(1)[0].isoformat() in listed
    page = browser.get(f"/schedule/{found.name}")
    assert all(each.isoformat() in page for each in found.next(10))
    assert "Europe/Vienna" in page


def test_it_is_paused_resumed_and_triggered_with_the_audit(browser, found):
    assert "is paused" in browser.post(f"/schedule/{found.name}/pause")
    assert found.is_paused
    assert "paused already" in browser.post(f"/schedule/{found.name}/pause", status=409)
    assert "goes on" in browser.post(f"/schedule/{found.name}/resume")
    assert not found.is_paused
    assert "The run is started" in browser.post(f"/schedule/{found.name}/trigger")
    page = browser.get(f"/schedule/{found.name}")
    assert found.runs()[0].id in page
    for done in ("pause_schedule", "resume_schedule", "trigger_schedule", "ada"):
        assert done in page


def test_a_schedule_is_made_and_changed_by_a_form_and_deleted(browser, engine):
    name = f"formed-{secrets.token_hex(4)}"
    assert "shown.nightly" in browser.get("/schedules/new")
    fields = {"name": name, "workflow": "shown.nightly", "overlap": "queue", "catch_up": "all"}
    page = browser.post("/schedules/new", cron="0 3 * * *", tz="Europe/Vienna", **fields)
    assert "The schedule is made" in page
    assert "Europe/Vienna" in page
    browser.post("/schedules/new", every="1h", jitter="5m", until="2099-01-01T00:00+01:00", **fields)
    row = get_schedule(name).row()
    assert (row.tz, row.overlap, row.catch_up, row.jitter) == ("UTC", "queue", "all", 300_000_000)
    assert row.until_at == duration.from_iso("2099-01-01T00:00+01:00")
    assert "create_schedule" in browser.get(f"/schedule/{name}")
    assert "is deleted" in browser.post(f"/schedule/{name}/delete")
    assert "Schedule not found" in browser.get(f"/schedule/{name}", status=404)


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"cron": "0 0 30 2 *"}, 422, "never"),
        ({"cron": "0 3 * * *", "every": "1h"}, 422, "every"),
        ({"cron": "0 3 * * *", "args": "[1]"}, 422, "arguments"),
        ({"cron": "0 3 * * *", "args": "1"}, 400, "JSON list"),
        ({"cron": "0 3 * * *", "args": "["}, 400, "JSON"),
        ({"cron": "0 3 * * *", "until": "tomorrow"}, 400, "not a time"),
        ({"cron": "0 3 * * *", "workflow": "shown.unknown"}, 404, "Workflow not found"),
        ({"cron": "0 3 * * *", "name": "no name"}, 422, "no name"),
        ({"cron": "0 3 * * *", "overlap": "both"}, 422, "both"),
    ],
)
def test_a_form_that_makes_no_schedule_says_why(browser, fields, status, said):
    given = {"name": "shown-wrong", "workflow": "shown.nightly", "overlap": "skip", "catch_up": "last", **fields}
    assert said in browser.post("/schedules/new", status=status, **given)
    browser.get("/schedule/shown-wrong", status=404)


def test_a_range_is_backfilled_once(browser, found):
    day = {"start": "2026-05-01T00:00+02:00", "end": "2026-05-03T00:00+02:00"}
    assert "2 runs are started" in browser.post(f"/schedule/{found.name}/backfill", **day)
    assert "0 runs are started" in browser.post(f"/schedule/{found.name}/backfill", **day)
    assert len(found.runs()) == 2
    assert "not a time" in browser.post(f"/schedule/{found.name}/backfill", status=400, **{**day, "end": "soon"})
    after = {**day, "end": "9999-12-31T23:59:59-05:00"}
    assert "1 to 9999 in UTC" in browser.post(f"/schedule/{found.name}/backfill", status=400, **after)
    late = {**day, "end": "2099-01-01T00:00+00:00"}
    assert "in the future" in browser.post(f"/schedule/{found.name}/backfill", status=409, **late)
    assert "missing" in browser.post(f"/schedule/{found.name}/backfill", status=400, start=day["start"])


def test_a_declared_schedule_is_neither_changed_nor_deleted_by_a_form(browser, engine):
    name = f"declared-{secrets.token_hex(4)}"
    schedule(name, nightly, every="1h")
    try:
        assert "/delete" not in browser.get(f"/schedule/{name}")
        assert "declared in code" in browser.post(f"/schedule/{name}/delete", status=409)
        fields = {"name": name, "workflow": "shown.nightly", "every": "2h", "overlap": "skip", "catch_up": "last"}
        assert "declared in code" in browser.post("/schedules/new", status=409, **fields)
        assert "refused" in browser.get(f"/schedule/{name}")
    finally:
        declared.definitions.pop(name)
        with engine.store.begin() as tx:
            schedules.remove(tx, name)


@pytest.mark.parametrize("action", ["pause", "resume", "trigger", "backfill", "delete"])
def test_what_a_caller_may_not_do_is_refused_and_has_no_button(browser, permissions, found, action):
    permissions.denied = {f"{action}_schedule"}
    day = {"start": "2026-05-01T00:00+02:00", "end": "2026-05-03T00:00+02:00"}
    browser.post(f"/schedule/{found.name}/{action}", status=403, **day)
    assert f"/{action}" not in browser.get(f"/schedule/{found.name}")
    assert not found.is_paused
    assert found.runs() == []


def test_who_may_make_no_schedule_sees_no_form(browser, permissions):
    permissions.denied = {"create_schedule"}
    browser.get("/schedules/new", status=403)
    assert "Make a schedule" not in browser.get("/schedules")
    fields = {"name": "shown-denied", "workflow": "shown.nightly", "overlap": "skip", "catch_up": "last", "every": "1h"}
    browser.post("/schedules/new", status=403, **fields)
    browser.get("/schedule/shown-denied", status=404)


def test_an_unknown_schedule_is_a_page_that_says_so(browser):
    assert "Schedule not found" in browser.get("/schedule/nothing", status=404)


def test_the_list_has_pages(browser, engine, monkeypatch):
    monkeypatch.setattr("durable.dashboard.views_schedules.PAGE", 2)
    prefix = f"paged-{secrets.token_hex(4)}"
    names = [f"{prefix}-{number}" for number in range(3)]
    for name in names:
        create_schedule(name, nightly, every="1h")
    try:
        first = browser.get(f"/schedules?after={prefix}")
        assert names[1] in first
        assert names[2] not in first
        assert names[2] in browser.get(f"/schedules?after={names[1]}")
    finally:
        with engine.store.begin() as tx:
            for name in names:
                schedules.remove(tx, name)
