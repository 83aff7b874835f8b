"""What the benchmark's worker and web process serve; their settings come from the environment."""

from __future__ import annotations

import os

import flask
from celery import Celery

from durable import Durable
from durable.web import create_blueprint

from . import plain, workflows
from .room import Room

__all__ = ["celery", "create_app", "engine", "plain", "workflows"]

celery = Celery("bench", broker=os.environ.get("DURABLE_BROKER_URL"), backend=os.environ.get("BENCH_SIDE_URL"))
engine = Durable(celery)


def create_app() -> flask.Flask:
    """The blueprint, an address that says that the process is up, and views that wait without durable."""
    app = flask.Flask("bench")
    app.register_blueprint(create_blueprint(engine))
    app.add_url_rule("/", view_func=lambda: "up")
    Room().enter(app)
    return app
