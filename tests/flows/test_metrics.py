"""What Prometheus scrapes, after runs, webhooks and losses on every database; a Flask client plays Prometheus."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable

import flask
import pytest
import sqlalchemy as sa
import test_indexes
from driving import all_databases, settle
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families
from test_indexes import scans

from durable import (
    Durable,
    FatalError,
    Request,
    close_stream,
    concurrency,
    create_hook,
    create_webhook,
    emit,
    get_step_metadata,
    sleep,
    step,
    step_session,
    verify,
    workflow,
)
from durable.attempts.outcome import give_up
from durable.attempts.timeout import timed_out
from durable.metrics import create_metrics, snapshot
from durable.recovery import sweep
from durable.recovery.housekeeping import Housekeeping
from durable.store import claimed_attempts
from durable.store import steps as step_rows
from durable.store.schema import totals
from durable.turns.drive import drive
from durable.web import create_blueprint

pytestmark = all_databases()

#: A fixture: a database with many rows.
full = test_indexes.full


@step(name="metrics.good")
def good(value: int) -> int:
    return value


@step(name="metrics.flaky", retry_backoff=0)
def flaky() -> None:
    if get_step_metadata().attempt == 1:
        raise ValueError("not yet")


@step(name="metrics.bad", max_retries=0)
def bad() -> None:
    raise FatalError("never")


@workflow(name="metrics.pay")
async def pay(how: str) -> int:
    await good(1)
    if how == "flaky":
        await flaky()
    if how == "bad":
        await bad()
    if how == "sleepy":
        await sleep("20ms")
    if how == "waits":
        await sleep("1h")
    return 1


@step(name="metrics.keyed", limits=[concurrency("metrics.keys", 1, key="key")])
def one_of(key: str) -> None:
    pass


@workflow(name="metrics.keyed_calls")
async def keyed(count: int) -> None:
    await asyncio.gather(*(one_of(key) for key in ("a", "b") for _ in range(count)))


@step(name="metrics.answer")
def answer(request: Request) -> None:
    request.respond_with({"ok": True})


@workflow(name="metrics.listen")
async def listen() -> None:
    async for request in create_webhook(respond_with="manual", timeout="20ms", verify=verify.github("env:SECRET")):
        await answer(request)


@pytest.fixture
def scrape(engine: Durable) -> Callable[..., dict[str, float]]:
    """Scrape ``/metrics``; the samples by name and labels, as a query writes them."""
    with engine.store.begin() as tx:
        tx.execute(sa.delete(totals))
    engine.measures.take()
    app = flask.Flask("scraped")
    app.register_blueprint(create_blueprint(engine))
    app.register_blueprint(create_metrics(engine))

    def read() -> dict[str, float]:
        response = app.test_client().get("/metrics")
        assert response.status_code == 200
        found = {}
        for family in text_string_to_metric_families(response.text):
            for each in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(each.labels.items()))
                found[each.name + (f"{{{labels}}}" if labels else "")] = each.value
        return found

    read.client = app.test_client()
    return read


def test_runs_are_counted_by_how_they_end(engine, scrape):
    """Each run is counted once when it starts, and once when it ends, by its workflow."""
    runs = [pay.start(how) for how in ("good", "good", "flaky", "bad", "sleepy", "waits")]
    settle(engine, *runs)
    runs[-1].cancel()
    settle(engine, *runs)
    found = scrape()

    counted = {
        each: found.get(f'durable_runs_{each}_total{{workflow="metrics.pay"}}')
        for each in ("started", "completed", "failed", "cancelled", "blocked")
    }
    assert counted == {"started": 6, "completed": 4, "failed": 1, "cancelled": 1, "blocked": None}


def test_attempts_are_counted_by_step_and_outcome(engine, scrape):
    """A retried attempt and the one that follows are two; every attempt has a duration and a time that it waited."""
    settle(engine, *(pay.start(how) for how in ("good", "flaky", "bad")))
    found = scrape()

    attempts = {key: value for key, value in found.items() if key.startswith("durable_step_attempts_total")}
    assert attempts == {
        'durable_step_attempts_total{outcome="completed",step="metrics.good"}': 3,
        'durable_step_attempts_total{outcome="completed",step="metrics.flaky"}': 1,
        'durable_step_attempts_total{outcome="retried",step="metrics.flaky"}': 1,
        'durable_step_attempts_total{outcome="failed",step="metrics.bad"}': 1,
    }
    for histogram in ("durable_step_attempt_duration_seconds", "durable_step_schedule_to_start_seconds"):
        counts = {step: found[f'{histogram}_count{{step="metrics.{step}"}}'] for step in ("good", "flaky", "bad")}
        assert counts == {"good": 3, "flaky": 2, "bad": 1}
    assert found['durable_turn_duration_seconds_count{workflow="metrics.pay"}'] >= 7


def test_buckets_are_cumulative(engine, scrape):
    """Each bucket holds those below it, the last one all; the sum is in seconds."""
    for micros in (500, 2_000, 40_000, 10_000_000_000):
        engine.measures.observe(snapshot.measures.TURN_SECONDS, micros, "w")
    found = scrape()

    name = "durable_turn_duration_seconds"
    buckets = {key.split('le="')[1].split('"')[0]: value for key, value in found.items() if key.startswith(name + "_b")}
    assert (buckets["0.001"], buckets["0.0025"], buckets["0.025"], buckets["0.05"]) == (1, 2, 2, 3)
    assert (buckets["7200.0"], buckets["+Inf"], found[name + '_count{workflow="w"}']) == (3, 4, 4)
    assert found[name + '_sum{workflow="w"}'] == pytest.approx(10_000.0425)


def test_late_timers_are_measured(engine, scrape):
    """A sleep that is over is counted, with how late it was."""
    settle(engine, pay.start("sleepy"))
    found = scrape()

    assert found["durable_timer_lateness_seconds_count"] == 1
    assert 0 <= found["durable_timer_lateness_seconds_sum"] < 10


def test_attempts_that_are_given_up_say_why(engine, scrape):
    """One attempt's process is lost, another takes too long: both are counted, and also as retried."""
    for error in (None, timed_out):
        run = pay.start("good")
        drive(engine, run.id)
        with engine.store.begin() as tx:
            tx.execute(
                sa.update(step_rows.steps)
                .where(step_rows.steps.c.run_id == run.id)
                .values(status="claimed", claim="c", claimed_at=engine.now(), worker_id="gone")
            )
        with engine.store.read() as tx:
            held = claimed_attempts.of_run(tx, run.id, 1)[0]
        give_up(engine, held, error and error(held))
        run.cancel()
        settle(engine, run)
    found = scrape()

    given_up = {key: value for key, value in found.items() if "given_up_total" in key}
    assert given_up == {
        'durable_step_attempts_given_up_total{reason="process_lost",step="metrics.good"}': 1,
        'durable_step_attempts_given_up_total{reason="timeout",step="metrics.good"}': 1,
    }
    assert found['durable_step_attempts_total{outcome="retried",step="metrics.good"}'] == 2


