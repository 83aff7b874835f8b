"""
What people do to runs: each action is one form, one permission and one entry of the audit.

The operations are those of ``durable.client``, which the command line uses too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import flask
from werkzeug.exceptions import HTTPException

from ..client import OPEN, Client, Options, audited, matching_ids, operate, pauses
from ..client import fork as client_fork
from ..client import hooks as client_hooks
from ..client import start as client_start
from ..context import recorded_url
from ..errors import DurableError
from ..store import Hook, RunStatus, hooks
from . import filters
from .filters import ListQuery
from .pages import Dashboard, back_to
from .security import Refused
from .views_run import find, is_run_id

#: How far a page that asks for confirmation counts.
COUNTED = 10_000
#: How long one form acts on many runs.
BULK_SECS = 10.0

#: Longest text of a form's field, in characters.
_LONGEST = 1_000_000


def cancel(dashboard: Dashboard, run_id: str) -> flask.Response:
    """Ask the run to stop."""
    reason = _field("reason", longest=1_000) or None
    _act(dashboard, "cancel", run_id, reason, lambda: _cancel(dashboard, run_id, reason))
    return back_to("run", run_id=run_id, done="cancel")


def retry(dashboard: Dashboard, run_id: str) -> flask.Response:
    """Try a blocked run again."""
    _act(dashboard, "retry", run_id, None, lambda: _retry(dashboard, run_id))
    return back_to("run", run_id=run_id, done="retry")


def fork(dashboard: Dashboard, run_id: str) -> flask.Response:
    """Start a run that goes on at a step of this one: the step of the form, else the one that has failed."""
    dashboard.guard.require("fork", run_id)
    dashboard.import_workflows()
    step = _field("step") or None
    forked = _act(
        dashboard, "fork", run_id, step, lambda: client_fork.fork(dashboard.engine, run_id, from_step=step).id
    )
    return back_to("run", run_id=forked, done="fork")


def pause(dashboard: Dashboard, run_id: str) -> flask.Response:
    """Pause the run, and its child runs if the form says so."""
    reason, children = _field("reason", longest=1_000) or None, _wants_children()
    detail = _with_children(reason, children=children)
    _act(dashboard, "pause", run_id, detail, lambda: _pause(dashboard, run_id, reason, children=children))
    return back_to("run", run_id=run_id, done="pause_children" if children else "pause")


def unpause(dashboard: Dashboard, run_id: str) -> flask.Response:
    """End the run's own pause, and those of its child runs if the form says so."""
    children = _wants_children()
    detail = _with_children(None, children=children)
    _act(dashboard, "unpause", run_id, detail, lambda: _unpause(dashboard, run_id, children=children))
    return back_to("run", run_id=run_id, done="unpause_children" if children else "unpause")


def wake(dashboard: Dashboard, run_id: str) -> flask.Response:
    """End the pending sleeps of the run."""
    woken = _act(dashboard, "wake", run_id, None, lambda: operate.wake_up(dashboard.engine, run_id))
    return back_to("run", run_id=run_id, done="wake", count=woken)


def resolve(dashboard: Dashboard, run_id: str) -> flask.Response:
    """Record the outcome of a step in doubt: the form has its result as JSON, or why it failed."""
    step_id, outcome = _field("step"), _field("outcome")
    if outcome == "failed":
        message = _field("message", longest=10_000)
        if not message:
            raise Refused(400, "The message is missing", "Say why the step failed.  Go back and fill in the message.")
        detail = f"{step_id} failed: {message}"
        act: Callable[[], str] = lambda: operate.resolve(dashboard.engine, run_id, step_id, fail=message)  # noqa: E731
    else:
        result = _json("result")
        detail = f"{step_id} completed"
        act = lambda: operate.resolve(dashboard.engine, run_id, step_id, result=result)  # noqa: E731
    _act(dashboard, "resolve", run_id, detail, act)
    return back_to("run", run_id=run_id, done="resolve")


def resume(dashboard: Dashboard, run_id: str) -> flask.Response:
    """Deliver the payload of the form, which is JSON, to a hook of the run."""
    op_id, payload = _field("operation"), _json("payload")
    hook = _hook(dashboard, "resume", run_id, op_id)
    if not hook.open:
        raise Refused(409, "The hook is closed", "The workflow does not listen to this hook any more.")
    _act(dashboard, "resume", run_id, op_id, lambda: client_hooks.resume_hook(dashboard.engine, hook.token, payload))
    return back_to("run", run_id=run_id, done="resume")


