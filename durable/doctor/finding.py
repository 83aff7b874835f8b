"""The result of one check, and how a check that fails becomes a result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

#: The largest number of names, processes or ids that a finding shows.
SHOWN = 10

_FIXES = {
    "database": "Start the database, or correct DURABLE_DATABASE_URL.",
    "broker": "Start it, or correct DURABLE_BROKER_URL; a worker and `durable dev` start the embedded one.",
    "public_url": "Correct DURABLE_PUBLIC_URL.",
    "answers": "Start the broker, or correct DURABLE_BROKER_URL, as above.",
    "queues": "Correct task_routes and task_queues, so that Celery finds a queue for each step.",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check.  ``fix`` is what to change; if ``ok`` is true, it is only advice."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def check(name: str, function: Callable[[T], Finding], argument: T) -> Finding:
    """
    Run one check.  An error that it raises becomes a finding that is not ok.

    NotImplementedError means that this broker or database cannot answer: the check is skipped.
    """
    try:
        return function(argument)
    except NotImplementedError as error:
        return Finding(name=name, ok=True, detail=f"not checked: {error or 'this is not supported here'}")
    except Exception as error:
        text = str(error).splitlines()
        detail = f"{type(error).__name__}: {text[0] if text else ''}"
        return Finding(name=name, ok=False, detail=detail, fix=_FIXES.get(name, ""))


def listed(texts: Sequence[str], separator: str = ", ") -> str:
    """The first of *texts*, and the number of the others."""
    more = [f"{len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return separator.join([*texts[:SHOWN], *more])
