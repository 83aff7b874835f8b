"""
The dashboard: a Flask blueprint on which people watch and steer runs.

::

    app.register_blueprint(create_dashboard(engine, authorize=may), url_prefix="/durable")

It reads by queries of ``durable.store`` and acts by operations of ``durable.client``.  Every page works without
JavaScript; the script only reloads pages and remembers selections.

Files, in import order::

    static/              the stylesheet and the script
    templates/           the pages
    charts.py            the columns of small plots
    formats.py           values as text or HTML, and the filters of the templates
    security.py          who may do what; forms; the headers of every answer
    pages.py             ``Dashboard``: templates to responses, errors to pages
    filters.py           the filter of the list of runs, from the URL
    notices.py           what a form has done, on the page that follows
    payloads.py          values of runs as pages show them
    timeline_section.py  the timeline on the page of a run
    views_runs.py        the list of runs
    views_run.py         the page of a run, of an operation, of a request
    views_workflows.py   numbers by workflow
    views_workers.py     workers and queues
    actions.py           cancel, retry, fork, pause, wake, resolve, resume, bulk actions; the audit
    views_webhooks.py    webhook requests over all runs
    limit_actions.py     what people do to limits
    pause_actions.py     what people do to workflows, queues and receivers: pause and resume
    views_schedules.py   schedules, and what people do to them
    schedule_form.py     the form that makes one
    start_form.py        starts a workflow by a form made from its signature
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flask
from flask.blueprints import BlueprintSetupState

from ..engine import Engine
from . import (
    actions,
    limit_actions,
    pause_actions,
    schedule_form,
    start_form,
    views_run,
    views_runs,
    views_schedules,
    views_webhooks,
    views_workers,
    views_workflows,
)
from .pages import FOLDER, PATHS, Dashboard, Redact
from .security import ACTIONS, DEV_VARIABLE, Authorize, Refused

__all__ = ["ACTIONS", "DEV_VARIABLE", "Authorize", "Redact", "create_dashboard"]

#: The blueprint's name.
NAME = "durable_dashboard"

View = Callable[..., flask.Response]


def _home(_dashboard: Dashboard) -> flask.Response:
    response = flask.redirect(flask.url_for(".runs"))
    assert isinstance(response, flask.Response)
    return response


def _missing(_dashboard: Dashboard, rest: str) -> flask.Response:
    raise Refused(404, "Page not found", "The dashboard has no page at this address.")


#: Path, endpoint, method and view of each page and form.
ROUTES: tuple[tuple[str, str, str, View], ...] = (
    ("/", "home", "GET", _home),
    ("/runs", "runs", "GET", views_runs.show),
    ("/runs/bulk", "confirm", "GET", actions.confirm),
    ("/runs/bulk", "bulk", "POST", actions.bulk),
    ("/run/<path:run_id>", "run", "GET", views_run.show),
    ("/run/<path:run_id>/operation/<path:op_id>", "operation", "GET", views_run.show_operation),
    ("/run/<path:run_id>/request/<path:request_id>", "request", "GET", views_run.show_request),
    ("/run/<path:run_id>/cancel", "cancel", "POST", actions.cancel),
    ("/run/<path:run_id>/retry", "retry", "POST", actions.retry),
    ("/run/<path:run_id>/fork", "fork", "POST", actions.fork),
    ("/run/<path:run_id>/pause", "pause", "POST", actions.pause),
    ("/run/<path:run_id>/unpause", "unpause", "POST", actions.unpause),
    ("/pause/<path:kind>/<path:name>", "pause_by_name", "POST", pause_actions.pause),
    ("/resume/<path:kind>/<path:name>", "resume_by_name", "POST", pause_actions.resume),
    ("/run/<path:run_id>/wake", "wake", "POST", actions.wake),
    ("/run/<path:run_id>/resolve", "resolve", "POST", actions.resolve),
    ("/run/<path:run_id>/resume", "resume", "POST", actions.resume),
    ("/run/<path:run_id>/again", "again", "POST", actions.start_again),
    ("/run/<path:run_id>/token", "token", "POST", actions.reveal_token),
    ("/workflows", "workflows", "GET", views_workflows.show),
    ("/workers", "workers", "GET", views_workers.show),
    ("/webhooks", "webhooks", "GET", views_webhooks.show),
    ("/request/<path:request_id>/retry", "retry_request", "POST", views_webhooks.route_again),
    ("/limit/<path:name>/set", "set_limit", "POST", limit_actions.set_number),
    ("/limit/<path:name>/resume", "resume_limit", "POST", limit_actions.resume),
    ("/schedules", "schedules", "GET", views_schedules.show),
    ("/schedules/new", "schedule_form", "GET", schedule_form.show),
    ("/schedules/new", "create_schedule", "POST", schedule_form.create),
    ("/schedule/<path:name>", "schedule", "GET", views_schedules.show_one),
    ("/schedule/<path:name>/pause", "pause_schedule", "POST", views_schedules.pause),
    ("/schedule/<path:name>/resume", "resume_schedule", "POST", views_schedules.resume),
    ("/schedule/<path:name>/trigger", "trigger_schedule", "POST", views_schedules.trigger),
    ("/schedule/<path:name>/backfill", "backfill_schedule", "POST", views_schedules.backfill),
    ("/schedule/<path:name>/delete", "delete_schedule", "POST", views_schedules.delete),
    ("/start", "start_form", "GET", start_form.show),
    ("/start", "start", "POST", start_form.start),
    ("/<path:rest>", "missing", "GET", _missing),
)


PATHS.update({endpoint: rule for rule, endpoint, _, _ in ROUTES} | {"static": "/static/<path:filename>"})


def create_dashboard(
    engine: Engine, *, authorize: Authorize | None = None, redact: Redact | None = None
) -> flask.Blueprint:
    """
    Make the blueprint of the dashboard, for one engine.  Register it with a ``url_prefix``.

    Args:
        authorize: A function of ``(action, run_id)`` that says whether the caller of the current Flask request may
            do this: True, or the caller's name for the audit; False for no.  ``ACTIONS`` lists the actions; ``run_id``
            is None for what concerns all runs.  It may call ``flask.abort``, or redirect to a log-in with
            ``flask.abort(flask.redirect(…))``.  Without it, only ``durable dev`` serves the dashboard.
        redact: A function of ``(value, where)`` that returns what a page may show of a value, which is plain JSON.
            *where* is ``arguments``, ``result``, ``error``, ``payload``, ``body``, ``answer body``,
            ``header:NAME`` or ``value:NAME``.
    """
    dashboard = Dashboard(engine, authorize, redact)
    bp = flask.Blueprint(NAME, __name__, static_folder=str(FOLDER / "static"), static_url_path="/static")

    def add_routes(state: BlueprintSetupState) -> None:
        # The path of the cookie; it is not known before.
        path = (state.url_prefix or "").rstrip("/") + "/"
        for rule, endpoint, method, view in ROUTES:
            # The ids of runs may have slashes.
            state.add_url_rule(rule, endpoint, dashboard.serve(view, path), methods=[method], merge_slashes=False)

    bp.record(add_routes)
    bp.url_value_preprocessor(_exempt_from_csrf)
    return bp


def _exempt_from_csrf(_endpoint: str | None, _values: dict[str, Any] | None) -> None:
    """Exempt the blueprint from Flask-WTF's CSRF check, which runs after this: its forms have tokens of their own."""
    exempt = getattr(flask.current_app.extensions.get("csrf"), "exempt", None)
    blueprint = flask.current_app.blueprints.get(flask.request.blueprint or "")
    if exempt is not None and blueprint is not None:
        exempt(blueprint)
