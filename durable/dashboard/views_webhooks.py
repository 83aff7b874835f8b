"""Receivers, and recent requests to webhooks and receivers, over all runs; some can be routed again."""

from __future__ import annotations

from dataclasses import dataclass

import flask
from sqlalchemy import Connection

from .. import context
from ..client import TooManyPending, audited
from ..client import route_again as routing
from ..display import mask
from ..errors import ConfigurationError, DecryptionError, PayloadMissing
from ..http import Request, Response
from ..store import Pause, RequestRow, hooks, pauses, received, run_page, runs
from . import filters, notices
from .pages import Dashboard, back_to
from .security import Refused
from .views_runs import place

PAGE = 50
#: How far the requests that a paused receiver holds are counted.
COUNTED = 10_000
#: Webhooks that have refused a request are listed for a week, in microseconds, and at most so many.
REFUSALS_KEPT, REFUSING = 7 * 86_400_000_000, 20
#: The most receivers that are listed.
RECEIVERS = 200


def route_again(dashboard: Dashboard, request_id: str) -> flask.Response:
    """Route a request to a receiver again that has reached no run, by the rules that this process has."""
    actor = dashboard.guard.require("retry_request")
    dashboard.import_workflows()
    finish = audited.begin(dashboard.engine, f"request:{request_id}"[:64], "retry_request", actor, request_id)
    try:
        routed = routing.route_again(dashboard.engine, request_id)
    except (ConfigurationError, TooManyPending) as error:
        finish(f"refused: {error}")
        raise Refused(409, "Nothing was done", str(error)) from error
    if routed is None:
        finish("refused: it has reached a run, waits, or is unknown")
        raise Refused(409, "Nothing was done", "The request has reached a run, waits for a hook, or is unknown.")
    finish("done")
    return back_to("webhooks", done="retry_request", count=sum(each.run_id is not None for each in routed))


@dataclass(frozen=True, slots=True)
class ListedReceiver:
    """A receiver; ``pause`` is None if it is not paused, and ``held`` is how many requests wait for its resume."""

    name: str
    pause: Pause | None
    held: int


def _list_receivers(tx: Connection) -> list[ListedReceiver]:
    """The receivers that this process has imported, that have received requests, or that are paused."""
    paused = {each.name: each for each in pauses.every(tx, RECEIVERS) if each.kind == pauses.RECEIVER}
    names = sorted({*context.receivers, *received.names(tx), *paused})[:RECEIVERS]
    return [
        ListedReceiver(name, paused.get(name), received.count_held(tx, name, COUNTED) if name in paused else 0)
        for name in names
    ]


def show(dashboard: Dashboard) -> flask.Response:
    """The newest requests, by pages."""
    dashboard.guard.require("read")
    engine = dashboard.engine
    engine.check_schema()
    now = engine.now()
    before = filters.place(flask.request.args, "before")
    with engine.store.read() as tx:
        found = run_page.recent_requests(tx, before=before, limit=PAGE + 1)
        rows = found[:PAGE]
        routed = received.of_requests(tx, [row.id for row in rows])
        listed = _list_receivers(tx)
        refusing = hooks.refusing(tx, now - REFUSALS_KEPT, REFUSING)
        refusing_receivers = received.refusing(tx, now - REFUSALS_KEPT, REFUSING)
        names = runs.names_of(tx, {*(row.run_id for row in rows), *(each.run_id for each in refusing)})
        may_see = engine.store.vault.cipher is None or dashboard.guard.allows("reveal")
        try:
            whole = {each.row.id: each for each in run_page.whole_requests(tx, rows)} if may_see else {}
        except (DecryptionError, PayloadMissing):
            whole = {}
    entries: list[tuple[RequestRow, Request | None, Response | None]] = [
        (row, whole[row.id].request, whole[row.id].answer) if row.id in whole else (row, None, None) for row in rows
    ]
    return dashboard.live_page(
        "webhooks.html",
        seen=[repr(rows), repr(refusing), repr(refusing_receivers), repr(routed), repr(listed)],
        entries=entries,
        refusing=refusing,
        refusing_receivers=refusing_receivers,
        received=routed,
        receivers=listed,
        most=COUNTED,
        names=names,
        mask=mask,
        older=place(rows[-1].received_at, rows[-1].id) if len(found) > PAGE else None,
        is_first=before is None,
        routable=received.UNREACHED,
        notice=notices.of(flask.request.args),
        now=now,
    )
