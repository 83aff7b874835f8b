"""The program: an order is packed, paid by a webhook, and labelled a little later.  Parcels are labelled only."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import flask
from celery import Celery

from durable import Durable, Request, create_webhook, get_step_metadata, sleep, step, workflow
from durable.web import bearer, create_blueprint

celery = Celery("shop")
# Messages wait in the broker, where they can be lost, and not in the workers.
celery.conf.worker_prefetch_multiplier = 1
engine = Durable(celery)


@contextlib.contextmanager
def noted(what: str) -> Iterator[None]:
    """
    Note in a file when an attempt of a step begins and ends, and in which process.

    The demo counts attempts by these notes, because they do not come from durable.
    """
    for event in ("begins", "ends"):
        note = {"what": what, "event": event, "attempt": get_step_metadata().attempt, "process": os.getpid()}
        with open(os.environ["DEMO_JOURNAL"], "a", encoding="utf-8") as journal:
            journal.write(json.dumps(note) + "\n")
        if event == "begins":
            yield


@step
def pack(order_id: str) -> str:
    """Take three seconds."""
    with noted(f"pack {order_id}"):
        time.sleep(3)
    return f"{order_id} in a box"


@step
def confirm(request: Request) -> str:
    """Take three seconds too.  The sender of the request waits meanwhile."""
    with noted("confirm"):
        time.sleep(3)
    payment = request.json()["payment"]
    request.respond_with({"booked": payment})
    return str(payment)


@step
def label(content: str) -> str:
    """Take less than a second."""
    with noted(f"label {content}"):
        time.sleep(0.8)
    return f"label of {content}"


@workflow
async def order(order_id: str) -> dict[str, Any]:
    """Pack, wait for the payment, and print the label a little later."""
    box = await pack(order_id)
    with create_webhook(respond_with="manual", dedupe="Idempotency-Key") as webhook:
        payment = await confirm(await webhook)
    await sleep("7s")
    return {"paid": payment, "label": await label(box)}


@workflow
async def parcel(number: int) -> str:
    """One step."""
    return await label(f"parcel {number}")


def create_app() -> flask.Flask:
    """The web app: the webhooks, and the routes that start and show runs."""
    app = flask.Flask(__name__)
    app.register_blueprint(create_blueprint(engine, control=bearer("env:DEMO_SECRET")))
    return app
