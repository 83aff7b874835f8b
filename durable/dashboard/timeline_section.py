"""The timeline on the page of a run: a page of its operations, the axis with its zoom, and the rows that it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape
from sqlalchemy import Connection
from werkzeug.datastructures import MultiDict

from ..client import timeline
from ..display import Axis, formats
from ..store import Run, run_page
from .filters import whole_number

#: How many operations one page of the timeline has, and the most that a reader can ask for.
ROWS = 200
MOST_ROWS = 1_000
#: How many events the rows of a page are made from.
MOST_EVENTS = 5_000

_FAR = 2**62


@dataclass(frozen=True, slots=True)
class Section:
    """
    A page of the timeline.

    Attributes:
        now: The time of the "now" line; None for a run that has ended.
        is_zoomed: Whether the axis is not the whole of the rows.
        earlier: Parameters of the page before; None when these are the first operations.
        later: Parameters of the page after.
        more: Parameters of the same page with more rows.
        zoom: Parameters by what they do: ``in``, ``out``, ``left``, ``right``, ``all``.
    """

    rows: list[timeline.Row]
    axis: Axis
    now: int | None
    is_zoomed: bool
    earlier: dict[str, Any] | None
    later: dict[str, Any] | None
    more: dict[str, Any] | None
    zoom: dict[str, dict[str, Any]]

    def end_of(self, bar: timeline.Bar | timeline.Row) -> int:
        """Where a bar ends: now, if it goes on."""
        return bar.end if bar.end is not None else self.now or self.axis.end

    def drawn(self, row: timeline.Row) -> Markup:
        """
        The bars and marks of a row as SVG, over the grid ``#grid`` of the page.

        Positions are in percent, and what is drawn has classes: the pages have no styles of their own.
        """
        parts = ['<svg aria-hidden="true" focusable="false"><use href="#grid"></use>']
        for bar in row.bars:
            end = self.end_of(bar)
            if self.axis.shows(bar.start, end):
                y, height = (11, 4) if bar.kind is timeline.BarKind.WAITING else (7, 12)
                parts.append(
                    f'<rect class="bar bar-{bar.kind.value} is-{bar.state}" x="{self.axis.x(bar.start)}%"'
                    f' width="{self.axis.width(bar.start, end)}%" y="{y}" height="{height}" rx="1.5"'
                    f"{_FILLS.get(bar.kind, '')}><title>{_title(bar, end)}</title></rect>"
                )
        for mark in row.marks:
            if self.axis.shows(mark.at, mark.at):
                what = "payload" if mark.request_id is None else "request"
                title = f"{what} at {formats.clock(mark.at)}"
                parts.append(f'<circle class="mark" cx="{self.axis.x(mark.at)}%" cy="13" r="3">')
                parts.append(f"<title>{title}</title></circle>")
        return Markup("".join([*parts, "</svg>"]))


#: Patterns of the page.
_FILLS = {timeline.BarKind.SLEEP: ' fill="url(#hatch)"', timeline.BarKind.LISTENING: ' fill="url(#dots)"'}


def _title(bar: timeline.Bar, end: int) -> str:
    """What a pointer on a bar shows, escaped."""
    attempt = "" if bar.attempt is None else f" {bar.attempt}"
    worker = "" if bar.worker is None else f" on {escape(bar.worker)}"
    state = formats.words(bar.state)
    return f"{bar.kind.value}{attempt}, {state}: {formats.clock(bar.start)} for {formats.took(end - bar.start)}{worker}"


def read(tx: Connection, run: Run, given: MultiDict[str, str], now: int) -> Section:
    """
    Read the page of the timeline that the URL asks for; by default the last operations.

    Parameters: ``first`` and ``last`` (numbers of events between which operations begin), ``rows``, ``from`` and ``to``
    (the axis, in microseconds).
    """
    after, before = whole_number(given, "first", 0, _FAR), whole_number(given, "last", 0, _FAR)
    limit = max(1, whole_number(given, "rows", ROWS, MOST_ROWS))
    found = run_page.beginnings(
        tx, run.id, after=after, before=min(before or _FAR, run.seq + 1), limit=limit + 1, newest=not given.get("first")
    )
    has_more = len(found) > limit
    shown = found[:limit] if given.get("first") else found[-limit:]
    log = run_page.events_of_operations(tx, run.id, [each.op_id for each in shown], MOST_EVENTS)
    open_steps = [] if run.ended else run_page.open_steps(tx, run.id, [each.op_id for each in shown])
    rows = timeline.rows(log, open_steps, ended_at=run.completed_at)

    size = {"rows": limit} if limit != ROWS else {}
    has_earlier = bool(shown) and (has_more if not given.get("first") else True)
    has_later = bool(shown) and (has_more if given.get("first") else bool(before))
    may_grow = has_more and limit < MOST_ROWS
    whole = _whole(run, rows, now, is_first=not has_earlier, is_last=not has_later)
    axis = _axis(given, whole)
    position = {name: given[name] for name in ("first", "last", "rows") if given.get(name)}
    return Section(
        rows=[row for row in rows if axis.shows(row.start, row.end if row.end is not None else now)],
        axis=axis,
        now=None if run.ended else now,
        is_zoomed=axis != whole,
        earlier={**size, "last": shown[0].seq} if has_earlier else None,
        later={**size, "first": shown[-1].seq} if has_later else None,
        more={**position, "rows": MOST_ROWS} if may_grow else None,
        zoom={name: {**position, **_bounds(to)} for name, to in _zooms(axis).items()} | {"all": position},
    )


def _whole(run: Run, rows: list[timeline.Row], now: int, *, is_first: bool, is_last: bool) -> Axis:
    """The axis from the first to the last thing that these rows show."""
    # By another process's clock, the bar of a very short attempt may begin shortly after the end of its row.
    drawn: list[timeline.Row | timeline.Bar] = [*rows, *(bar for row in rows for bar in row.bars)]
    ends = [each.end if each.end is not None else now for each in drawn] + [each.start for each in drawn]
    start = run.created_at if is_first or not rows else min(each.start for each in drawn)
    end = (run.completed_at or now) if is_last or not rows else max(ends)
    return Axis(start, max(end, start + 1_000))


def _axis(given: MultiDict[str, str], whole: Axis) -> Axis:
    start, end = whole_number(given, "from", whole.start, _FAR), whole_number(given, "to", whole.end, _FAR)
    return Axis(start, end) if end > start else whole


def _zooms(axis: Axis) -> dict[str, Axis]:
    return {"in": axis.zoomed(0.5), "out": axis.zoomed(2), "left": axis.moved(-0.5), "right": axis.moved(0.5)}


def _bounds(axis: Axis) -> dict[str, int]:
    return {"from": axis.start, "to": axis.end}