def test_webhook_requests_are_counted_by_answer(engine, scrape, monkeypatch):
    """An unknown address, a forged signature and a held request: each by its status, the last with its hold time."""
    monkeypatch.setenv("SECRET", "s")
    run = listen.start()
    settle(engine, run)
    url = run.hooks()[0]["url"].removeprefix("https://hooks.test")
    signature = "sha256=" + hmac.new(b"s", b"{}", "sha256").hexdigest()
    statuses = [
        scrape.client.post(url.rsplit("/", 1)[0] + "/" + "x" * 43).status_code,
        scrape.client.post(url, data=b"{}", headers={"X-Hub-Signature-256": "sha256=00"}).status_code,
        scrape.client.post(url, data=b"{}", headers={"X-Hub-Signature-256": signature}).status_code,
    ]
    found = scrape()
    run.cancel()
    settle(engine, run)

    assert statuses == [404, 401, 202]
    requests = {key: value for key, value in found.items() if key.startswith("durable_webhook_requests_total")}
    assert requests == {f'durable_webhook_requests_total{{status="{status}"}}': 1 for status in statuses}
    assert found['durable_webhook_verification_failures_total{sender="github"}'] == 1
    assert found['durable_webhook_hold_seconds_count{outcome="unanswered"}'] == 1
    assert 0.02 <= found['durable_webhook_hold_seconds_sum{outcome="unanswered"}'] < 10


def test_messages_are_counted_when_they_are_sent_lost_and_sent_again(engine, scrape, monkeypatch):
    """The sweep takes a turn's message for lost, and sends another one."""
    run = pay.start("good")
    sent = scrape()['durable_messages_sent_total{kind="turn"}']
    keeper = Housekeeping(engine)
    keeper._beat()
    later = engine.now() + 6_000_000
    with monkeypatch.context() as patch:
        patch.setattr(engine, "now", lambda: later)
        engine.celery.control.purge()
        sweep.sweep(engine)
    keeper._unregister()
    settle(engine, run)
    found = scrape()

    resent = found['durable_messages_resent_total{kind="turn"}']
    assert resent >= 1
    assert resent == found['durable_messages_lost_total{kind="turn"}']
    assert found['durable_messages_sent_total{kind="turn"}'] >= sent + resent


def test_gauges_show_what_is_there_now(engine, scrape):
    """An open run, its step that waits for a worker, a live process and its sweep."""
    before = scrape()
    keeper = Housekeeping(engine)
    keeper.tick()
    run = pay.start("good")
    waiting = scrape()
    drive(engine, run.id)
    running = scrape()
    keeper._unregister()
    settle(engine, run)
    after = scrape()

    def grown(found, key):
        return found.get(key, 0) - before.get(key, 0)

    assert grown(waiting, 'durable_runs{state="pending"}') == 1
    assert grown(running, 'durable_runs{state="running"}') == 1
    assert grown(waiting, "durable_workers_alive") == 1
    assert grown(waiting, 'durable_queue_backlog{kind="turn",queue="celery"}') == 1
    assert waiting['durable_queue_oldest_age_seconds{kind="turn",queue="celery"}'] >= 0
    assert grown(running, 'durable_queue_backlog{kind="step",queue="celery"}') == 1
    assert 0 <= waiting["durable_sweep_lag_seconds"] < 60
    assert grown(after, 'durable_runs{state="running"}') == 0
    assert grown(after, "durable_workers_alive") == 0


