"""The page of one run, and the pages of its operations and webhook requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import flask
from sqlalchemy import Connection
from werkzeug.datastructures import MultiDict

from .. import events, http
from ..client import pending, receiver_lists, timeline
from ..display import mask
from ..engine import Engine
from ..errors import DecryptionError, PayloadMissing, RunNotFound
from ..events import ROOT, Event
from ..replay import QUESTION_METHOD
from ..store import (
    Hook,
    RequestRow,
    Run,
    StoredItem,
    StreamRow,
    attributes,
    audit,
    fork_run,
    generations,
    hooks,
    in_doubt,
    pauses,
    published,
    received,
    run_log,
    run_page,
    runs,
    streams,
)
from . import notices, timeline_section
from .filters import whole_number
from .pages import Dashboard
from .payloads import Payloads, Shown, ShownError
from .security import Refused

#: How many events one page of the log has, and how many of the other things a page lists.
LOG_PAGE = 100
LISTED = 50
_OPERATION_EVENTS = 500
_FAR = 2**62
#: Parts of the page that change without a turn of the run.
_CHANGING = ("paused_by", "audit", "requests", "refusing", "values", "streams")


@dataclass(frozen=True, slots=True)
class ListedRequest:
    """A request in a list; ``request`` is None when its head cannot be shown."""

    row: RequestRow
    request: http.Request | None
    answer: http.Response | None


@dataclass(frozen=True, slots=True)
class Detail:
    """One event of an operation, with its value or its error; of a question also with the reply."""

    event: Event
    value: Shown | None
    error: ShownError | Shown | None
    reply: Shown | None = None


def show(dashboard: Dashboard, run_id: str) -> flask.Response:
    """The page of a run."""
    dashboard.guard.require("read", run_id)
    engine, given = dashboard.engine, flask.request.args
    engine.check_schema()
    now = engine.now()
    with engine.store.read() as tx:
        run = find(tx, run_id)
        page = _read(dashboard, tx, run, given, now)
    # The bars of what goes on grow: they are drawn again every five seconds.
    growing = None if run.ended else now // 5_000_000
    return dashboard.live_page(
        "run.html",
        seen=[run.turn, run.status, len(page["waiting"]), growing, *(repr(page[part]) for part in _CHANGING)],
        refresh=None if run.ended else 3,
        notice=notices.of(given),
        given={name: value for name, value in given.items() if name in ("first", "last", "rows", "from", "to", "log")},
        run=run,
        now=now,
        mask=mask,
        **page,
    )


def _read(dashboard: Dashboard, tx: Connection, run: Run, given: MultiDict[str, str], now: int) -> dict[str, Any]:
    """Read what the page of a run shows."""
    payloads = Payloads(dashboard, tx, run.id)
    created = run_page.stored(tx, run.id, ROOT, "created") or run_log.oldest_inbox_item(tx, run.id)
    ended = run_page.stored(tx, run.id, ROOT, "ended") if run.ended else None
    return {
        "arguments": payloads.value(created if isinstance(created, events.RunCreated) else None, "arguments"),
        "result": payloads.value(ended, "result") if isinstance(ended, events.RunCompleted) else None,
        "error": _error(payloads, ended),
        "reason": ended.reason if isinstance(ended, events.RunCancelledEvent) else None,
        "blocked": payloads.text("blocked", run.blocked) if run.blocked is not None else None,
        "generations": generations.neighbours(tx, run),
        "family": family(tx, run),
        "paused_by": pauses.causes_of(tx, [run.id]).get(run.id, []),
        "attributes": attributes.read(tx, run.id),
        "values": [(each, payloads.published(each)) for each in published.read(tx, run).values()],
        "streams": _streams(payloads, tx, run),
        "waiting": _waiting(dashboard.engine, tx, run),
        "doubts": in_doubt.of_run(tx, run.id) if not run.ended else [],
        "section": timeline_section.read(tx, run, given, now),
        "children": run_page.children(tx, run.id, LISTED),
        "hooks": _hooks(tx, run.id),
        "refusing": hooks.refusing(tx, 0, LISTED, run.id),
        "requests": _listed(payloads, tx, run_page.requests_of_run(tx, run.id, LISTED)),
        "audit": audit.of_run(tx, run.id, LISTED),
        "log": _log(tx, run, whole_number(given, "log", 0, _FAR)),
    }


def show_operation(dashboard: Dashboard, run_id: str, op_id: str) -> flask.Response:
    """What a click on a bar shows: the events of one operation with their values, and the message of an open step."""
    dashboard.guard.require("read", run_id)
    engine = dashboard.engine
    engine.check_schema()
    with engine.store.read() as tx:
        run = find(tx, run_id)
        log = run_page.log_of_operation(tx, run_id, op_id, _OPERATION_EVENTS)
        if not log or op_id == ROOT:
            raise Refused(404, "Operation not found", "The log of this run has no operation with this id.")
        payloads = Payloads(dashboard, tx, run_id)
        open_steps = run_page.open_steps(tx, run_id, [op_id])
        rows = timeline.rows(log, open_steps, ended_at=run.completed_at)
        replies = payloads.replies([str(each.request_id) for each in log if _is_question(each)])
        return dashboard.page(
            "operation.html",
            run=run,
            op_id=op_id,
            row=rows[0] if rows else None,
            details=[_detail(payloads, event, replies) for event in log],
            step=open_steps[0] if open_steps else None,
            now=engine.now(),
        )


def show_request(dashboard: Dashboard, run_id: str, request_id: str) -> flask.Response:
    """A request to a webhook or a receiver and its answer, with headers and bodies."""
    # A request to a receiver that has reached no run belongs to none.
    is_of_run = run_id != received.owner(request_id)
    dashboard.guard.require("read", run_id if is_of_run else None)
    dashboard.engine.check_schema()
    with dashboard.engine.store.read() as tx:
        run = find(tx, run_id) if is_of_run else None
        row = run_page.find_request(tx, request_id) if is_run_id(request_id) else None
        if row is None or row.run_id != run_id:
            raise Refused(404, "Request not found", "This run has no webhook request with this id.")
        payloads = Payloads(dashboard, tx, run_id if is_of_run else None)
        (listed,) = _listed(payloads, tx, [row])
        routed = received.find(tx, request_id)
        sent, answer = listed.request, listed.answer
        is_question = sent is not None and sent.method == QUESTION_METHOD
        return dashboard.page(
            "request.html",
            run=run,
            row=row,
            routed=routed,
            reason=receiver_lists.detail_of(tx, routed) if routed is not None and payloads.may_reveal else None,
            request=sent,
            url=mask(sent.url) if sent is not None else None,
            headers=payloads.headers(sent) if sent is not None else [],
            body=_body(payloads, sent, "body"),
            answer=answer,
            answer_headers=payloads.headers(answer) if answer is not None else [],
            answer_body=_body(payloads, answer, "answer body"),
            payload=_payload(payloads, tx, row) if is_question else None,
            reply=payloads.reply(answer) if is_question else None,
            now=dashboard.engine.now(),
        )


@dataclass(frozen=True, slots=True)
class Relative:
    """A run in the tree of forks, and how deep in the tree it is."""

    run: Run
    depth: int


def family(tx: Connection, run: Run) -> list[Relative]:
    """The tree of forks that a run is in, from the run that was no fork; empty if there are no forks."""
    origins = [run]
    while origins[0].forked_from is not None and len(origins) < LISTED:
        origin = runs.find(tx, origins[0].forked_from)
        if origin is None:
            break
        origins.insert(0, origin)
    tree: list[Relative] = []
    waiting = [Relative(origins[0], 0)]
    while waiting and len(tree) < LISTED:
        tree.append(waiting.pop(0))
        forks = fork_run.forks_of(tx, [tree[-1].run.id], LISTED)
        waiting = [*(Relative(each, tree[-1].depth + 1) for each in forks), *waiting]
    return tree if len(tree) > 1 or run.forked_from is not None else []


def find(tx: Connection, run_id: str) -> Run:
    """The run's row; RunNotFound when there is none, also for a text that is no id."""
    run = runs.find(tx, run_id) if is_run_id(run_id) else None
    if run is None:
        raise RunNotFound(run_id)
    return run


