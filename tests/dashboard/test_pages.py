"""What the pages show, on SQLite and PostgreSQL, with runs in every state."""

from __future__ import annotations

import re

import pytest
import scene
import sqlalchemy as sa
from driving import settle

from durable import Request, continue_as_new, create_webhook, receiver, step, workflow
from durable.store import received
from durable.store.schema import runs as runs_table
from durable.web import create_blueprint

pytestmark = pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"], indirect=True)


@step(name="pages.add")
def add(number: int) -> int:
    return number + 1


@workflow(name="pages.many")
async def many(count: int) -> int:
    total = 0
    for _ in range(count):
        total = await add(total)
    return total


@workflow(name="pages.listening")
async def listening() -> str:
    webhook = create_webhook()
    async for request in webhook:
        return request.text()
    return ""


@workflow(name="pages.listening_for_one")
async def listening_for_one(request: Request) -> str:
    return request.text()


@pytest.fixture
def shop(engine):
    """Runs in every state; the database may be shared with other tests, so it is emptied first."""
    with engine.store.begin() as tx:
        for table in (
            "events",
            "runs",
            "inbox",
            "steps",
            "waits",
            "hooks",
            "requests",
            "received",
            "attributes",
            "audit",
        ):
            tx.execute(sa.text(f"DELETE FROM durable_{table}"))
    return scene.make(engine)


def ids(page: str) -> list[str]:
    """The runs that a list shows, in order."""
    return re.findall(r'name="run" value="([^"]*)"', page)


def test_the_list_filters(shop, browser):
    """Each filter shows the runs that match, and the tabs count them."""
    assert len(ids(browser.get("/runs"))) == 9
    assert ids(browser.get("/runs?status=failed")) == [shop.failed.id]
    assert ids(browser.get("/runs?name=scene.payment")) == [shop.listening.id]
    assert ids(browser.get(f"/runs?id={shop.sleeping.id}")) == [shop.sleeping.id]
    assert ids(browser.get("/runs?attribute=order%3Dorder-2")) == [shop.failed.id]
    assert ids(browser.get("/runs?attribute=order%3Dorder-2&attribute=customer%3Dother")) == []
    assert ids(browser.get("/runs?error=WAS+declined")) == [shop.failed.id]
    assert ids(browser.get("/runs?error=nothing+like+this")) == []
    assert ids(browser.get("/runs?until=1h")) == []
    assert len(ids(browser.get("/runs?since=1h"))) == 9
    assert ids(browser.get("/runs?name=scene.order&status=failed&since=1h")) == [shop.failed.id]


def test_the_list_says_what_runs_wait_for(shop, browser):
    """Each open run of the list shows what it waits for."""
    page = browser.get("/runs")

    for run, what in ((shop.sleeping, "a timer"), (shop.waiting, "a hook"), (shop.listening, "a webhook")):
        row = next(row for row in page.split("<tr>") if run.id in row)
        assert what in row


def test_what_a_run_waits_for_has_times_like_the_others(browser, shop):
    """Until when a sleep lasts, and since when a step is pending, as elements of time."""
    time = r'<time datetime="[0-9T:-]{19}Z" title="[^"]+ UTC">[0-9-]{10} [0-9:]{8}</time>'
    assert re.search(f"until {time}", browser.get(f"/run/{shop.sleeping.id}"))
    assert re.search(f"since {time}", browser.get(f"/run/{shop.pending.id}"))


def test_the_list_says_that_a_blocked_run_waits_for_an_operator(engine, shop, browser):
    """Even where it also has an open hook: the hook alone would not let it go on."""
    with engine.store.begin() as tx:
        tx.execute(sa.update(runs_table).where(runs_table.c.id == shop.waiting.id).values(status="blocked"))

    row = next(row for row in browser.get("/runs").split("<tr>") if shop.waiting.id in row)

    assert "an operator" in row
    assert "a hook" not in row


def test_pages_of_the_list_follow_each_other(engine, shop, browser, monkeypatch):
    """Every run is on exactly one page, forwards and backwards, also when many have the same time."""
    monkeypatch.setattr("durable.dashboard.views_runs.PAGE", 2)
    monkeypatch.setattr("durable.dashboard.views_runs.read.__defaults__", (2,))
    with engine.store.begin() as tx:
        tx.execute(sa.update(runs_table).values(created_at=1_700_000_000_000_000))

    seen, path = [], "/runs"
    while path:
        page = browser.get(path)
        seen.append(ids(page))
        older = re.search(r'href="/durable([^"]*)" rel="next"', page)
        path = older and older[1].replace("&amp;", "&")
    flat = [run_id for page in seen for run_id in page]
    assert flat == sorted(flat, reverse=True)
    assert len(flat) == len(set(flat)) == 9

    newer = re.search(r'href="/durable([^"]*)" rel="prev"', page)
    assert ids(browser.get(newer[1].replace("&amp;", "&"))) == seen[-2]


