"""The Celery app and the Flask app of the tests with a browser."""

from __future__ import annotations

import flask
from celery import Celery

from durable import Durable
from durable.dashboard import create_dashboard
from durable.web import create_blueprint

celery = Celery("browser", include=["browser_flows"])
engine = Durable(celery)


def create_app() -> flask.Flask:
    app = flask.Flask("browser")
    app.register_blueprint(create_blueprint(engine))
    app.register_blueprint(create_dashboard(engine, authorize=lambda action, run_id: "ada"), url_prefix="/durable")
    app.add_url_rule("/health", view_func=lambda: {"status": "ok"})
    return app
