"""
What runs under chaos: the three patterns, a fan-out and a chain of retries and sleeps.

Each step appends a line to the ledger, a file that is none of the system's,
and returns what it wrote: so a result says which execution it is of.  The
Celery app loses and repeats messages until a file named ``calm`` is there.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flask
from celery import Celery
from celery.app.amqp import AMQP

from durable import Durable as Engine
from durable import (
    FatalError,
    HookNotFound,
    Request,
    concurrency,
    create_webhook,
    define_hook,
    get_run,
    get_step_metadata,
    race,
    sleep,
    step,
    workflow,
)
from durable.web import create_blueprint

FOLDER = Path(os.environ.get("CHAOS_FOLDER", "."))
#: The share of messages that are lost or repeated.
SPOILT = float(os.environ.get("CHAOS_SPOILT", "0"))
#: Steps are tried again for as long as chaos lasts: what is counted is what is recorded.
PATIENT = 50

_fate = random.SystemRandom()


class SpoiltAMQP(AMQP):  # type: ignore[misc]
    """Sends most messages once, some never and some twice."""

    def _create_task_sender(self) -> Callable[..., Any]:
        send = super()._create_task_sender()

        def send_or_not(*arguments: Any, **options: Any) -> Any:
            drawn = 1.0 if (FOLDER / "calm").exists() else _fate.random()
            if drawn < SPOILT / 2:
                append("fates", "lost")
                return None
            if drawn < SPOILT:
                append("fates", "repeated")
                send(*arguments, **options)
            return send(*arguments, **options)

        return send_or_not


celery = Celery("chaos", amqp=SpoiltAMQP)
celery.conf.worker_prefetch_multiplier = 1
celery.conf.update(json.loads(os.environ.get("CHAOS_CELERY", "{}")))
engine = Engine(celery)


def append(name: str, line: str) -> None:
    """Add a line to a file in one write, which other processes' writes do not mix with."""
    file = os.open(FOLDER / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, line.encode() + b"\n")
    finally:
        os.close(file)


def enter(payload: str) -> str:
    """Write the execution of this step into the ledger: its own name, by which its result is known."""
    mine = secrets.token_hex(8)
    known = get_step_metadata()
    entry = {"run": known.run_id, "op": known.step_id, "attempt": known.attempt, "payload": payload, "entry": mine}
    append("ledger", json.dumps(entry))
    return mine


# The three patterns.


@step(max_retries=PATIENT)
def process_event(request: Request) -> dict[str, Any]:
    """Answer one event with what it said, and say which it was."""
    said = request.json()
    mine = enter(said["id"])
    request.respond_with({"echo": said["id"]})
    return {"id": said["id"], "last": said["last"], "entry": mine}


@workflow
async def payments(name: str) -> dict[str, Any]:
    """Take events until one says that it is the last."""
    webhook = create_webhook(respond_with="manual", timeout="10s")
    ledger = []
    async for request in webhook:
        event = await process_event(request)
        ledger.append(event)
        if event["last"]:
            break
    return {"name": name, "ledger": ledger}


@step(max_retries=PATIENT)
def submit(name: str) -> str:
    """Send a document to the vendor."""
    return enter(name)


@workflow
async def verification(name: str, deadline: str) -> dict[str, Any]:
    """A callback against a deadline."""
    webhook = create_webhook(respond_with="manual", timeout="10s")
    submitted = await submit(name)

    async def callback() -> dict[str, Any]:
        async for request in webhook:
            return {"status": "verified", "ledger": [await process_event(request)]}
        raise FatalError("Webhook closed without callback")

    async def give_up() -> dict[str, Any]:
        await sleep(deadline)
        return {"status": "timed_out", "ledger": []}

    return {"name": name, "submitted": submitted, **await race(callback(), give_up())}


@dataclass
class BlobReady:
    """The upload is complete."""

    blob_token: str


blob_ready = define_hook(BlobReady)


@step(max_retries=PATIENT)
def index(blob_token: str) -> dict[str, str]:
    """Index a file."""
    return {"blob_token": blob_token, "entry": enter(blob_token)}


@workflow
async def imports(name: str) -> dict[str, Any]:
    """Wait for the upload, then index what was uploaded."""
    event = await blob_ready.create(token=f"upload:{name}")
    return {"name": name, "indexed": await index(event.blob_token)}


# Steps side by side, and one after the other.


@step(max_retries=PATIENT)
def part(name: str, number: int) -> dict[str, Any]:
    """One of many."""
    return {"number": number, "entry": enter(f"{name}/{number}")}


@workflow
async def fan_out(name: str, width: int) -> dict[str, Any]:
    """Many steps at once."""
    return {"name": name, "parts": await asyncio.gather(*(part(name, number) for number in range(width)))}


@step(max_retries=PATIENT, retry_backoff=0.2, retry_backoff_max=1)
def unsteady(name: str, number: int) -> dict[str, Any]:
    """Fails the first time."""
    if get_step_metadata().attempt == 1:
        raise ConnectionError("not the first time")
    return {"number": number, "entry": enter(f"{name}/{number}")}


@step(
    max_retries=PATIENT,
    retry_backoff=0.2,
    retry_backoff_max=1,
    limits=[concurrency("chaos-chain", 1, key="name"), concurrency("chaos", 3)],
)
def limited(name: str, number: int) -> dict[str, Any]:
    """The same, with a slot of two limits."""
    return unsteady.run(name, number)


@workflow
async def chain(name: str, length: int) -> dict[str, Any]:
    """Steps that fail first, with sleeps between; every second one has limits."""
    parts = []
    for number in range(length):
        parts.append(await (limited if number % 2 else unsteady)(name, number))
        await sleep("300ms")
    return {"name": name, "parts": parts}


# For bench/recovery.py: runs that are in the midst of something.


@step(max_retries=PATIENT)
def hold(name: str) -> str:
    """Begin, and wait until the file ``open`` is there."""
    mine = enter(f"{name} in {os.getpid()}")
    while not (FOLDER / "open").exists():
        time.sleep(0.05)
    return mine


@workflow
async def held(name: str) -> str:
    """A step that lasts."""
    return await hold(name)


@workflow
async def awaked(name: str, nap: str) -> str:
    """A step after a sleep."""
    await sleep(nap)
    return await submit(name)


WORKFLOWS = {known.name.rpartition(".")[2]: known for known in (payments, verification, imports, fan_out, chain)}


def create_app() -> flask.Flask:
    """What the senders talk to: they start runs, upload, and look where to send their events."""
    app = flask.Flask("chaos")
    app.register_blueprint(create_blueprint(engine))

    @app.post("/start/<kind>")
    def start(kind: str) -> dict[str, Any]:
        args = flask.request.get_json()
        run = WORKFLOWS[kind].with_options(idempotency_key=args[0]).start(*args)
        return {"run_id": run.id}

    @app.get("/runs/<run_id>")
    def look(run_id: str) -> dict[str, Any]:
        run = get_run(run_id)
        return {"status": run.status, "webhooks": [hook["url"] for hook in run.hooks() if hook["is_webhook"]]}

    @app.post("/upload/<name>")
    def upload(name: str) -> dict[str, Any]:
        try:
            blob_ready.resume(f"upload:{name}", BlobReady(flask.request.get_json()))
        except HookNotFound:
            flask.abort(404)  # nobody waits for it yet
        return {}

    app.add_url_rule("/health", view_func=lambda: "up")
    return app
