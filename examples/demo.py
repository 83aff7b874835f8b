"""
Run three workflows over real HTTP: ``make demo``.

The demo starts ``durable dev`` (embedded broker, SQLite, a Celery worker, gunicorn) in a temporary folder, and a vendor
in another process.  It sends the requests of the outside world, prints every request with its answer and the result of
every run, and exits with 1 if anything differs from what it expects.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parent.parent
UP_SECS = 60.0


class DemoFailed(Exception):
    """Raised when the demo sees something other than it expects."""


def expect(what: str, expected: object, actual: object) -> None:
    """Print *what* and its value if it is the expected one, else fail."""
    if actual != expected:
        raise DemoFailed(f"{what} should be {expected!r}, but is {actual!r}.")
    print(f"    ✓ {what}: {json.dumps(actual)}")


class Web:
    """A client of the web app that prints requests, answers and results."""

    def __init__(self, address: str) -> None:
        self.address = address

    def post(self, url: str, body: Any) -> requests.Response:
        """POST a body, as JSON unless it is bytes, to a path of the web app or to a full URL."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        target = url if url.startswith("http") else self.address + url
        answer = requests.post(target, data, headers={"Content-Type": "application/json"}, timeout=60)
        shown = re.sub(r"(webhook/.{6})[\w-]+", r"\1…", target)
        print(f"  POST {shown} {data.decode()}\n    {answer.status_code} {answer.text.strip()}")
        return answer

    def result(self, run_id: str, within_secs: float = 20.0) -> Any:
        """Wait until a run has completed, and return its result."""
        deadline = time.monotonic() + within_secs
        while (run := self.run(run_id))["status"] in ("pending", "running"):
            if time.monotonic() > deadline:
                raise DemoFailed(f"Run {run_id} is still {run['status']} after {within_secs:g} s.")
            time.sleep(0.1)
        if run["status"] != "completed":
            raise DemoFailed(f"Run {run_id} is {run['status']}: {run.get('error')}")
        print(f"  run {run_id} completed: {json.dumps(run['result'])}")
        return run["result"]

    def run(self, run_id: str) -> dict[str, Any]:
        """The web app's description of a run."""
        answer = requests.get(f"{self.address}/api/runs/{run_id}", timeout=10)
        answer.raise_for_status()
        shown: dict[str, Any] = answer.json()
        return shown


def payments(web: Web) -> None:
    """Send three webhook requests for one order.  A step answers each while its sender waits."""
    order = web.post("/api/orders", {"order_id": "order-1"}).json()
    url = order["webhook_url"]
    for body, action in (
        ({"type": "payment.failed"}, "flagged"),
        (b'{"type": "payment.', "ignored"),
        ({"type": "payment.succeeded"}, "captured"),
    ):
        expect("answer", {"ack": True, "action": action}, web.post(url, body).json())
    settled = web.result(order["run_id"])
    expect("ledger", ["payment.failed", "unknown", "payment.succeeded"], [e["type"] for e in settled["ledger"]])
    expect("status", "settled", settled["status"])
    expect("a fourth event is answered", 410, web.post(url, {"type": "refund.created"}).status_code)


def verification_in_time(web: Web, vendor: str) -> None:
    """The vendor calls back within a second, long before the deadline."""
    run_id = web.post("/api/documents", {"document_id": "passport-1"}).json()["run_id"]
    result = web.result(run_id)
    expect("status", "verified", result["status"])
    expect("verdict", "genuine", result["verdict"])
    answer = _answer_to_vendor(vendor, "passport-1")
    expect("the vendor was answered", {"status": 200, "body": {"received": True}}, answer)


def verification_too_late(web: Web, vendor: str, run_id: str, started_at: float) -> None:
    """The vendor does not call back within 30 seconds.  A later callback is answered 410."""
    left_secs = started_at + 30 - time.monotonic()
    print(f"  nobody calls back for silent-1; its deadline is in {max(left_secs, 0):.0f} s …")
    result = web.result(run_id, within_secs=left_secs + 20)
    expect("result", {"document_id": "silent-1", "status": "timed_out"}, result)
    requests.post(f"{vendor}/documents/silent-1/callback", timeout=60).raise_for_status()
    answer = _answer_to_vendor(vendor, "silent-1")
    expect("the late vendor is answered", 410, answer["status"])
    expect("result after the late callback", result, web.run(run_id)["result"])