def start_again(dashboard: Dashboard, run_id: str) -> flask.Response:
    """Start a run of the same workflow with the same arguments."""
    dashboard.guard.require("start", run_id)
    dashboard.import_workflows()
    started = _act(
        dashboard, "start", run_id, "again", lambda: client_start.start_like(dashboard.engine, run_id, Options()).id
    )
    return back_to("run", run_id=started, done="start")


def reveal_token(dashboard: Dashboard, run_id: str) -> flask.Response:
    """A page with the token of a hook, or the URL of a webhook."""
    op_id = _field("operation")
    hook = _hook(dashboard, "reveal_token", run_id, op_id)
    _act(dashboard, "reveal_token", run_id, op_id, lambda: None)
    url = None if hook.config is None else recorded_url(hook.config, hook.token)
    return dashboard.page("token.html", run_id=run_id, hook=hook, url=url)


def confirm(dashboard: Dashboard) -> flask.Response:
    """The page that asks before a bulk action: how many runs it is for."""
    dashboard.guard.require("read")
    action = _bulk_action(flask.request.args.get("action", ""))
    dashboard.guard.require(f"bulk_{action}")
    dashboard.engine.check_schema()
    now = dashboard.engine.now()
    selected = _selected(flask.request.args.getlist("run"))
    query = filters.parse(flask.request.args, now)
    if not selected and not query.is_filtered:
        raise Refused(400, "No run is chosen", "Select runs in the list, or set a filter first.")
    count = len(selected) if selected else sum(1 for _ in _matching(dashboard, query, action, now, COUNTED))
    return dashboard.page(
        "confirm.html", action=action, count=count, most=COUNTED, selected=selected, query=query, upto=now
    )


def bulk(dashboard: Dashboard) -> flask.Response:
    """Cancel, retry, pause or resume the runs that were confirmed."""
    form = flask.request.form
    action = _bulk_action(form.get("action", ""))
    dashboard.guard.require(f"bulk_{action}")
    dashboard.engine.check_schema()
    now = dashboard.engine.now()
    upto = filters.whole_number(form, "upto", now, now)
    selected = _selected(form.getlist("run"))
    # A time like ``10m`` counts from the question, so that the form is for the runs that were counted there.
    query = filters.parse(form, upto)
    if not selected and not query.is_filtered:
        raise Refused(400, "No run is chosen", "Select runs in the list, or set a filter first.")
    ids = iter(selected) if selected else _matching(dashboard, query, action, upto, COUNTED)
    act, recorded_as = _BULK[action]
    children = _wants_children() and action in _WITH_CHILDREN
    act, detail = partial(act, children=True) if children else act, _with_children("bulk", children=children)
    deadline = time.monotonic() + BULK_SECS
    done, refused, more = 0, 0, 0
    for run_id in ids:
        if time.monotonic() > deadline:
            more = 1
            break
        try:
            _act(dashboard, recorded_as, run_id, detail, partial(act, dashboard, run_id))
        except (Refused, DurableError, HTTPException):
            # The application's ``authorize`` may answer with ``flask.abort`` for one run.
            refused += 1
        else:
            done += 1
    pauses.go_on_with_pauses(dashboard.engine)
    return back_to("runs", **query.parameters, done=f"bulk_{action}", count=done, refused=refused, more=more)


def _act(dashboard: Dashboard, action: str, run_id: str, detail: str | None, do: Callable[[], Any]) -> Any:
    """
    Do one thing to one run, if the caller may, with an entry in the audit.

    The entry is committed first, so that no action is missing in the audit, whatever happens to this process.
    """
    actor = dashboard.guard.require(action, run_id)
    dashboard.engine.check_schema()
    with dashboard.engine.store.read() as tx:
        find(tx, run_id)
    finish = audited.begin(dashboard.engine, run_id, action, actor, detail)
    try:
        result = do()
    except (Refused, DurableError, TypeError, ValueError) as error:
        detail = error.detail if isinstance(error, Refused) else str(error)
        finish(f"refused: {detail}")
        if isinstance(error, Refused):
            raise
        raise Refused(409, "Nothing was done", detail) from error
    finish("done")
    return result


def _cancel(dashboard: Dashboard, run_id: str, reason: str | None = None) -> None:
    if not Client(dashboard.engine).cancel(run_id, reason):
        raise Refused(409, "The run has ended", "A run that has ended cannot be cancelled.")


