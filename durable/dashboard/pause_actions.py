"""What people do to workflows, queues and receivers: pause them, and resume them."""

from __future__ import annotations

from collections.abc import Callable

import flask

from ..client import audited, pauses
from ..errors import ConfigurationError
from ..store import audit
from .pages import Dashboard, back_to
from .security import Refused

#: The pages with the buttons.
_PAGES = {"workflow": "workflows", "queue": "workers", "receiver": "webhooks"}


def pause(dashboard: Dashboard, kind: str, name: str) -> flask.Response:
    """Pause something by its name."""
    return _act(dashboard, "pause", kind, name, lambda: pauses.pause(dashboard.engine, kind, name))


def resume(dashboard: Dashboard, kind: str, name: str) -> flask.Response:
    """Resume something by its name."""
    return _act(dashboard, "resume", kind, name, lambda: pauses.resume(dashboard.engine, kind, name))


def _act(dashboard: Dashboard, verb: str, kind: str, name: str, do: Callable[[], bool]) -> flask.Response:
    """Do it, if the caller may, with an entry in the audit that is committed first."""
    if kind not in _PAGES or len(name) > 255 or "\0" in name:
        raise Refused(404, "Page not found", "The dashboard has no page at this address.")
    actor = dashboard.guard.require(f"{verb}_{kind}")
    dashboard.engine.check_schema()
    finish = audited.begin(dashboard.engine, audit.subject(kind, name), f"{verb}_{kind}", actor, name)
    try:
        done = do()
    except ConfigurationError as error:
        finish(f"refused: {error}")
        raise Refused(409, "Nothing was done", str(error)) from error
    finish("done" if done else "refused: it was so already")
    return back_to(_PAGES[kind], done=f"{verb}_{kind}")