def claim_check(web: Web) -> None:
    """An import waits for a hook.  The payload refers to the uploaded data, and does not contain it."""
    run_id = web.post("/api/imports", {"import_id": "catalogue-1"}).json()["run_id"]
    deadline = time.monotonic() + 20
    upload = {"import_id": "catalogue-1", "blob_token": "blob-7f3a"}
    # The blob store retries until the import has its hook, as every sender of notifications does.
    while (answer := web.post("/api/upload-complete", upload)).status_code == 404:
        if time.monotonic() > deadline:
            raise DemoFailed("The import has created no hook for its upload.")
        time.sleep(0.1)
    expect("the upload is accepted", {"ok": True}, answer.json())
    expected = {"import_id": "catalogue-1", "blob_token": "blob-7f3a", "status": "indexed"}
    expect("result", expected, web.result(run_id))


def play(web: Web, vendor: str) -> None:
    """Run all parts.  The part that takes 30 seconds starts first."""
    print("\n— A verification whose vendor will stay silent")
    started_at = time.monotonic()
    silent = web.post("/api/documents", {"document_id": "silent-1"}).json()["run_id"]
    print("\n— Payments: webhooks answered by a step, malformed JSON included")
    payments(web)
    print("\n— A verification whose vendor calls back")
    verification_in_time(web, vendor)
    print("\n— Claim check: a hook and a reference")
    claim_check(web)
    print("\n— The silent vendor: deadline, and a callback that comes too late")
    verification_too_late(web, vendor, silent, started_at)


@contextlib.contextmanager
def running(command: list[str], folder: Path, url: str, environment: dict[str, str]) -> Iterator[str]:
    """
    Run a command in *folder* until the block ends.  Yields group 1 of the first match of *url* in its output.

    The output goes to a file in *folder*.  If something fails, the end of that file is printed.
    """
    log = folder / f"{Path(command[-1]).stem}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ, **environment}
        )
    try:
        yield _wait_for(url, log, process)
    except Exception:
        print(f"\nThe end of {log.name}:\n" + "\n".join(log.read_text().splitlines()[-40:]), file=sys.stderr)
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _wait_for(pattern: str, log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + UP_SECS
    while not (found := re.search(pattern, log.read_text())):
        if process.poll() is not None or time.monotonic() > deadline:
            raise DemoFailed(f"{log.stem} did not start within {UP_SECS:g} s (exit code {process.returncode}).")
        time.sleep(0.05)
    return found[1]


def _answer_to_vendor(vendor: str, document_id: str) -> Any:
    """The answer to the vendor's callback.  Waits until the vendor has read it."""
    deadline = time.monotonic() + 10
    while (answer := requests.get(f"{vendor}/documents/{document_id}", timeout=10).json()["answer"]) is None:
        if time.monotonic() > deadline:
            raise DemoFailed(f"The vendor's callback for {document_id} was not answered.")
        time.sleep(0.05)
    return answer


def stage(folder: Path) -> None:
    """Start the vendor and the application in *folder*, and run all parts."""
    started_at = time.monotonic()
    print("Starting the vendor, and `durable dev` in an empty folder …")
    vendor_command = [sys.executable, str(ROOT / "examples" / "vendor.py")]
    dev_command = [str(Path(sys.executable).with_name("durable")), "--app", "worker.app", "dev"]
    ready = r"web +(http://\S+)[\s\S]*ready;"
    with running(vendor_command, folder, r"^(http://\S+)\n", {}) as vendor:
        settings = {"PYTHONPATH": str(ROOT), "VENDOR_URL": vendor}
        with running(dev_command, folder, ready, settings) as web:
            print(f"Up after {time.monotonic() - started_at:.1f} s: {web}")
            play(Web(web), vendor)
    print(f"\nEverything worked and has stopped, after {time.monotonic() - started_at:.0f} s.")


def main() -> int:
    """Run the demo without any configuration, and return the exit code."""
    for name in [name for name in os.environ if name.startswith(("DURABLE_", "CELERY_"))]:
        del os.environ[name]
    with (
        tempfile.TemporaryDirectory(prefix="durable-demo-") as folder,
        tempfile.TemporaryDirectory(prefix="durable-demo-") as temporary,
    ):
        # The embedded broker's socket is in the temporary folder.
        os.environ["TMPDIR"] = temporary
        try:
            stage(Path(folder))
        except (DemoFailed, requests.RequestException) as error:
            print(f"\n✗ {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
