"""The Celery app and the Flask app of the live tests of replies."""

from __future__ import annotations

import os

import flask
from celery import Celery

from durable import Durable
from durable.web import create_blueprint

celery = Celery("replying", include=["replying_flows"])
engine = Durable(celery)


def create_app() -> flask.Flask:
    from replying_flows import Visit, visits

    app = flask.Flask("replying")
    app.register_blueprint(create_blueprint(engine, control=lambda _request: True))

    def visit(token: str) -> dict[str, object]:
        greeting = visits.ask(token, Visit(flask.request.json["name"]), timeout="30s")
        return {"text": greeting.text, "number": greeting.number, "pid": os.getpid()}

    app.add_url_rule("/visit/<token>", view_func=visit, methods=["POST"])
    app.add_url_rule("/health", view_func=lambda: {"status": "ok"})
    return app