def is_run_id(text: str) -> bool:
    """Whether a text can be the id of a run; another text must not reach the database."""
    return 1 <= len(text) <= 64 and all("!" <= c <= "~" for c in text)


def _error(payloads: Payloads, ended: Event | None) -> ShownError | Shown | None:
    if isinstance(ended, events.RunFailedEvent) or (isinstance(ended, events.RunCancelledEvent) and ended.error):
        return payloads.error(ended)
    return None


def _is_question(event: Event) -> TypeGuard[events.HookReceived]:
    return isinstance(event, events.HookReceived) and event.request_id is not None and event.payload is not None


def _payload(payloads: Payloads, tx: Connection, row: RequestRow) -> Shown:
    """The payload of a question, which the log has."""
    log = run_page.log_of_operation(tx, row.run_id, row.op_id, _OPERATION_EVENTS)
    asked = next((event for event in log if _is_question(event) and event.request_id == row.id), None)
    if asked is None:
        return Shown(hidden=f"The first {_OPERATION_EVENTS} events of its hook do not have it (yet).")
    return payloads.value(asked, "payload")


def _detail(payloads: Payloads, event: Event, replies: Mapping[str, Shown]) -> Detail:
    if event.value_field is None or getattr(event, event.value_field) is None:
        return Detail(event, None, None)
    if event.value_field == "error":
        return Detail(event, None, payloads.error(event))
    where = {"args": "arguments"}.get(event.value_field, event.value_field)
    reply = replies.get(str(event.request_id)) if _is_question(event) else None
    return Detail(event, payloads.value(event, where), None, reply)


