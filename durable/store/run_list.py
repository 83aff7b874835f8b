"""
The dashboard's list of runs: pages by keys, filters, and what each run of a page waits for.

The list is in the order of ``(created_at, id)``, newest first.  Each query reads a bounded number of rows by an index,
however many runs there are.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select

from ..events import ROOT
from . import pauses
from .distinct import distinct
from .run_limits import IN_LINE
from .runs import Run
from .schema import attributes, events, hooks, inbox, run_limits, runs, steps, waits
from .transitions import ENDED, RunStatus, StepStatus

#: How many runs one search for the text of an error reads, for each status.
SEARCHED = 300

#: The statuses of runs that have an error to search.
WITH_ERROR = (RunStatus.FAILED, RunStatus.BLOCKED)

#: How many runs one page of a filter by attributes looks at; it says where the next page continues.
WALKED = 2_000
#: How many of the newest runs with each condition it reads in order to find which one is rare.
RARE = 500

#: How far ``count`` and ``count_by_status`` count.
COUNTED = 1_000

#: ``(created_at, id)`` of a run: where a page begins.
Place = tuple[int, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFilter:
    """
    Which runs a list shows.

    Attributes:
        id: The run's id, or its idempotency key.
        since: Only runs that were created at this time or later.
        until: Only runs that were created before this time.
        error: Text in the error, in any case.
        paused: Only runs that are paused.
    """

    status: str | None = None
    name: str | None = None
    id: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    since: int | None = None
    until: int | None = None
    error: str | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """
    Runs of a list, newest first.

    Attributes:
        next: Where the next page begins; None when this is the last.
        is_partial: Whether the search has ended before the page was full.
    """

    runs: list[Run]
    next: Place | None
    is_partial: bool = False


@dataclass(frozen=True, slots=True)
class ErrorSearch:
    """What a search for the text of an error has found, and up to where it has searched."""

    runs: list[Run]
    searched: int
    #: Where the next search begins; None when nothing is left to search.
    next: Place | None


def page(tx: Connection, wanted: RunFilter, *, before: Place | None, limit: int) -> Page:
    """The newest *limit* runs that match, older than *before*; ``wanted.error`` is not looked at."""
    if wanted.attributes:
        return _page_by_attributes(tx, wanted, before, limit)
    found = _runs(tx, _matching(select(runs), wanted, before).limit(limit + 1))
    return _cut(found, limit)


def _page_by_attributes(tx: Connection, wanted: RunFilter, before: Place | None, limit: int) -> Page:
    """
    The page of a filter with attributes.

    The statistics of databases do not know which runs have which attributes.  So this finds out which condition the
    fewest of the newest runs meet, walks those in the order of the list, and looks up the other conditions run by run.
    """
    walks: dict[str | None, Select[Any]] = {
        name: _by_attribute(name, value, wanted, before) for name, value in wanted.attributes.items()
    }
    if wanted.status is not None or wanted.name is not None or wanted.id is not None:
        columns = select(runs.c.id.label("run_id"), runs.c.created_at.label("created_at"))
        walks[None] = _matching(columns, replace(wanted, attributes={}), before)
    rarest = min(walks, key=lambda each: _reaches_back_to(tx, walks[each]))
    # The inner LIMIT bounds what is read, and keeps the database from joining in another order.
    walked = walks[rarest].limit(WALKED).subquery()
    others = {name: value for name, value in wanted.attributes.items() if name != rarest}
    query = select(runs).join(walked, walked.c.run_id == runs.c.id).where(*_with_each(others, walked.c.run_id))
    if rarest is not None:
        query = query.where(*_looked_up(wanted))
    query = query.order_by(walked.c.created_at.desc(), walked.c.run_id.desc())
    found = _cut(_runs(tx, query.limit(limit + 1)), limit)
    end = None if found.next is not None else tx.execute(walks[rarest].offset(WALKED - 1).limit(1)).one_or_none()
    return found if end is None else Page(found.runs, (end.created_at, end.run_id), True)


def _looked_up(wanted: RunFilter) -> Iterator[ColumnElement[bool]]:
    """The conditions, for runs that are found by their ids: in a form for which no database uses another index."""
    if wanted.status is not None:
        yield func.coalesce(runs.c.status, "") == wanted.status
    if wanted.name is not None:
        yield func.coalesce(runs.c.name, "") == wanted.name
    if wanted.id is not None:
        yield or_(runs.c.id == wanted.id, runs.c.idempotency_key == wanted.id)
    if wanted.paused:
        yield runs.c.paused_at.is_not(None)


def _by_attribute(name: str, value: str, wanted: RunFilter, before: Place | None) -> Select[Any]:
    """The runs with an attribute that were created within the time of the filter, in the order of the list."""
    query = select(attributes.c.run_id, attributes.c.created_at)
    query = query.where(attributes.c.name == name, attributes.c.value == value)
    if wanted.since is not None:
        query = query.where(attributes.c.created_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(attributes.c.created_at < wanted.until)
    query = query.order_by(attributes.c.created_at.desc(), attributes.c.run_id.desc())
    if before is None:
        return query
    at, run_id = before
    older = or_(attributes.c.created_at < at, attributes.c.run_id < run_id)
    return query.where(attributes.c.created_at <= at, older)


def _reaches_back_to(tx: Connection, walk: Select[Any]) -> int:
    """When the ``RARE``th run of a walk was created: the earlier, the rarer; -1 when there are fewer runs."""
    place = tx.execute(walk.offset(RARE - 1).limit(1)).one_or_none()
    return -1 if place is None else int(place.created_at)


def _with_each(wanted: Mapping[str, str], run_id: ColumnElement[str] = runs.c.id) -> list[ColumnElement[bool]]:
    """Conditions that a run has each of these attributes, looked up by the run."""
    # Not EXISTS: PostgreSQL makes a join of that, and then reads all runs that have the attribute.
    return [
        select(attributes.c.value).where(attributes.c.run_id == run_id, attributes.c.name == name).scalar_subquery()
        == value
        for name, value in wanted.items()
    ]


def _runs(tx: Connection, query: Select[Any]) -> list[Run]:
    return [Run(**row) for row in tx.execute(query).mappings()]


def _cut(found: list[Run], limit: int) -> Page:
    """The page of what a query for one run more has found."""
    shown = found[:limit]
    return Page(shown, (shown[-1].created_at, shown[-1].id) if len(found) > limit else None)


def newer(tx: Connection, wanted: RunFilter, *, after: Place, limit: int) -> list[Run]:
    """The page before the one that begins after *after*: the oldest *limit* runs newer than it, newest first."""
    at, run_id = after
    query = select(runs).where(*_conditions(wanted), runs.c.created_at >= at)
    query = query.where(or_(runs.c.created_at > at, runs.c.id > run_id))
    query = query.order_by(runs.c.created_at, runs.c.id).limit(limit)
    return [Run(**row) for row in tx.execute(query).mappings()][::-1]


def search_errors(tx: Connection, wanted: RunFilter, *, before: Place | None, limit: int) -> ErrorSearch:
    """
    The newest *limit* runs whose error, or reason to be blocked, contains ``wanted.error``.

    Reads at most ``SEARCHED`` runs of each status; ``next`` says where a further search begins.  The text of an
    encrypted or a very large error is not found.
    """
    assert wanted.error is not None
    statuses = [status for status in WITH_ERROR if wanted.status in (None, status)]
    found: list[Run] = []
    ends: list[Place] = []
    searched = 0
    for status in statuses:
        columns = select(runs.c.id, runs.c.created_at)
        newest = _matching(columns, wanted, before, status=status)
        end = tx.execute(newest.offset(SEARCHED - 1).limit(1)).one_or_none()
        if end is not None:
            ends.append((end.created_at, end.id))
        candidates = newest.limit(SEARCHED).subquery()
        searched += SEARCHED if end else tx.execute(select(func.count()).select_from(candidates)).scalar_one()
        query = select(runs).join(candidates, candidates.c.id == runs.c.id)
        query = query.outerjoin(
            events,
            and_(events.c.run_id == runs.c.id, events.c.op_id == ROOT, events.c.phase == "ended"),
        ).where(_has_text(tx, wanted.error))
        query = query.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit + 1)
        found += [Run(**row) for row in tx.execute(query).mappings()]
    return _merged(found, ends, searched, limit)


def _merged(found: list[Run], ends: list[Place], searched: int, limit: int) -> ErrorSearch:
    """Merge what each status has found: a run beyond the end of another status's search would be out of order."""
    found.sort(key=lambda run: (run.created_at, run.id), reverse=True)
    end = max(ends, default=None)
    in_order = [run for run in found if end is None or (run.created_at, run.id) >= end]
    if len(in_order) > limit:
        last = in_order[limit - 1]
        return ErrorSearch(in_order[:limit], searched, (last.created_at, last.id))
    return ErrorSearch(in_order, searched, end)


