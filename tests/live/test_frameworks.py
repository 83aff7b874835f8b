"""FastAPI, Django and Quart with durable: the programs of examples/frameworks/, with their own servers and a worker."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from eventually import eventually
from processes import ROOT, Deployment, deployed, fetch, post_json
from servers import new_broker, new_database

pytestmark = pytest.mark.live

FOLDER = ROOT / "examples" / "frameworks"
UVICORN = ("uvicorn", "--timeout-graceful-shutdown", "30", "--port")
COMMANDS = {
    "fastapi": (*UVICORN, "fastapi_app:app"),
    "django_asgi": (*UVICORN, "django_asgi:application"),
    "django": ("gunicorn", "--worker-class", "gthread", "--threads", "64", "--bind", "django_app:application"),
    "quart": ("hypercorn", "--graceful-timeout", "30", "--bind", "quart_app:application"),
}
ASGI = ("fastapi", "django_asgi", "quart")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], Deployment]]:
    """Starts the web process of a framework, and no worker yet."""
    with new_database("sqlite", tmp_path) as database_url, new_broker("redis", tmp_path) as broker_url:
        paths = os.pathsep.join([str(ROOT), str(FOLDER)])
        settings = {"PYTHONPATH": paths, "DURABLE_DEAD_AFTER": "3s", "DURABLE_BEAT_INTERVAL": "500ms"}
        described = Deployment(tmp_path, database_url, broker_url, "shop", "", settings, ("--concurrency", "1"))
        with deployed(described) as made:

            def start(kind: str) -> Deployment:
                package = kind.partition("_")[0]
                if importlib.util.find_spec(package) is None and not os.environ.get("CI"):
                    pytest.skip(f"{package} is not installed")
                module, *options, application = COMMANDS[kind]
                address = str(made.port) if module == "uvicorn" else f"127.0.0.1:{made.port}"
                made._spawn("web", module, *options, address, application)
                made.wait_for("web")
                return made

            yield start


@pytest.fixture(params=list(COMMANDS))
def site(request: pytest.FixtureRequest, serve: Callable[[str], Deployment]) -> Deployment:
    return serve(request.param)


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
    began = time.monotonic()
    web.signal(signal.SIGTERM, 35)
    sender.join(20)

    assert answers == [202]
    # Long before hold_timeout.
    assert time.monotonic() - began < 10
    assert web.popen.returncode in (0, -signal.SIGTERM)


@pytest.mark.parametrize("kind", ASGI)
def test_the_answer_comes_although_its_worker_was_killed(serve, kind, tmp_path):
    """A request is held, kill -9 ends the worker that handles it, and another worker answers on the same connection."""
    site = serve(kind)
    paused = {"DURABLE_FAILPOINTS": f"step.claimed=pause:{tmp_path}/never"}
    site.start_worker("doomed", environment=paused)
    run_id = fetch("POST", f"{site.url}/orders/o-4").json()["run_id"]
    url = webhook_of(site, run_id)
    answers: list[object] = []
    sender = threading.Thread(target=lambda: answers.append(post_json(url, {"state": "paid"}).json()))
    waiter = threading.Thread(
        target=lambda: answers.append(fetch("GET", f"{site.url}/runs/{run_id}/result", timeout=40).json())
    )
    for each in (sender, waiter):
        each.start()
    eventually(lambda: "failpoint step.claimed" in (site.folder / "doomed.log").read_text())

    site.stop("doomed", signal.SIGKILL)
    assert answers == []
    site.start_worker()
    sender.join(40)
    waiter.join(40)

    assert answers[0] == {"received": "paid"}
    assert answers[1:] == [{"result": "o-4 is paid"}]


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_chunked_body_is_taken(serve, kind):
    """A sender that does not know the length of its body may send it in chunks."""
    site = serve(kind)
    site.start_worker()
    url = urlsplit(webhook_of(site, fetch("POST", f"{site.url}/orders/o-3").json()["run_id"]))
    with closing(HTTPConnection(str(url.hostname), url.port, timeout=40)) as connection:
        connection.request("POST", url.path, iter([b'{"sta', b'te": "paid"}']), encode_chunked=True)
        answer = connection.getresponse()

        assert (answer.status, answer.read()) == (200, b'{"received":"paid"}')


def _is_held(site: Deployment) -> bool:
    """Whether a request is recorded that has no answer."""
    with site.engine.store.read() as tx:
        return bool(tx.exec_driver_sql("SELECT 1 FROM durable_requests WHERE answered_at IS NULL").first())