def test_a_filter_by_attributes_looks_at_a_part_at_a_time(shop, browser, monkeypatch):
    """Where a page looks at few runs, the links lead to all that match, each once."""
    monkeypatch.setattr("durable.store.run_list.WALKED", 1)
    for path in ("/runs?attribute=customer%3Dacme", "/runs?attribute=customer%3Dacme&status=completed"):
        seen, following = [], path
        while following:
            page = browser.get(following)
            seen += ids(page)
            older = re.search(r'href="/durable([^"]*)" rel="next"', page)
            following = older and older[1].replace("&amp;", "&")
        assert len(seen) == len(set(seen)) == (2 if "status" in path else 3)


def test_the_page_of_a_failed_run(shop, browser):
    """It shows the arguments, the error with its traceback, each attempt, and the log."""
    page = browser.get(f"/run/{shop.failed.id}")

    assert "PaymentDeclined" in page
    assert "card of order-2 was declined" in page
    assert "Traceback" in page
    assert "3 attempts" in page
    assert page.count("bar-attempt is-failed") >= 3
    assert "&#34;amount&#34;: 999.0" in page
    assert "run failed" in page


def test_the_pages_of_other_runs(shop, browser):
    """A completed run shows its result, a waiting one what it waits for, a parent and a child each other."""
    assert "charge-order-1" in browser.get(f"/run/{shop.completed.id}")
    assert "hatch" in browser.get(f"/run/{shop.sleeping.id}")
    assert "customer called" in browser.get(f"/run/{shop.cancelled.id}")
    assert "The log is empty" in browser.get(f"/run/{shop.pending.id}")
    assert "order-7" in browser.get(f"/run/{shop.pending.id}")
    parent = browser.get(f"/run/{shop.parent.id}")
    child_id = re.search(r'href="/durable/run/([0-9a-f]+)">child run', parent)[1]
    assert shop.parent.id in browser.get(f"/run/{child_id}")


@workflow
async def shown_generations(left: int) -> int:
    if left:
        continue_as_new(left - 1)
    return left


def test_generations_link_to_each_other(engine, browser):
    """A page has links to the generation before it and the one after it."""
    run = engine.start(shown_generations, 2)
    for number in range(3):
        settle(engine, run.generations()[number])
    first, second, third = (each.id for each in run.generations())

    page = browser.get(f"/run/{second}")
    assert "Continues</dt><dd><a" in page
    assert "Continued by" in page
    assert first in page
    assert third in page
    assert "Continued by" not in browser.get(f"/run/{third}")
    assert first in browser.get("/runs?status=continued")


def test_an_operation_shows_its_arguments_attempts_and_errors(shop, browser):
    """The page behind a bar has the arguments of the step and the error of each attempt."""
    page = browser.get(f"/run/{shop.failed.id}/operation/r%232")

    assert "order-2" in page
    assert page.count("PaymentDeclined") >= 3
    assert "Step retrying" in page


def test_the_log_and_the_timeline_have_pages(engine, browser, monkeypatch):
    """Of a run with many steps, a page shows a part, and its links lead to every other part."""
    monkeypatch.setattr("durable.dashboard.timeline_section.ROWS", 20)
    monkeypatch.setattr("durable.dashboard.views_run.LOG_PAGE", 30)
    run = engine.start(many, 25)
    settle(engine, run, within_secs=60)

    page = browser.get(f"/run/{run.id}")
    assert page.count("bar-attempt is-completed") == 20 + 1  # one in the legend
    assert len(re.findall(r"/operation/r%23\d+\">r#", page)) == 30 - 1
    earlier = re.search(r'href="/durable([^"]*)#timeline">← Earlier', page)[1].replace("&amp;", "&")
    assert browser.get(earlier).count("bar-attempt is-completed") == 5 + 1
    more = re.search(r'href="/durable([^"]*)#timeline">Show more', page)[1].replace("&amp;", "&")
    assert browser.get(more).count("bar-attempt is-completed") == 25 + 1
    first = browser.get(f"/run/{run.id}?log=1")
    assert "run created" in first
    assert "Later" in first


def test_the_page_of_a_request_hides_credentials(engine, app, browser):
    """Headers and body of a request are shown, and headers that prove who sent it are not."""
    app.register_blueprint(create_blueprint(engine))
    run = engine.start(listening)
    settle(engine, run)
    path = run.hooks()[0]["url"].removeprefix("https://hooks.test")
    headers = {"Authorization": "Bearer hush-hush", "X-Other": "visible", "Content-Type": "application/json"}
    assert browser.client.post(f"{path}?n=1", data='{"paid": true}', headers=headers).status_code == 202
    settle(engine, run)

    page = browser.get(f"/run/{run.id}")
    request = re.search(r'href="/durable(/run/[^"]*/request/[^"]*)"', page)[1]
    shown = browser.get(request)
    listed = browser.get("/webhooks")

    assert "hush-hush" not in shown
    assert "visible" in shown
    assert "&#34;paid&#34;: true" in shown
    assert "POST" in shown
    assert path.rpartition("/")[2] not in page + shown + listed
    assert request in listed
    assert "202" in shown


