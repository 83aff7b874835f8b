"""What people do to limits: set their numbers, and end pauses."""

from __future__ import annotations

from collections.abc import Callable

import flask

from ..client import audited, limits
from ..errors import ConfigurationError
from ..store import audit
from .pages import Dashboard, back_to
from .security import Refused


def set_number(dashboard: Dashboard, name: str) -> flask.Response:
    """Set the number of a limit; an empty field stands for the number in the code."""
    text = flask.request.form.get("n", "").strip()
    if text and not (text.isascii() and text.isdigit()):
        raise Refused(400, "The number is malformed", "It is a whole number from 1 on.  Go back and correct it.")
    n = int(text) if text else None
    _act(dashboard, "set_limit", name, text or "default", lambda: limits.set_limit(dashboard.engine, name, n))
    return back_to("workers", done="set_limit")


def resume(dashboard: Dashboard, name: str) -> flask.Response:
    """End the pause of the form's key."""
    key = flask.request.form.get("key", "")
    _act(dashboard, "resume_limit", name, key, lambda: limits.resume(dashboard.engine, name, key))
    return back_to("workers", done="resume_limit")


def _act(dashboard: Dashboard, action: str, name: str, detail: str, do: Callable[[], object]) -> None:
    """Do one thing to one limit, if the caller may, with an entry in the audit that is committed first."""
    actor = dashboard.guard.require(action)
    dashboard.engine.check_schema()
    finish = audited.begin(dashboard.engine, audit.subject("limit", name), action, actor, f"{name}: {detail}")
    try:
        do()
    except ConfigurationError as error:
        finish(f"refused: {error}")
        raise Refused(409, "Nothing was done", str(error)) from error
    finish("done")
