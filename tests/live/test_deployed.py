"""The commands of examples/deploy/ as plain processes: they serve the example application, and stop as promised."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from eventually import eventually
from processes import ROOT, Deployment, deployed, fetch, post_json
from servers import absent, free_port, new_broker, new_database, wait_for_port

pytestmark = pytest.mark.live

DEPLOY = ROOT / "examples" / "deploy"
SERVICES = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Deployment]:
    """A worker and a web process by the commands and variables of compose.yaml, on servers of this machine."""
    with (
        new_database("postgresql", tmp_path) as database_url,
        new_broker("redis", tmp_path) as broker_url,
        deployed(Deployment(tmp_path, database_url, broker_url, "worker.app", "webapp:create_app()")) as made,
    ):
        shutil.copy(DEPLOY / "gunicorn.conf.py", tmp_path)
        start(made, "worker")
        start(made, "web", "--no-control-socket", "--bind", f"127.0.0.1:{made.port}")
        made.wait_for("worker", "web")
        yield made


def start(site: Deployment, name: str, *options: str) -> None:
    """Start a service; *options* come before its last argument, the application."""
    program, *arguments = SERVICES[name]["command"]
    own = {key: value for key, value in SERVICES[name]["environment"].items() if not key.startswith("DURABLE_")}
    if options:
        arguments[-1:] = [*options, arguments[-1]]
    site._spawn(name, program, *arguments, environment=own)


def order(site: Deployment, order_id: str) -> str:
    """The URL of a new order's webhook, once it is open."""
    run_id = post_json(f"{site.url}/api/orders", {"order_id": order_id}).json()["run_id"]
    return str(eventually(lambda: fetch("GET", f"{site.url}/api/runs/{run_id}").json()["webhooks"], 60)[0])


def test_the_commands_serve_the_example_and_stop_as_promised(site):
    """A worker answers a webhook; an idle worker ends at once; a held sender gets 202 as soon as the web app stops."""
    url = order(site, "o-1")
    assert post_json(url, {"type": "payment.succeeded"}).json()["ack"]

    other = order(site, "o-2")
    # A worker that is busy waits for its soft shutdown's whole time, also when it becomes idle meanwhile.
    site.wait_until_idle()
    worker = site.processes["worker"]
    worker.signal(signal.SIGTERM, 40)
    assert worker.popen.returncode == 0

    answers: list[int] = []
    sender = threading.Thread(target=lambda: answers.append(post_json(other, {"type": "payment.failed"}).status))
    sender.start()
    eventually(lambda: _is_held(site))
    asked = time.monotonic()
    web = site.processes["web"]
    web.signal(signal.SIGTERM, 35)
    sender.join(20)
    assert answers == [202]
    assert web.popen.returncode == 0
    assert time.monotonic() - asked < 20


@pytest.fixture
def prometheus(site: Deployment, tmp_path: Path) -> Iterator[str]:
    """The URL of a Prometheus with the configuration of compose.yaml, which scrapes the web process here."""
    program = shutil.which("prometheus")
    if program is None:
        absent("Prometheus", "prometheus is not installed")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{site.port}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(ROOT / "docs" / "monitoring" / "alerts.yml", folder)
    port = free_port()
    options = [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--config.file={folder}/prometheus.yml", *options], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_for_port(port)
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: fetch("GET", f"{url}/-/ready").status == 200)
        yield url
    finally:
        process.kill()
        process.wait(10)


def test_prometheus_finds_the_metrics_and_the_alerts(site, prometheus):
    """It scrapes the example's web process, sees the worker's processes, and has all alert rules; none fires."""

    def value(query: str) -> float | None:
        found = fetch("GET", f"{prometheus}/api/v1/query?query={query}").json()["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    # The worker of compose.yaml has four processes.
    eventually(lambda: value("durable_workers_alive") == 4, 60)
    assert value("up") == 1
    groups = fetch("GET", f"{prometheus}/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    named = [rule["alert"] for group in _rules()["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in rules] == named
    eventually(lambda: _all_evaluated(prometheus), 30)
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def _rules() -> dict[str, Any]:
    rules: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "monitoring" / "alerts.yml").read_text())
    return rules


def _all_evaluated(prometheus: str) -> bool:
    """Whether every rule has been evaluated without an error."""
    groups = fetch("GET", f"{prometheus}/api/v1/rules").json()["data"]["groups"]
    return all(rule["health"] == "ok" for group in groups for rule in group["rules"])


def _is_held(site: Deployment) -> bool:
    """Whether a request is recorded that has no answer."""
    with site.engine.store.read() as tx:
        return bool(tx.exec_driver_sql("SELECT 1 FROM durable_requests WHERE answered_at IS NULL").first())