def test_workflows_shows_counts_rates_and_durations(shop, browser):
    """Open runs, ended runs by state, the share that failed, and percentiles, by workflow."""
    page = browser.get("/workflows?window=hour")

    row = next(row for row in page.split("<tr>") if "name=scene.order&amp;status=failed" in row)
    assert ">2</a>" in row
    assert "33 %" in row
    assert re.search(r"2 runs ended|3 runs ended", row)


def test_a_page_that_has_not_changed_answers_304(shop, browser):
    """A list whose runs stay the same costs its reader no page; a change brings a new one."""
    etag = browser.client.get("/durable/runs").headers["ETag"]
    again = browser.client.get("/durable/runs", headers={"If-None-Match": etag})
    shop.sleeping.cancel()
    changed = browser.client.get("/durable/runs", headers={"If-None-Match": etag})

    assert again.status_code == 304
    assert changed.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/runs?status=x",
        "/runs?since=yesterday",
        "/runs?attribute=x",
        "/runs?before=1",
        "/runs?error=a%00",
        "/run/x/?log=z",
    ],
)
def test_malformed_parameters_are_refused(engine, browser, path):
    """A malformed filter gets a page that says what fits, and never a traceback."""
    page = browser.get(path, 404 if path.startswith("/run/") else 400)

    assert "Traceback" not in page


def test_an_unknown_run_is_not_found(engine, browser):
    """Unknown ids, also those that no database takes, get a 404."""
    for run_id in ("nothing", "a%00b", "x" * 100, "%C3%A9"):
        assert "Run not found" in browser.get(f"/run/{run_id}", 404)
        assert "Run not found" in browser.post(f"/run/{run_id}/cancel", 404)


def test_large_and_missing_values(engine, browser, shop):
    """A value of half a megabyte is cut on the page, and one that is gone says so."""
    run = engine.start(scene.approval, "x" * 100)
    large = engine.start(scene.reminder, "y" * 600_000)
    settle(engine, run, large)

    page = browser.get(f"/run/{large.id}")
    assert "more characters" in page
    assert len(page) < 200_000
    with engine.store.begin() as tx:
        tx.execute(sa.text("DELETE FROM durable_payloads"))
    assert "is not there" in browser.get(f"/run/{large.id}")


def test_webhooks_shows_what_became_of_requests_to_receivers(engine, app, browser, own_registry):
    """The receiver, the rule and the outcome; a request that has reached no run has a page too, with the reason."""
    app.register_blueprint(create_blueprint(engine))
    shop = receiver("pages.shop", dedupe="/id")
    shop.start(when=lambda request: request.json()["type"] == "paid")(listening_for_one)
    for body in ({"id": 1, "type": "paid"}, {"id": 2}, {"id": 3, "type": "other"}):
        browser.client.post("/.well-known/workflow/v1/receive/pages.shop", json=body)

    page = browser.get("/webhooks")
    by_outcome = {
        outcome: next(row for row in page.split("<tr>") if f">{outcome}</span>" in row)
        for outcome in ("started", "unroutable", "ignored")
    }
    shown = {
        outcome: browser.get(re.search(r'href="/durable(/run/[^"]*/request/[^"]*)"', row)[1])
        for outcome, row in by_outcome.items()
    }

    assert "start pages.listening_for_one" in by_outcome["started"]
    assert "pages.listening_for_one" in by_outcome["started"].partition("</span></td>")[2]
    assert "receiver:" not in re.sub(r'href="[^"]*"', "", page)
    assert "when raised KeyError: &#39;type&#39;" in shown["unroutable"]
    assert all("pages.shop" in each for each in shown.values())
    assert "&#34;id&#34;: 3" in shown["ignored"]


def test_a_request_to_a_receiver_is_routed_again_by_a_button(engine, app, browser, own_registry, permissions):
    """Once the rule is corrected; who may not has no button, and what has reached a run is left."""
    app.register_blueprint(create_blueprint(engine))
    rule = {"works": False}
    shop = receiver("pages.again")
    shop.start(when=lambda request: rule["works"] or request.json()["type"])(listening_for_one)
    browser.client.post("/.well-known/workflow/v1/receive/pages.again", json={"id": 1})
    with engine.store.read() as tx:
        (kept,) = received.newest(tx, receiver="pages.again", outcomes=(), limit=2)

    permissions.denied = {"retry_request"}
    assert kept.request_id not in re.findall(r"/request/([^/\"]+)/retry", browser.get("/webhooks"))
    browser.post(f"/request/{kept.request_id}/retry", status=403)
    permissions.denied = set()
    assert kept.request_id in re.findall(r"/request/([^/\"]+)/retry", browser.get("/webhooks"))
    assert "has reached 0 runs" in browser.post(f"/request/{kept.request_id}/retry")
    rule["works"] = True
    assert "has reached 1 runs" in browser.post(f"/request/{kept.request_id}/retry")
    assert "has reached a run" in browser.post(f"/request/{kept.request_id}/retry", status=409)
    with engine.store.read() as tx:
        assert received.find(tx, kept.request_id).outcome == "started"
