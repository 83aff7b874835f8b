"""What was accepted compared with what is in the logs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from durable import events
from durable.store import run_log
from durable.store.schema import inbox, requests

from .siege import Book
from .workflows import ID


@dataclass(frozen=True)
class Verdict:
    """What must be empty."""

    #: Accepted, and not in a log exactly once.
    lost: list[str]
    #: Recorded, and never accepted.
    unasked: list[str]


def waiting(engine: Any, run_ids: Sequence[str]) -> int:
    """How much these runs have not looked at yet."""
    with engine.store.read() as tx:
        query = sa.select(sa.func.count()).where(inbox.c.run_id.in_(run_ids))
        return int(tx.execute(query).scalar_one())


def check(engine: Any, run_ids: Sequence[str], book: Book) -> Verdict:
    """Compare the book with the requests and the logs of these runs."""
    counted: Counter[str] = Counter()
    for run_id in run_ids:
        counted += _in_log(engine, run_id)
    return Verdict(
        lost=sorted(f"{name} is there {counted[name]} times" for name in book.accepted if counted[name] != 1),
        unasked=sorted(set(counted) - book.accepted - book.doubtful),
    )


def _in_log(engine: Any, run_id: str) -> Counter[str]:
    """How often each request, by the name that its sender gave it, is in the log of a run."""
    with engine.store.read() as tx:
        rows = tx.execute(sa.select(requests.c.id, requests.c.head).where(requests.c.run_id == run_id)).all()
        told = run_log.read(tx, run_id)
    received = Counter(e.request_id for e in told if isinstance(e, events.HookReceived) and e.request_id)
    names = {row.id: _name(row.head) for row in rows}
    found: Counter[str] = Counter()
    for request_id, name in names.items():
        # One that is recorded and in no log counts too: as none.
        found[name] += received[request_id]
    return found


def _name(head: str) -> str:
    named = {name.lower(): value for name, value in json.loads(head)["headers"]}
    return str(named.get(ID.lower()))