def _retry(dashboard: Dashboard, run_id: str) -> None:
    if operate.is_in_doubt(dashboard.engine, run_id):
        raise Refused(
            409,
            "A step is in doubt",
            "A retry does not resolve a step in doubt.  Find out whether the step did its work, and resolve it.",
        )
    if not operate.retry(dashboard.engine, run_id):
        raise Refused(409, "The run is not blocked", "Only a blocked run can be retried.")


def _pause(dashboard: Dashboard, run_id: str, reason: str | None = None, *, children: bool = False) -> None:
    if not pauses.pause_run(dashboard.engine, run_id, reason, children=children):
        who = "It and its child runs have ended, or were" if children else "It has ended, or was"
        raise Refused(409, "The run was not paused", f"{who} paused already.")


def _unpause_in_turn(dashboard: Dashboard, run_id: str, *, children: bool = False) -> None:
    if not pauses.resume_in_turn(dashboard.engine, run_id, children=children):
        raise Refused(409, "The run is not paused by itself", "It was resumed, or its workflow is paused.")


def _unpause(dashboard: Dashboard, run_id: str, *, children: bool = False) -> None:
    if not pauses.resume_run(dashboard.engine, run_id, children=children):
        raise Refused(409, "The run is not paused by itself", "Resume its workflow or its queue instead.")


def _wants_children() -> bool:
    """Whether the box of the form is checked that says that the action is for child runs too."""
    return _field("children") == "yes"


def _with_children(detail: str | None, *, children: bool) -> str | None:
    """The detail of an entry of the audit, which says whether the action was for child runs too."""
    return detail if not children else "with child runs" if detail is None else f"with child runs: {detail}"


#: By bulk action: what it does to a run, and what the audit and ``authorize`` call that.
_BULK: Mapping[str, tuple[Callable[..., None], str]] = {
    "cancel": (_cancel, "cancel"),
    "retry": (_retry, "retry"),
    "pause": (_pause, "pause"),
    "resume": (_unpause_in_turn, "unpause"),
}
#: Those that can be for child runs too.
_WITH_CHILDREN = ("pause", "resume")


def _hook(dashboard: Dashboard, action: str, run_id: str, op_id: str) -> Hook:
    dashboard.guard.require(action, run_id)
    dashboard.engine.check_schema()
    with dashboard.engine.store.read() as tx:
        find(tx, run_id)
        hook = hooks.find_of_run(tx, run_id, op_id)
    if hook is None:
        raise Refused(404, "Hook not found", "This run has no hook with this operation.")
    return hook


def _bulk_action(name: str) -> str:
    if name not in _BULK:
        raise Refused(400, "Unknown action", "The dashboard can cancel, retry, pause and resume many runs.")
    return name


def _selected(given: list[str]) -> list[str]:
    ids = list(dict.fromkeys(given))
    if len(ids) > 1_000 or not all(is_run_id(run_id) for run_id in ids):
        raise Refused(400, "The selection is malformed", "Select runs in the list, at most 1,000.")
    return ids


def _matching(dashboard: Dashboard, query: ListQuery, action: str, upto: int, limit: int) -> Iterator[str]:
    """The ids of the runs that match and that the action is for; runs that are newer than *upto* are left out."""
    statuses = [RunStatus.BLOCKED] if action == "retry" else list(OPEN)
    wanted = replace(query.wanted, paused=query.wanted.paused or action == "resume")
    until = upto if wanted.until is None else min(upto, wanted.until)
    left = limit
    for status in statuses:
        if wanted.status not in (None, status):
            continue
        for run_id in matching_ids(dashboard.engine, replace(wanted, status=status, until=until)):
            if not left:
                return
            left -= 1
            yield run_id


def _field(name: str, *, longest: int = 255) -> str:
    """A text of the form, stripped."""
    text = flask.request.form.get(name, "").strip()
    if len(text) > longest or "\0" in text:
        raise Refused(400, f"The field {name!r} is malformed", f"It has at most {longest:,} characters of text.")
    return text


def _json(name: str) -> Any:
    """A field of the form that is JSON."""
    text = _field(name, longest=_LONGEST)
    return parse_json(name, text)


def parse_json(name: str, text: str) -> Any:
    """The value of JSON in the field *name*."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(
            400,
            f"The field {name!r} is not JSON",
            f'{error}.  A text needs quotes, like this: "text".  Go back and correct it.',
        ) from None
