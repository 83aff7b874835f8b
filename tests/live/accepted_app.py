"""The Celery app and the Flask app of the acceptance list."""

from __future__ import annotations

import os
from urllib.parse import quote
from urllib.request import urlopen

import flask
from celery import Celery

from durable import Durable
from durable.web import create_blueprint, webhook_view

celery = Celery("accepted", include=["accepted_flows"])
engine = Durable(celery)


def fetch_from_elsewhere(url: str) -> bytes:
    """What sns.<region>.amazonaws.com would give, from the test's own server."""
    with urlopen(os.environ["AMAZON"] + quote(url, safe="")) as answer:
        found: bytes = answer.read()
        return found


def create_app() -> flask.Flask:
    if "AMAZON" in os.environ:
        webhook_view.Fetcher = lambda: fetch_from_elsewhere
    app = flask.Flask("accepted")
    app.register_blueprint(create_blueprint(engine))
    app.add_url_rule("/health", view_func=lambda: {"status": "ok"})
    return app
