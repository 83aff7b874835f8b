"""The list of runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flask
from sqlalchemy import Connection

from ..store import Run, RunStatus, Waits, run_list
from . import filters, notices
from .filters import ListQuery
from .pages import Dashboard
from .security import Refused

#: Runs of one page.
PAGE = 50


@dataclass(frozen=True, slots=True)
class ListedRuns:
    """One page of the list, and where the pages beside it begin."""

    runs: list[Run]
    older: str | None
    newer: str | None
    #: How many runs a search for an error has read; None without a search.
    searched: int | None = None
    #: Whether the search has ended before the page was full.
    is_partial: bool = False


def show(dashboard: Dashboard) -> flask.Response:
    """The list, by the filter in the URL."""
    dashboard.guard.require("read")
    engine = dashboard.engine
    engine.check_schema()
    now = engine.now()
    query = filters.parse(flask.request.args, now)
    if query.wanted.error and engine.store.vault.cipher is not None:
        raise Refused(400, "Errors are encrypted", "A cipher is set, so the database cannot search the text of errors.")
    with engine.store.read() as tx:
        listed = read(tx, query)
        open_ids = [run.id for run in listed.runs if not run.ended]
        attributes = run_list.attributes_of(tx, [run.id for run in listed.runs])
        waiting = run_list.waits_of(tx, open_ids)
        counts = run_list.count_by_status(tx, query.wanted.name)
        names = run_list.names(tx)
    # A blocked run goes on when an operator acts, whatever else it would wait for.
    blocked = {run.id for run in listed.runs if run.status == RunStatus.BLOCKED}
    seen: list[Any] = [[run.id, run.status, run.turn, run.paused_at, attributes.get(run.id)] for run in listed.runs]
    return dashboard.live_page(
        "runs.html",
        seen=[seen, listed.older, counts, names, {i: [repr(w) for w in all_] for i, all_ in waiting.items()}],
        listed=listed,
        query=query,
        attributes=attributes,
        waiting={
            run_id: [in_words(entry, now) for entry in entries if run_id not in blocked or entry.kind == "in_doubt"]
            for run_id, entries in waiting.items()
        },
        counts=counts,
        most=run_list.COUNTED,
        names=names,
        now=now,
        notice=notices.of(flask.request.args),
    )


def read(tx: Connection, query: ListQuery, limit: int = PAGE) -> ListedRuns:
    """The page that the URL asks for."""
    if query.wanted.error is not None:
        search = run_list.search_errors(tx, query.wanted, before=query.before, limit=limit)
        older = None if search.next is None else place(*search.next)
        return ListedRuns(search.runs, older, None, search.searched)
    if query.after is not None:
        newer = run_list.newer(tx, query.wanted, after=query.after, limit=limit + 1)
        page = newer[-limit:]
        older = place(page[-1].created_at, page[-1].id) if page else None
        return ListedRuns(page, older, place(page[0].created_at, page[0].id) if len(newer) > limit else None)
    found = run_list.page(tx, query.wanted, before=query.before, limit=limit)
    older = None if found.next is None else place(*found.next)
    has_newer = bool(found.runs) and query.before is not None
    newer_than = place(found.runs[0].created_at, found.runs[0].id) if has_newer else None
    return ListedRuns(found.runs, older, newer_than, is_partial=found.is_partial)


def place(at: int, run_id: str) -> str:
    """A place in the list, as ``filters.place`` reads it."""
    return f"{at}.{run_id}"


def in_words(entry: Waits, now: int) -> str:
    """What a run waits for, in a few words."""
    example = (entry.example or "").rpartition(".")[2]
    several = entry.count > 1
    match entry.kind:
        case "running":
            return f"{entry.count} steps run" if several else f"{example} runs"
        case "pending":
            return f"{entry.count} steps wait for a worker" if several else f"{example} waits for a worker"
        case "in_doubt":
            return f"{entry.count} steps in doubt" if several else f"{example} is in doubt"
        case "sleep":
            return f"{entry.count} timers" if several else "a timer"
        case "webhook":
            return f"{entry.count} webhooks" if several else "a webhook"
        case "hook":
            return f"{entry.count} hooks" if several else "a hook"
        case "child":
            return f"{entry.count} child runs" if several else f"child {example}"
        case "limit":
            return f"the limit {entry.example}"
        case _:
            return "a turn"