def test_steps_that_wait_for_a_limit_are_counted_by_limit(engine, scrape):
    """Over all keys, and without those that have their slots."""
    run = engine.start(keyed, 3)
    drive(engine, run.id)
    waiting = scrape()
    run.cancel()
    settle(engine, run)

    assert waiting['durable_limit_backlog{limit="metrics.keys"}'] == 4
    assert 'durable_limit_backlog{limit="metrics.keys"}' not in scrape()


def test_counters_stay_when_runs_are_pruned(engine, scrape):
    """A total does not depend on rows that retention deletes."""
    run = pay.start("good")
    settle(engine, run)
    before = scrape()
    with engine.store.begin() as tx:
        for table in ("events", "runs"):
            key = "id" if table == "runs" else "run_id"
            tx.execute(sa.text(f"DELETE FROM durable_{table} WHERE {key} = :run"), {"run": run.id})
    after = scrape()

    completed = 'durable_runs_completed_total{workflow="metrics.pay"}'
    assert (before[completed], after[completed]) == (1, 1)


def test_a_scrape_is_what_prometheus_accepts(engine, scrape):
    """Both formats: the text format, and OpenMetrics where the client asks for it."""
    settle(engine, pay.start("flaky"))
    text = scrape.client.get("/metrics")
    openmetrics = scrape.client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert text.content_type.startswith("text/plain")
    assert openmetrics.content_type.startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")
    assert text.headers["Cache-Control"] == "no-store"


def test_a_registry_of_the_application_is_served_too(engine):
    """``registry=``: the application's own metrics and durable's on one page."""
    registry = CollectorRegistry()
    Counter("shop_orders", "Orders.", registry=registry).inc(3)
    app = flask.Flask("own")
    app.register_blueprint(create_metrics(engine, registry=registry, url_prefix="/internal"))
    text = app.test_client().get("/internal/metrics").text

    assert "shop_orders_total 3.0" in text
    assert "durable_workers_alive" in text


def test_no_label_of_a_stranger_becomes_a_series(engine, scrape):
    """Methods, paths and tokens that a sender chooses appear in no label."""
    base = "/.well-known/workflow/v1/webhook/"
    for number in range(5):
        scrape.client.post(f"{base}{'s' * 40}{number}")
        scrape.client.open(f"{base}nonsense-{number}", method="BREW")
    found = scrape()

    requests = {key for key in found if key.startswith("durable_webhook_requests_total")}
    assert requests <= {f'durable_webhook_requests_total{{status="{status}"}}' for status in (404, 429)}


@step(name="metrics.emits")
def emits(count: int) -> None:
    for number in range(count):
        emit("numbers", number)
    close_stream("numbers")
    emit("numbers", "dropped")


@step(name="metrics.emits_transactional", semantics="transactional", retry_backoff=0)
def emits_transactional() -> None:
    step_session().execute(sa.select(sa.literal(1)))
    emit("booked", 1)
    if get_step_metadata().attempt == 1:
        raise OSError("rolled back")


@workflow(name="metrics.streams")
async def streaming() -> None:
    emit("phase", "begun")
    emit("closed", 1)
    close_stream("closed")
    await emits(3)
    await emits_transactional()
    await create_hook()


def test_items_of_streams_are_counted_once_they_are_committed(engine, scrape):
    """By what has emitted them, with their size; not what was rolled back or came after the end of its stream."""
    before = scrape()["durable_streams_open"]
    run = streaming.start()
    settle(engine, run)
    found = scrape()

    assert found['durable_stream_items_total{source="step"}'] == 4
    assert found['durable_stream_bytes_total{source="step"}'] == 4
    assert found['durable_stream_items_total{source="workflow"}'] == 2
    assert found['durable_stream_bytes_total{source="workflow"}'] == len('"begun"1')
    assert found["durable_streams_open"] - before == 2
    run.cancel()
    settle(engine, run)
    assert scrape()["durable_streams_open"] == before


def test_queries_of_a_scrape_use_an_index(full):
    """The very statements of a scrape: without an index, they read work lists only, and those up to a limit."""
    asked = {}

    def note(connection, cursor, statement, parameters, context, executemany):
        if statement.lstrip().upper().startswith("SELECT") and "durable_" in statement:
            asked[statement] = parameters

    sa.event.listen(full.store.engine, "before_cursor_execute", note)
    snapshot.read(full)
    sa.event.remove(full.store.engine, "before_cursor_execute", note)

    whole = {statement: found for statement, args in asked.items() if (found := scans(full, statement, args))}
    assert [statement for statement in whole if "LIMIT" not in statement] == []
