"""Steps and workflows that raise what is no ``Exception``, in an application whose logging raises too."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

from celery import current_task, shared_task, signals
from gevent import Timeout

from durable import get_step_metadata, step, workflow


class Odd(BaseException):
    """An author's own, which is no Exception."""


class RaisingFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("durable") and record.exc_info:
            raise ValueError("a filter of the application's")
        return True


@signals.after_setup_logger.connect(weak=False)
def add_filter(logger: logging.Logger, **_: object) -> None:
    """As an application does that masks secrets in tracebacks, and does it wrongly."""
    for handler in logger.handlers:
        handler.addFilter(RaisingFilter())


def raise_it(how: str) -> None:
    if how == "Odd":
        raise Odd("odd")
    if how == "BaseExceptionGroup":
        raise BaseExceptionGroup("several", [Odd("odd"), SystemExit(3)])
    if how == "Timeout":
        raise Timeout(1)
    if how == "SystemExit":
        sys.exit(3)
    if how == "KeyboardInterrupt":
        raise KeyboardInterrupt
    error = ValueError("ring")
    error.args = (error,)
    raise error


def note(folder: str, how: str) -> None:
    with (Path(folder) / how).open("a") as file:
        file.write(f"{get_step_metadata().attempt}\n")


@step(max_retries=0)
def raises(folder: str, how: str) -> None:
    note(folder, how)
    raise_it(how)


@step(max_retries=0)
async def raises_async(folder: str, how: str) -> None:
    note(folder, how)
    await asyncio.sleep(0)
    raise_it(how)


@shared_task
def raises_in_celery(folder: str, how: str) -> None:
    note(folder, how)
    raise_it(how)


STEPS = {"def": raises, "async def": raises_async, "adopted": step(raises_in_celery)}


@workflow
async def fails(kind: str, folder: str, how: str) -> None:
    await STEPS[kind](folder, how)


@workflow
async def fails_itself(how: str) -> None:
    raise_it(how)


@step
def which_task() -> list[str]:
    return [current_task.name, current_task.request.id]


@step
async def which_task_async() -> list[str]:
    await asyncio.sleep(0.01)
    return [current_task.name, current_task.request.id]


@workflow
async def asks_which() -> Any:
    return await asyncio.gather(which_task(), *(which_task_async() for _ in range(6)))
