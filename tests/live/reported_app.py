"""An application whose handlers note in a file which runs have failed and which are blocked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery

from durable import Durable, Run, step, workflow

celery = Celery("reported")
engine = Durable(celery)


def _note(line: str) -> None:
    with Path(os.environ["NOTED"]).open("a") as file:
        file.write(f"{line}\n")


@engine.on_run_failed
def failed(run: Run[Any]) -> None:
    """Note a run that has failed, and the status that this process reads."""
    _note(f"failed {run.id} {run.status}")


@engine.on_run_blocked
def blocked(run: Run[Any]) -> None:
    """Note a run that is blocked."""
    _note(f"blocked {run.id} {run.status}")


@step(max_retries=0)
def decline(card: str) -> str:
    """Fail."""
    raise ValueError(f"declined: {card}")


@step
def accept(card: str) -> str:
    """Succeed."""
    return card


@workflow
async def declined(card: str) -> str:
    """Fail after a step that succeeds."""
    return await decline(await accept(card))


@workflow
async def refused() -> None:
    """Fail in the first turn."""
    raise ValueError("refused")


@workflow
async def mistaken(card: str) -> str:
    """Use a name that is not there, after a step."""
    return await acept(await accept(card))  # type: ignore[name-defined,no-any-return]  # noqa: F821
