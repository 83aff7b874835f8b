"""One thing looked at, and how a look that fails becomes a finding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

#: How many names, processes or ids a finding shows.
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
    """One thing looked at.  ``fix`` says what to change; with ``ok`` it is advice."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def look(name: str, check: Callable[[T], Finding], at: T) -> Finding:
    """What *check* finds.  Whatever it raises is what there is to know, so it is a finding too."""
    try:
        return check(at)
    except Exception as error:
        text = str(error).splitlines()
        detail = f"{type(error).__name__}: {text[0] if text else ''}"
        return Finding(name=name, ok=False, detail=detail, fix=_FIXES.get(name, ""))


def listed(texts: Sequence[str], separator: str = ", ") -> str:
    """The first of *texts*, and how many more there are."""
    more = [f"{len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return separator.join([*texts[:SHOWN], *more])
