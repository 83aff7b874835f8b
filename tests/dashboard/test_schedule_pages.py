"""The dashboard's pages of schedules: what they show, and what their forms do."""

from __future__ import annotations

import secrets

import pytest
from driving import all_databases

from durable import create_schedule, workflow
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


@pytest.mark.parametrize("action", ["pause", "resume", "trigger"])
def test_what_a_caller_may_not_do_is_refused_and_has_no_button(browser, permissions, found, action):
    permissions.denied = {f"{action}_schedule"}
    browser.post(f"/schedule/{found.name}/{action}", status=403)
    assert f"/{action}" not in browser.get(f"/schedule/{found.name}")
    assert not found.is_paused
    assert found.runs() == []


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
