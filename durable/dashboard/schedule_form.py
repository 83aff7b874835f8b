"""The form that makes a schedule at run time."""

from __future__ import annotations

from typing import Any

import flask

from .. import registry
from ..client import audited
from ..errors import ConfigurationError
from ..schedules import CATCH_UPS, OVERLAPS, define, handle
from .actions import parse_json
from .pages import Dashboard, back_to
from .security import Refused
from .views_schedules import moment, subject

#: The fields that ``define`` takes as they are; an empty one is not given.
_TEXTS = ("cron", "every", "jitter")


def show(dashboard: Dashboard) -> flask.Response:
    """The form, empty."""
    dashboard.guard.require("create_schedule")
    dashboard.import_workflows()
    names = sorted(registry.workflows)
    return dashboard.page("schedule_form.html", names=names, overlaps=OVERLAPS, catch_ups=CATCH_UPS)


def create(dashboard: Dashboard) -> flask.Response:
    """Make the schedule of the form, or change the one that has its name."""
    actor = dashboard.guard.require("create_schedule")
    dashboard.import_workflows()
    form = flask.request.form
    name = form.get("name", "").strip()
    given = parse_json("args", form.get("args", "").strip() or "[]")
    if not isinstance(given, list | dict):
        raise Refused(
            400, "The arguments are malformed", "They are a JSON list, or an object with a key per parameter."
        )
    args, kwargs = (tuple(given), {}) if isinstance(given, list) else ((), given)
    options: dict[str, Any] = {field: form.get(field, "").strip() or None for field in _TEXTS}
    options |= {"tz": form.get("tz", "").strip() or "UTC", "until": moment("until")}
    options |= {"overlap": form.get("overlap", ""), "catch_up": form.get("catch_up", "")}
    try:
        workflow = registry.workflows[form.get("workflow", "")]
        definition = define(name, workflow, args, kwargs, **options)
    except KeyError:
        raise Refused(404, "Workflow not found", "This web process has not imported a workflow of this name.") from None
    except ConfigurationError as error:
        raise Refused(422, "The schedule was not made", f"{error}  Go back and correct it.") from error
    finish = audited.begin(dashboard.engine, subject(name), "create_schedule", actor, name)
    try:
        handle.create(dashboard.engine, definition)
    except ConfigurationError as error:
        finish(f"refused: {error}")
        raise Refused(409, "The schedule was not made", f"{error}") from error
    finish("done")
    return back_to("schedule", name=name, done="create_schedule")
