"""The three patterns, as an application has them, on every pair of database and broker."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from eventually import eventually
from processes import ROOT, Answer, Deployment, deployed, fetch, post_json
from servers import BROKERS, DATABASES, new_broker, new_database

pytestmark = pytest.mark.live

PAIRS = [(database, broker) for database in DATABASES for broker in BROKERS]


@pytest.fixture(scope="module")
def vendor() -> Iterator[str]:
    """The example's vendor, which takes documents and calls back over HTTP; its URL."""
    command = [sys.executable, "-u", str(ROOT / "examples" / "vendor.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest, vendor: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two workers, one prefork and one with threads, and gunicorn."""
    database, broker = request.param
    folder = tmp_path_factory.mktemp(f"{database}-{broker}")
    with new_database(database, folder) as database_url, new_broker(broker, folder) as broker_url:
        described = Deployment(
            folder, database_url, broker_url, "worker.app", "webapp:create_app()", {"VENDOR_URL": vendor}
        )
        with deployed(described) as pair:
            pair.start_worker("one", "--pool", "prefork", "--concurrency", "2", ready=False)
            pair.start_worker("two", "--pool", "threads", "--concurrency", "4", ready=False)
            pair.start_web(ready=False)
            pair.wait_for("one", "two", "web")
            yield pair


def ended(pair: Deployment, run_id: str, deadline_secs: float = 15) -> dict[str, Any]:
    """The run once it has ended, as the application shows it."""

    def look() -> dict[str, Any] | None:
        shown: dict[str, Any] = fetch("GET", f"{pair.url}/api/runs/{run_id}").json()
        return shown if shown["status"] in ("completed", "failed", "cancelled") else None

    return eventually(look, deadline_secs, f"run {run_id} ends")


def webhook_of(pair: Deployment, run_id: str) -> str:
    """The URL of the webhook that the run has open."""
    show = f"{pair.url}/api/runs/{run_id}"
    return str(eventually(lambda: fetch("GET", show).json()["webhooks"], 15, f"run {run_id} has a webhook")[0])


def assert_gone(answer: Answer) -> None:
    assert (answer.status, answer.headers["Content-Type"]) == (410, "application/problem+json")
    assert answer.headers["Cache-Control"] == "no-store"


def test_c61_payments_are_answered_by_a_step_and_settle_with_a_ledger(pair):
    """Pattern 1: each event gets its own answer on its own connection; the last closes the webhook."""
    order = post_json(f"{pair.url}/api/orders", {"order_id": "o-1"}).json()
    url = order["webhook_url"]
    assert url.startswith(f"{pair.url}/.well-known/workflow/v1/webhook/")

    answers = [
        fetch("POST", url, b'{"type": "payment.failed"}'),
        fetch("POST", url, b"{ not json"),
        post_json(url, {"type": "payment.succeeded"}),
    ]

    assert [(a.status, a.json()) for a in answers] == [
        (200, {"ack": True, "action": "flagged"}),
        (200, {"ack": True, "action": "ignored"}),
        (200, {"ack": True, "action": "captured"}),
    ]
    assert all(a.headers["Content-Type"] == "application/json" for a in answers)
    assert ended(pair, order["run_id"])["result"] == {
        "order_id": "o-1",
        "webhook_url": url,
        "ledger": [{"type": "payment.failed"}, {"type": "unknown"}, {"type": "payment.succeeded"}],
        "status": "settled",
    }
    assert_gone(post_json(url, {"type": "payment.succeeded"}))


def test_c61_a_vendor_that_calls_back_verifies_the_document(pair, vendor):
    """Pattern 2: the callback wins the race; the vendor gets the step's answer."""
    run_id = post_json(f"{pair.url}/api/documents", {"document_id": f"d-{pair.port}"}).json()["run_id"]

    assert ended(pair, run_id)["result"] == {
        "document_id": f"d-{pair.port}",
        "status": "verified",
        "verdict": "genuine",
    }
    told = eventually(lambda: fetch("GET", f"{vendor}/documents/d-{pair.port}").json()["answer"])
    assert told == {"status": 200, "body": {"received": True}}


def test_c61_a_vendor_that_is_silent_lets_the_deadline_win(pair, vendor):
    """Pattern 2: the deadline (brought forward here) wins the race; a callback after it is 410 and changes nothing."""
    document = f"silent-{pair.port}"
    run_id = post_json(f"{pair.url}/api/documents", {"document_id": document}).json()["run_id"]
    url = webhook_of(pair, run_id)
    eventually(lambda: fetch("GET", f"{vendor}/documents/{document}").status == 200, 15, "the vendor has the document")

    assert eventually(pair.engine.get_run(run_id).wake_up) == 1

    expected = {"document_id": document, "status": "timed_out"}
    assert ended(pair, run_id)["result"] == expected
    assert_gone(post_json(url, {"verdict": "genuine"}))
    assert ended(pair, run_id)["result"] == expected


def test_c61_an_upload_resumes_its_import_by_reference(pair):
    """Pattern 3: the hook carries the blob's token, and nobody else's upload is taken for it."""
    import_id = secrets.token_hex(4)
    run_id = post_json(f"{pair.url}/api/imports", {"import_id": import_id}).json()["run_id"]
    eventually(lambda: pair.engine.get_run(run_id).hooks(), 15, "the import waits")
    uploaded = f"{pair.url}/api/upload-complete"

    assert post_json(uploaded, {"import_id": "another", "blob_token": "b"}).status == 404
    assert post_json(uploaded, {"import_id": import_id, "blob_token": "blob-7"}).json() == {"ok": True}

    assert ended(pair, run_id)["result"] == {"import_id": import_id, "blob_token": "blob-7", "status": "indexed"}
    assert post_json(uploaded, {"import_id": import_id, "blob_token": "again"}).status == 404