def _has_text(tx: Connection, text: str) -> ColumnElement[bool]:
    """Whether an error has this text, as JSON writes it, or the reason of a blocked run has it."""
    written = json.dumps(text)[1:-1].lower()

    def lowered(column: ColumnElement[str]) -> ColumnElement[str]:
        # JSON is ASCII, and PostgreSQL takes ten times as long to lower it by the rules of a language.
        return func.lower(column.collate("C") if tx.dialect.name == "postgresql" else column)

    return or_(
        lowered(events.c.value).contains(written, autoescape=True),
        lowered(events.c.data).contains(written, autoescape=True),
        func.lower(runs.c.blocked).contains(text.lower(), autoescape=True),
    )


def _matching(query: Select[Any], wanted: RunFilter, before: Place | None, *, status: str | None = None) -> Select[Any]:
    query = query.where(*_conditions(wanted, status)).order_by(runs.c.created_at.desc(), runs.c.id.desc())
    if before is None:
        return query
    at, run_id = before
    return query.where(runs.c.created_at <= at, or_(runs.c.created_at < at, runs.c.id < run_id))


def _conditions(wanted: RunFilter, status: str | None = None) -> Iterator[ColumnElement[bool]]:
    chosen = status or wanted.status
    if chosen is not None:
        yield runs.c.status == chosen
    if wanted.name is not None:
        yield runs.c.name == wanted.name
    if wanted.id is not None:
        yield or_(runs.c.id == wanted.id, runs.c.idempotency_key == wanted.id)
    if wanted.since is not None:
        yield runs.c.created_at >= wanted.since
    if wanted.until is not None:
        yield runs.c.created_at < wanted.until
    if wanted.paused:
        yield pauses.is_paused()
    yield from _with_each(wanted.attributes)


