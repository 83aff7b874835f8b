"""Celery tasks as a team has them, and workflows that use them as steps."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import flask
from celery import shared_task
from celery.exceptions import Ignore, Reject

from durable import step, workflow


@shared_task(bind=True, autoretry_for=(ConnectionError,), retry_kwargs={"countdown": 0.2, "max_retries": 5})
def charge(self: Any, order: str, *, cents: int) -> dict[str, Any]:
    """Fails twice, then charges."""
    if self.request.retries < 2:
        raise ConnectionError(f"no line to the bank for {order}")
    return {"order": order, "cents": cents, "retries": self.request.retries}


@shared_task(bind=True)
def book(self: Any, folder: str, line: str) -> dict[str, str]:
    """Writes a line, in an application context."""
    (Path(folder) / line).touch()
    return {"line": line, "queue": self.request.delivery_info["routing_key"], "shop": flask.current_app.name}


@shared_task(bind=True)
def ask_again(self: Any, folder: str) -> int:
    """Asks to be called later until there is an answer."""
    if not (Path(folder) / "answer").exists():
        (Path(folder) / "asked").touch()
        raise self.retry(countdown=0.3, max_retries=None)
    return int(self.request.retries)


def _hold(folder: str) -> str:
    here = Path(folder)
    (here / "begun").touch()
    pause = threading.Event()
    while not (here / "open").exists():
        pause.wait(0.01)
    return "held"


hold_early = shared_task(name="adopted_flows.hold_early")(_hold)
hold_late = shared_task(name="adopted_flows.hold_late", acks_late=True)(_hold)


@shared_task(bind=True)
def ends(self: Any, how: str, folder: str) -> None:
    """Ends without an outcome."""
    if how == "Ignore":
        raise Ignore("nobody at home")
    if how == "Reject":
        raise Reject("wrong address", requeue=True)
    raise self.replace(book.si(folder, "replaced"))


charge_step, book_step, ask_step, ends_step = step(charge), step(book), step(ask_again), step(ends)
hold_steps = {"early": step(hold_early), "late": step(hold_late)}


@workflow
async def sells(order: str, folder: str) -> list[Any]:
    paid = await charge_step(order, cents=1200)
    return [paid, *await asyncio.gather(book_step(folder, "one"), book_step(folder, "two"))]


@workflow
async def asks(folder: str) -> int:
    return await ask_step(folder)


@workflow
async def holds(folder: str, acks: str) -> str:
    return await hold_steps[acks](folder)


@workflow
async def is_refused(how: str, folder: str) -> None:
    await ends_step(how, folder)
