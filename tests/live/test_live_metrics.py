"""Metrics of real prefork workers and of gunicorn with two workers: exact, and never lower than before."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventually import eventually
from live_flows import counts, gated_orders
from processes import Deployment, deployed, fetch
from prometheus_client.parser import text_string_to_metric_families
from servers import new_broker, new_database

from durable.store import workers

pytestmark = pytest.mark.live

STEPS = 3
STARTED = 'durable_runs_started_total{workflow="live_flows.counts"}'
COMPLETED = 'durable_runs_completed_total{workflow="live_flows.counts"}'
ATTEMPTS = 'durable_step_attempts_total{outcome="completed",step="live_flows.count_on"}'


@pytest.fixture(params=["postgresql-redis", "mariadb-rabbitmq"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """A worker with two children, and gunicorn with two workers."""
    database, broker = request.param.split("-")
    with (
        new_database(database, tmp_path) as database_url,
        new_broker(broker, tmp_path) as broker_url,
        deployed(Deployment(tmp_path, database_url, broker_url, "live_app", "metrics_app:create_app()")) as made,
    ):
        made.start_worker(ready=False)
        made.start_web("--workers", "2", "--threads", "8", ready=False)
        made.wait_for("worker", "web")
        yield made


def scrape(site: Deployment) -> dict[str, float]:
    """The samples of one scrape, by name and labels."""
    answer = fetch("GET", f"{site.url}/metrics")
    assert answer.status == 200
    found = {"process": float(answer.headers["X-Process"])}
    for family in text_string_to_metric_families(answer.data.decode()):
        for each in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(each.labels.items()))
            found[each.name + (f"{{{labels}}}" if labels else "")] = each.value
    return found


def counters(found: dict[str, float]) -> dict[str, float]:
    """What must never become lower."""
    return {
        key: value
        for key, value in found.items()
        if key.partition("{")[0].endswith(("_total", "_bucket", "_count", "_sum"))
    }


def do_runs(site: Deployment, number: int) -> None:
    """Do so many runs, side by side."""
    for run in [site.engine.start(counts, STEPS) for _ in range(number)]:
        assert run.result(timeout="90s") == STEPS


def is_at(site: Deployment, runs: int) -> bool:
    """Whether the totals say that so many runs have ended."""
    found = scrape(site)
    return found.get(COMPLETED) == runs and found.get(ATTEMPTS) == runs * STEPS


def test_counts_are_exact_whichever_process_is_asked(site):
    """The children of the worker and gunicorn's workers count by themselves; both of gunicorn's show the sums."""
    do_runs(site, 12)
    order = site.engine.start(gated_orders, str(site.folder))
    url = eventually(lambda: [hook["url"] for hook in order.hooks()], what="the webhook is open")[0]
    assert [fetch("POST", f"{url}?n={n}", b"x").status for n in range(9)] == [200] * 9
    order.cancel()
    eventually(lambda: order.status == "cancelled", what="the run is cancelled")

    answered = 'durable_webhook_requests_total{status="200"}'
    cancelled = 'durable_runs_cancelled_total{workflow="live_flows.gated_orders"}'
    eventually(lambda: is_at(site, 12) and scrape(site).get(answered) == 9, what="all counts are flushed")
    eventually(lambda: scrape(site).get(cancelled) == 1, what="the cancelled run is counted")

    by_process = {}
    eventually(lambda: by_process.update({(found := scrape(site))["process"]: found}) or len(by_process) == 2)
    for found in by_process.values():
        assert (found[STARTED], found[COMPLETED], found[ATTEMPTS]) == (12, 12, 12 * STEPS)
        assert found[answered] == 9
        assert found['durable_webhook_hold_seconds_count{outcome="answered"}'] == 9
        assert found['durable_step_attempt_duration_seconds_count{step="live_flows.count_on"}'] == 12 * STEPS
        assert found["durable_workers_alive"] == 2
        # Of the turns, the web processes have sent one for each request; the test's own process counts nothing.
        assert found['durable_messages_sent_total{kind="turn"}'] >= 9


def test_counts_do_not_go_back_when_workers_are_killed(site):
    """Nothing that was flushed is lost when a worker or a web process is killed; what follows is added."""
    do_runs(site, 6)
    eventually(lambda: is_at(site, 6), what="the first runs are counted")
    before = counters(scrape(site))

    site.stop("worker", signal.SIGKILL)
    site.stop("web", signal.SIGKILL)
    site.start_web("--workers", "2", "--threads", "8")
    between = counters(scrape(site))
    site.start_worker()
    do_runs(site, 5)
    eventually(lambda: is_at(site, 11), what="the runs of the new worker are added")
    after = counters(scrape(site))

    assert {key: (value, between.get(key)) for key, value in before.items() if between.get(key, -1) < value} == {}
    assert {key: (value, after.get(key)) for key, value in between.items() if after.get(key, -1) < value} == {}


def test_counts_never_go_back_while_children_are_killed(site):
    """Scrapes during a series of kills: no counter is ever lower than in the scrape before."""
    runs = [site.engine.start(counts, STEPS) for _ in range(30)]
    seen = counters(scrape(site))
    for _ in range(3):
        child = eventually(lambda: children(site), what="the worker has children")[0]
        os.kill(child, signal.SIGKILL)
        eventually(lambda child=child: child not in children(site), what="the child is reaped")
        for _ in range(5):
            found = counters(scrape(site))
            assert {key: (value, found.get(key)) for key, value in seen.items() if found.get(key, -1) < value} == {}
            seen = found
    for run in runs:
        assert run.result(timeout="90s") == STEPS


def children(site: Deployment) -> list[int]:
    """The worker's processes that send heartbeats."""
    with site.engine.store.read() as tx:
        return [each.pid for each in workers.alive(tx)]


def test_a_process_that_ends_adds_what_it_has_counted(site):
    """SIGTERM right after the last result: workers and gunicorn flush before they end, without a heartbeat more."""
    do_runs(site, 4)
    for _ in range(6):
        fetch("POST", f"{site.url}/.well-known/workflow/v1/webhook/{'x' * 43}")
    site.stop("worker", signal.SIGTERM)
    site.stop("web", signal.SIGTERM)
    site.start_web("--workers", "1", "--threads", "8")
    found = scrape(site)

    assert (found[STARTED], found[COMPLETED], found[ATTEMPTS]) == (4, 4, 4 * STEPS)
    assert found['durable_webhook_requests_total{status="404"}'] == 6


def test_promtool_accepts_a_scrape(site):
    """``promtool check metrics`` has nothing to say of names, units and help texts."""
    path = shutil.which("promtool")
    if path is None:
        reason = "promtool is not installed; .ci/services installs it (Debian's package prometheus)."
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    do_runs(site, 2)
    eventually(lambda: is_at(site, 2), what="the runs are counted")
    text = fetch("GET", f"{site.url}/metrics").data
    checked = subprocess.run([path, "check", "metrics"], input=text, capture_output=True, check=False)

    assert (checked.returncode, checked.stderr.decode()) == (0, "")
