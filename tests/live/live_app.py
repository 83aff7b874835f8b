"""The Celery app and the Flask app of the live tests: the example's workflows and the tests' own."""

from __future__ import annotations

import flask
from celery import Celery

from durable import Durable
from durable.web import create_blueprint

celery = Celery(
    "live",
    include=[
        "live_flows",
        "worker.workflows.payments",
        "worker.workflows.verification",
        "worker.workflows.imports",
    ],
)
engine = Durable(celery)


def create_app() -> flask.Flask:
    app = flask.Flask("live")
    app.register_blueprint(create_blueprint(engine))
    app.add_url_rule("/health", view_func=lambda: {"status": "ok"})
    return app
