"""The numbers of the pages: refused requests, copies, versions, growing durations, percentiles; on all databases."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re

import pytest
import sqlalchemy as sa
from driving import settle

from durable import concurrency, create_webhook, receiver, sleep, step, verify, workflow
from durable.client import receiver_lists
from durable.engine import versions
from durable.recovery import Housekeeping
from durable.store import run_list, run_page, statistics
from durable.store.hooks import Refusals
from durable.store.schema import attributes, limit_keys, limits, receivers, runs
from durable.turns.drive import drive
from durable.web import create_blueprint

pytestmark = pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"], indirect=True)


@step(name="numbers.count_on")
def count_on(number: int) -> int:
    return number + 1


@workflow(name="numbers.many")
async def many(count: int) -> int:
    total = 0
    for _ in range(count):
        total = await count_on(total)
    return total


@workflow(name="numbers.signed")
async def signed() -> str:
    async for request in create_webhook(verify=verify.github("env:NUMBERS_SECRET")):
        return request.text()
    return ""


receiver("numbers.receiver", verify=verify.github("env:NUMBERS_SECRET"))


@step(name="numbers.reserve", limits=[concurrency("numbers.stock", 1, key="shop")])
def reserve(shop: str) -> None:
    pass


@workflow(name="numbers.reserving")
async def reserving() -> None:
    await asyncio.gather(*(reserve("shop <1>") for _ in range(3)))


@workflow(name="numbers.one_at_a_time", limits=[concurrency("numbers.runs", 1, key="customer")])
async def one_at_a_time(customer: str) -> None:
    await sleep("30d")


@workflow(name="numbers.napping")
async def napping() -> None:
    await sleep("30d")


def row_with(page: str, text: str) -> str:
    """The row of a table that has this text."""
    return next(row for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL) if text in row)


def test_refused_requests_and_copies_are_shown(engine, app, browser, monkeypatch):
    """Two wrong signatures, and one request three times: the pages say how often, and why the last was refused."""
    monkeypatch.setenv("NUMBERS_SECRET", "s3cret")
    app.register_blueprint(create_blueprint(engine))
    run = engine.start(signed)
    settle(engine, run)
    path = run.hooks()[0]["url"].removeprefix("https://hooks.test")
    body = b'{"paid": true}'
    good = "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()

    def send(signature: str) -> int:
        headers = {"X-Hub-Signature-256": signature, "X-GitHub-Delivery": run.id}
        return browser.client.post(path, data=body, headers=headers).status_code

    assert [send(each) for each in ("sha256=" + "0" * 64, "sha256=" + "1" * 64, good, good, good)] == [
        401,
        401,
        202,
        202,
        202,
    ]
    engine.flush_measures()
    settle(engine, run)

    listed, own = browser.get("/webhooks"), browser.get(f"/run/{run.id}")
    refused = row_with(listed, "the signature does not match")
    assert '<td class="number">2</td>' in refused
    assert run.id in refused
    assert "the signature does not match" in own
    request = row_with(listed, f"{run.id}/request/")
    assert '<td class="number">2</td>' in request
    link = re.search(r'href="/durable(/run/[^"]*/request/[^"]*)"', request)[1]
    assert "<dt>Duplicates</dt><dd>2</dd>" in browser.get(link)


def test_what_a_receiver_refused_is_shown(engine, app, browser, monkeypatch):
    """Twice and once more: the page adds up, and says why the last one was refused; the list counts them."""
    monkeypatch.setenv("NUMBERS_SECRET", "s3cret")
    app.register_blueprint(create_blueprint(engine))

    def send_unsigned() -> None:
        path = "/.well-known/workflow/v1/receive/numbers.receiver"
        assert browser.client.post(path, data=b"{}").status_code == 401

    send_unsigned()
    send_unsigned()
    engine.flush_measures()
    assert '<td class="number">2</td>' in row_with(browser.get("/webhooks"), "numbers.receiver")
    send_unsigned()
    engine.flush_measures()

    refused = row_with(browser.get("/webhooks"), "numbers.receiver")
    assert '<td class="number">3</td>' in refused
    assert "X-Hub-Signature-256" in refused
    (listed,) = [each for each in receiver_lists.list_receivers(engine) if each["name"] == "numbers.receiver"]
    assert (listed["refused"], listed["requests"]) == (3, {})
    with engine.store.begin() as tx:
        tx.execute(sa.delete(receivers))


def test_counts_that_cannot_be_written_are_kept(engine, monkeypatch):
    """The database refuses once: the next flush writes what the first could not."""
    run = engine.start(signed)
    settle(engine, run)
    with engine.store.begin() as tx:
        tx.execute(sa.text("UPDATE durable_requests SET duplicates = NULL"))
    engine.webhook_counts.take()
    engine.webhook_counts.duplicate("unknown", 3)
    kept = Refusals(2, 1, "no signature")
    engine.webhook_counts.refused("numbers.receiver", kept)
    with monkeypatch.context() as patched:
        patched.setattr(engine.store, "write", lambda act: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.flush_measures()

    counted = engine.webhook_counts.take()
    assert (counted.duplicates, counted.by_receiver) == ({"unknown": 3}, {"numbers.receiver": kept})


def test_a_process_shows_its_versions(engine, browser):
    """A heartbeat records the versions of durable, Celery and Python."""
    housekeeping = Housekeeping(engine)
    housekeeping.tick()
    try:
        page = browser.get("/workers")
    finally:
        housekeeping.stop()

    for name, version in versions().items():
        assert f"<div>{name} {version}</div>" in page


def test_limits_are_shown_with_what_waits(engine, browser):
    """One of three calls has the slot, two wait, and the key is paused."""
    run = engine.start(reserving)
    drive(engine, run.id)
    until = engine.now() + 3_600_000_000
    with engine.store.begin() as tx:
        tx.execute(sa.update(limit_keys).values(paused_until=until))

    row = row_with(browser.get("/workers"), "numbers.stock")
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
    assert cells[:6] == ["numbers.stock", "attempts", "shop &lt;1&gt;", "1", "1", "2"]
    assert "<time" in cells[7]

    assert "not paused any more" in browser.post("/limit/numbers.stock/resume", key="shop <1>")
    assert "has its new number" in browser.post("/limit/numbers.stock/set", n="3")
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row_with(browser.get("/workers"), "numbers.stock"))
    assert (cells[3], cells[7]) == ("3 (set)", "-")
    browser.post("/limit/numbers.stock/set", n="")
    assert "(set)" not in row_with(browser.get("/workers"), "numbers.stock")
    run.cancel()
    settle(engine, run)
    with engine.store.begin() as tx:
        for table in (limit_keys, limits):
            tx.execute(sa.delete(table))


@pytest.mark.parametrize(("name", "n", "status"), [("numbers.stock", "x", 400), ("numbers.unknown", "3", 409)])
def test_a_limit_that_cannot_be_set_says_why(browser, name, n, status):
    assert ("malformed" if status == 400 else "no limit") in browser.post(f"/limit/{name}/set", status=status, n=n)


def test_who_may_set_no_limit_has_no_form(engine, browser, permissions):
    run = engine.start(one_at_a_time, "a")
    permissions.denied = {"set_limit", "resume_limit"}
    page = browser.get("/workers")
    assert "numbers.runs" in page
    assert "/limit/" not in page
    browser.post("/limit/numbers.runs/set", status=403, n="3")
    browser.post("/limit/numbers.runs/resume", status=403)
    permissions.denied = set()
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row_with(browser.get("/workers"), "numbers.runs"))
    assert cells[:6] == ["numbers.runs", "runs", "a", "1", "1", "0"]
    run.cancel()
    settle(engine, run)


def test_the_durations_of_open_runs_can_grow(engine, browser):
    """The list and the page say since when the run goes on, for the script, and what time it was."""
    run = engine.start(napping)
    settle(engine, run)
    with engine.store.read() as tx:
        since = tx.execute(sa.select(runs.c.started_at).where(runs.c.id == run.id)).scalar_one()

    for path in (f"/runs?id={run.id}", f"/run/{run.id}"):
        page = browser.get(path)
        assert f'data-since="{since}"' in page
        assert abs(int(re.search(r'data-now="(\d+)"', page)[1]) - engine.now()) < 60_000_000


def test_pages_say_how_long_the_server_took(engine, browser):
    """The header Server-Timing has the time and the CPU time in milliseconds."""
    timing = browser.client.get("/durable/runs").headers["Server-Timing"]

    assert re.fullmatch(r"total;dur=\d+\.\d, cpu;dur=\d+\.\d", timing)


def test_percentiles_are_close_and_the_newest_runs_count(engine):
    """Of 200 runs of 1 to 200 seconds; with a limit, the numbers are of the newest, and say since when."""
    with engine.store.begin() as tx:
        tx.execute(sa.delete(runs))
        for number in range(1, 201):
            ended = 1_000_000_000_000 + number * 1_000_000
            row = {"id": f"p{number}", "name": "numbers.p", "turn": 1, "seq": 3, "last_at": ended, "digest": "d"}
            row |= {"created_at": 0, "started_at": ended - number * 1_000_000, "completed_at": ended}
            tx.execute(sa.insert(runs).values(status="failed" if number % 10 == 0 else "completed", **row))
    try:
        with engine.store.read() as tx:
            begin, until = 1_000_000_000_000, 1_000_000_000_000 + 400_000_000
            every = statistics.ended(tx, begin, until, 4)
            newest = statistics.ended(tx, begin, until, 4, limit=50)
    finally:
        with engine.store.begin() as tx:
            tx.execute(sa.delete(runs))

    counts = {(each.status, each.slice): each.count for each in every.ended}
    assert counts == {
        ("completed", 0): 90,
        ("completed", 1): 90,
        ("failed", 0): 9,
        ("failed", 1): 10,
        ("failed", 2): 1,
    }
    assert every.since == begin
    assert every.durations["numbers.p"].p50 == pytest.approx(100_000_000, rel=0.1)
    assert every.durations["numbers.p"].p95 == pytest.approx(190_000_000, rel=0.1)
    assert sum(each.count for each in newest.ended) == 51
    assert newest.since == begin + 150_000_000


def test_the_rare_attribute_is_walked(engine, monkeypatch):
    """Of two attributes, the one is walked that the newest runs have less often, whatever their order in the filter."""
    monkeypatch.setattr(run_list, "RARE", 5)
    monkeypatch.setattr(run_list, "WALKED", 3)
    with engine.store.begin() as tx:
        tx.execute(sa.delete(runs))
        tx.execute(sa.delete(attributes))
        for number in range(100):
            row = {"id": f"w{number:03}", "name": "numbers.w", "turn": 1, "seq": 3, "last_at": 0, "digest": "d"}
            tx.execute(sa.insert(runs).values(status="completed", created_at=number, **row))
            found = {"env": "live"} | ({"plan": "rare"} if number % 10 == 0 else {})
            for name, value in found.items():
                one = {"run_id": row["id"], "created_at": number, "name": name, "value": value}
                tx.execute(sa.insert(attributes).values(**one))
    try:
        with engine.store.read() as tx:
            for pairs in ({"env": "live", "plan": "rare"}, {"plan": "rare", "env": "live"}):
                wanted = run_list.RunFilter(attributes=pairs)
                page = run_list.page(tx, wanted, before=None, limit=10)
                assert [run.id for run in page.runs] == ["w090", "w080", "w070"]
    finally:
        with engine.store.begin() as tx:
            tx.execute(sa.delete(runs))
            tx.execute(sa.delete(attributes))


def test_events_of_chosen_operations(engine):
    """Of a run with many steps, the events of the steps that are asked for, and no others, in order."""
    run = engine.start(many, 20)
    settle(engine, run, within_secs=60)
    with engine.store.read() as tx:
        found = run_page.events_of_operations(tx, run.id, ["r#5", "r#3", "nothing", "r#'\"{}\\,"], 100)
        first = run_page.events_of_operations(tx, run.id, ["r#5", "r#3"], 1)

    assert [(event.op_id, event.kind.value) for event in found] == [
        ("r#3", "step_created"),
        ("r#3", "step_completed"),
        ("r#5", "step_created"),
        ("r#5", "step_completed"),
    ]
    assert [event.op_id for event in first] == ["r#3"]