def _waiting(engine: Engine, tx: Connection, run: Run) -> list[dict[str, Any]]:
    """What the run waits for; nothing when this process cannot decrypt the options of its hooks."""
    try:
        return pending.waiting_for(engine, tx, run)
    except (DecryptionError, PayloadMissing):
        return []


def _streams(payloads: Payloads, tx: Connection, run: Run) -> list[tuple[StreamRow, StoredItem | None, Shown | None]]:
    """The run's streams, each with its latest item."""
    key = run.first_run_id or run.id
    found = streams.of_run(tx, key, LISTED)
    if not found:
        return []
    items = streams.pages(tx, [streams.StreamPlace(key, each.name, each.items - 1) for each in found])
    shown: list[tuple[StreamRow, StoredItem | None, Shown | None]] = []
    for each in found:
        latest = items[key, each.name][-1:]
        values = [payloads.item(key, each.name, item) for item in latest]
        shown.append((each, latest[0] if latest else None, values[0] if values else None))
    return shown


def _hooks(tx: Connection, run_id: str) -> list[Hook]:
    """The run's hooks; none when this process cannot decrypt their options."""
    try:
        return hooks.all_of_run(tx, run_id, LISTED)
    except (DecryptionError, PayloadMissing):
        return []


def _log(tx: Connection, run: Run, first: int) -> dict[str, Any]:
    """A page of the log: from the event with this number, or with 0 the newest events.  Numbers have no gaps."""
    first = first or max(1, run.seq - LOG_PAGE + 1)
    page = run_log.page(
        tx, run.id, after=first - 1, before=first + LOG_PAGE, limit=LOG_PAGE, newest_first=False, values=False
    )
    has_later = first + LOG_PAGE <= run.seq
    has_earlier = bool(page) and page[0].seq > 1
    return {
        "events": page,
        "earlier": max(1, page[0].seq - LOG_PAGE) if has_earlier else None,
        "later": page[-1].seq + 1 if page and has_later else None,
    }


def _listed(payloads: Payloads, tx: Connection, rows: list[RequestRow]) -> list[ListedRequest]:
    """Requests with their heads, if the caller may see them and this process has the key."""
    if not payloads.may_reveal:
        return [ListedRequest(row, None, None) for row in rows]
    try:
        whole = {each.row.id: each for each in run_page.whole_requests(tx, rows)}
    except (DecryptionError, PayloadMissing):
        return [ListedRequest(row, None, None) for row in rows]
    return [
        ListedRequest(row, whole[row.id].request, whole[row.id].answer)
        if row.id in whole
        else ListedRequest(row, None, None)
        for row in rows
    ]


def _body(payloads: Payloads, message: http.Request | http.Response | None, where: str) -> Shown | None:
    """A body as text; what is not text is described."""
    if message is None:
        return None
    if isinstance(message, http.Request) and not message.is_loaded:
        return Shown(hidden=f"The body has {message.size:,} bytes, which is too large for this page.")
    data = message.data if isinstance(message, http.Request) else message.body
    if not data:
        return Shown(hidden="The body is empty.")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return Shown(hidden=f"The body has {len(data):,} bytes that are not text in UTF-8.")
    return Shown(payloads.redacted(text, where))
