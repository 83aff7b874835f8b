"""FastAPI and Django beside durable: the programs of examples/frameworks/, with their own servers and a worker."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from processes import ROOT, Deployment, deployed, eventually, fetch, post_json
from servers import new_broker, new_database

pytestmark = pytest.mark.live

FOLDER = ROOT / "examples" / "frameworks"
COMMANDS = {
    "fastapi": ("uvicorn", "fastapi_app:app", "--timeout-graceful-shutdown", "30", "--port"),
    "django": ("gunicorn", "--worker-class", "gthread", "--threads", "64", "django_app:application", "--bind"),
}


@pytest.fixture(params=list(COMMANDS))
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """The web process of a framework, and no worker yet."""
    with new_database("sqlite", tmp_path) as database_url, new_broker("redis", tmp_path) as broker_url:
        paths = os.pathsep.join([str(ROOT), str(FOLDER)])
        described = Deployment(
            tmp_path, database_url, broker_url, "shop", "", {"PYTHONPATH": paths}, ("--concurrency", "1")
        )
        with deployed(described) as made:
            module, *options = COMMANDS[request.param]
            address = str(made.port) if module == "uvicorn" else f"127.0.0.1:{made.port}"
            made._spawn("web", module, *options, address)
            made.wait_for("web")
            yield made


def webhook_of(site: Deployment, run_id: str) -> str:
    """The URL of the run's webhook, once it is open."""
    return eventually(lambda: fetch("GET", f"{site.url}/runs/{run_id}").json()["webhooks"], 60)[0]


def test_a_view_starts_a_run_and_a_step_answers_its_webhook(site):
    """The framework's view starts the run, and the sender's connection is held until the step answers."""
    site.start_worker()
    created = fetch("POST", f"{site.url}/orders/o-1")
    run_id = created.json()["run_id"]
    url = webhook_of(site, run_id)

    assert created.status == 201
    assert post_json(url, {"state": "pending"}).json() == {"received": "pending"}
    assert post_json(url, {"state": "paid"}).json() == {"received": "paid"}
    eventually(lambda: fetch("GET", f"{site.url}/runs/{run_id}").json()["status"] == "completed")


def test_a_stop_answers_what_is_held(site):
    """On SIGTERM a held sender gets an answer, and the process ends by itself."""
    site.start_worker()
    url = webhook_of(site, fetch("POST", f"{site.url}/orders/o-2").json()["run_id"])
    site.stop("worker", signal.SIGTERM)
    answers = []
    sender = threading.Thread(target=lambda: answers.append(post_json(url, {"state": "paid"}).status))
    sender.start()
    eventually(lambda: _is_held(site))
    web = site.processes["web"]
    web.signal(signal.SIGTERM, 35)
    sender.join(5)

    assert answers == [202]
    assert web.popen.returncode in (0, -signal.SIGTERM)


def test_a_chunked_body_is_refused_behind_a2wsgi(site):
    """gunicorn delivers chunked bodies; a2wsgi does not say whether it does, so the sender gets 411."""
    site.start_worker()
    url = urlsplit(webhook_of(site, fetch("POST", f"{site.url}/orders/o-3").json()["run_id"]))
    with closing(HTTPConnection(str(url.hostname), url.port, timeout=40)) as connection:
        connection.request("POST", url.path, iter([b'{"sta', b'te": "paid"}']), encode_chunked=True)
        status = connection.getresponse().status

    assert status == {"uvicorn": 411, "gunicorn": 200}[site.processes["web"].popen.args[2]]


def _is_held(site: Deployment) -> bool:
    """Whether a request is recorded that has no answer."""
    with site.engine.store.read() as tx:
        return bool(tx.exec_driver_sql("SELECT 1 FROM durable_requests WHERE answered_at IS NULL").first())
