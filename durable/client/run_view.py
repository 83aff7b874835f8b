"""One run as a person watches it: its status, what it waits for, and the last rows of its timeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import duration
from ..engine import Engine
from ..errors import RunNotFound
from ..events import Event
from ..store import Run, run_log, run_page, runs
from . import timeline
from .pending import waiting_for

#: How many events the rows of a timeline are made from: a step that was retried more often has fewer bars.
MOST_EVENTS = 50_000

_FAR = 2**62


@dataclass(frozen=True, slots=True)
class RunView:
    """
    A run at one moment.

    Attributes:
        rows: The operations that began last.
        has_earlier: Whether earlier operations were left out.
        waiting_for: As ``waiting_for`` returns it.
        now: The database's time.
    """

    run: Run
    rows: list[timeline.Row]
    has_earlier: bool
    waiting_for: list[dict[str, Any]]
    now: int


def read(engine: Engine, run_id: str, *, operations: int) -> RunView:
    """Return the run with at most so many rows of its timeline.  Raise RunNotFound for an unknown id."""
    engine.check_schema()
    now = engine.now()
    with engine.store.read() as tx:
        run = runs.find(tx, run_id)
        if run is None:
            raise RunNotFound(run_id)
        found = run_page.beginnings(tx, run_id, before=_FAR, after=0, limit=operations + 1, newest=True)
        shown = [each.op_id for each in found[-operations:]]
        log = run_page.events_of_operations(tx, run_id, shown, MOST_EVENTS)
        open_steps = [] if run.ended else run_page.open_steps(tx, run_id, shown)
        pending = waiting_for(engine, tx, run)
    rows = timeline.rows(log, open_steps, ended_at=run.completed_at)
    return RunView(run, rows, len(found) > len(shown), pending, now)


def events_after(engine: Engine, run_id: str, seq: int, limit: int) -> list[Event]:
    """Return the oldest events after this number, without their values."""
    with engine.store.read() as tx:
        return run_log.page(tx, run_id, after=seq, before=_FAR, limit=limit, newest_first=False, values=False)


def rows_as_json(rows: list[timeline.Row]) -> list[dict[str, Any]]:
    """Return the rows as ``durable runs show --json`` prints them; times are ISO 8601, None while something goes on."""
    return [
        {
            "operation": row.op_id,
            "kind": row.kind,
            "name": row.name,
            "state": row.state,
            "start": duration.iso(row.start),
            "end": duration.iso(row.end),
            "attempts": row.attempts,
            "child_run_id": row.child_run_id,
            "bars": [
                {
                    "kind": bar.kind.value,
                    "state": bar.state,
                    "start": duration.iso(bar.start),
                    "end": duration.iso(bar.end),
                    "attempt": bar.attempt,
                    "worker": bar.worker,
                }
                for bar in row.bars
            ],
            "marks": [{"at": duration.iso(mark.at), "request_id": mark.request_id} for mark in row.marks],
        }
        for row in rows
    ]
