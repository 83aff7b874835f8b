"""The web apps of ``durable dev``, as gunicorn names them: the application's own with the dashboard, or a bare one."""

from __future__ import annotations

import inspect
from typing import Any

import flask
from gunicorn.util import import_app
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from ..dashboard import create_dashboard
from ..web import create_blueprint
from . import application as applications

#: The path of the dashboard.
DASHBOARD = "/durable"


def bare_app(spec: str) -> flask.Flask:
    """A web app with only the blueprint, for an application that has no web app."""
    engine = applications.load(spec).engine
    app = flask.Flask("durable")
    app.register_blueprint(create_blueprint(engine))
    app.add_url_rule("/", "index", lambda: flask.redirect(f"{DASHBOARD}/"))
    return app


def with_dashboard(target: str, spec: str) -> Any:
    """
    The web app *target*, as gunicorn names it, with the dashboard at ``DASHBOARD``.

    An application that has routes of its own there is served as it is.
    """
    served = _import(target)
    if isinstance(served, flask.Flask) and any(
        f"{rule.rule}/".startswith(f"{DASHBOARD}/") for rule in served.url_map.iter_rules()
    ):
        return served
    app = flask.Flask("durable.dashboard")
    app.register_blueprint(create_dashboard(applications.load(spec).engine))
    return DispatcherMiddleware(served, {DASHBOARD: app})


def _import(target: str) -> Any:
    """Import a web app.  gunicorn calls the function that makes one only if *target* has parentheses."""
    found = import_app(target)
    # A function that is a WSGI app takes two arguments.
    return found() if inspect.isfunction(found) and not inspect.signature(found).parameters else found