def count(tx: Connection, wanted: RunFilter, limit: int) -> int:
    """How many runs match, counted up to *limit*; ``wanted.error`` is not looked at."""
    some = select(runs.c.id).where(*_conditions(wanted)).limit(limit).subquery()
    return int(tx.execute(select(func.count()).select_from(some)).scalar_one())


def count_by_status(tx: Connection, name: str | None) -> dict[str, int]:
    """How many runs have each status, each counted up to ``COUNTED``; one statement."""
    counts = []
    for status in RunStatus:
        # The oldest: pages of the table that changed lately are not in the index alone.
        some = select(runs.c.id).where(runs.c.status == status).order_by(runs.c.created_at)
        if name is not None:
            some = some.where(runs.c.name == name)
        counted = select(func.count()).select_from(some.limit(COUNTED).subquery())
        counts.append(counted.scalar_subquery().label(status.value))
    row = tx.execute(select(*counts)).one()
    return dict(zip((status.value for status in RunStatus), row, strict=True))


def names(tx: Connection) -> list[str]:
    """The names of the workflows that have runs, in order; at most ``MOST_VALUES``."""
    return distinct(tx, runs.c.name)


def attributes_of(tx: Connection, ids: Collection[str]) -> dict[str, dict[str, str]]:
    """The attributes of these runs, by run."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    query = select(attributes.c.run_id, attributes.c.name, attributes.c.value).where(attributes.c.run_id.in_(ids))
    for row in tx.execute(query.order_by(attributes.c.run_id, attributes.c.name)):
        found[row.run_id][row.name] = row.value
    return found


@dataclass(frozen=True, slots=True)
class Waits:
    """
    What an open run waits for, in numbers, and an example of each kind.

    Attributes:
        kind: ``running``, ``pending`` and ``in_doubt`` steps; ``sleep``; ``webhook``; ``hook``; ``child``; ``turn``;
            ``limit``: the run has not begun.
        since: When the oldest began; for a sleep, when the first is over.
    """

    kind: str
    count: int
    example: str | None
    since: int | None


def waits_of(tx: Connection, open_ids: Collection[str]) -> dict[str, list[Waits]]:
    """What these open runs wait for, by run; six queries for a whole page."""
    found: dict[str, list[Waits]] = defaultdict(list)
    if not open_ids:
        return found
    shown = {StepStatus.CLAIMED: "running", StepStatus.PENDING: "pending", StepStatus.IN_DOUBT: "in_doubt"}
    per_step = select(
        steps.c.run_id, steps.c.status, func.count(), func.min(steps.c.name), func.min(steps.c.claimed_at)
    ).where(steps.c.run_id.in_(open_ids))
    for run_id, status, number, name, since in tx.execute(per_step.group_by(steps.c.run_id, steps.c.status)):
        found[run_id].append(Waits(shown[StepStatus(status)], number, name, since))
    kind = case((hooks.c.config.is_(None), "hook"), else_="webhook")
    is_open = and_(hooks.c.run_id.in_(open_ids), hooks.c.closed_at.is_(None))
    per_hook = select(hooks.c.run_id, kind, func.count(), func.min(hooks.c.created_at)).where(is_open)
    for run_id, which, number, since in tx.execute(per_hook.group_by(hooks.c.run_id, kind)):
        found[run_id].append(Waits(which, number, None, since))
    per_child = select(runs.c.parent_run_id, func.count(), func.min(runs.c.name), func.min(runs.c.created_at)).where(
        runs.c.parent_run_id.in_(open_ids), runs.c.status.not_in(ENDED)
    )
    for run_id, number, name, since in tx.execute(per_child.group_by(runs.c.parent_run_id)):
        found[run_id].append(Waits("child", number, name, since))
    per_wait = select(waits.c.run_id, func.count(), func.min(waits.c.due_at)).where(waits.c.run_id.in_(open_ids))
    for run_id, number, due in tx.execute(per_wait.group_by(waits.c.run_id)):
        found[run_id].append(Waits("sleep", number, None, due))
    in_line = and_(run_limits.c.run_id == inbox.c.run_id, run_limits.c.state.in_(IN_LINE))
    per_item = select(inbox.c.run_id, func.count(), func.min(inbox.c.at), func.min(run_limits.c.name))
    per_item = per_item.outerjoin(run_limits, in_line).where(inbox.c.run_id.in_(open_ids))
    for run_id, number, since, limit in tx.execute(per_item.group_by(inbox.c.run_id)):
        found[run_id].append(Waits("turn" if limit is None else "limit", number, limit, since))
    return found
