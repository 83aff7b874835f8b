"""The agent's page: it shows the answer's tokens as they come, and asks for approvals.  See agent.py."""

from __future__ import annotations

from pathlib import Path

import flask
from agent import answer, approvals, engine, tokens

from durable.web import create_blueprint


def create_app() -> flask.Flask:
    app = flask.Flask("agent")
    app.register_blueprint(create_blueprint(engine))

    @app.get("/")
    def page() -> str:
        return Path(__file__).with_name("page.html").read_text()

    @app.post("/questions")
    def ask() -> dict[str, str]:
        run = answer.start(flask.request.get_data(as_text=True))
        return {"run": run.id, "token": run.read_token(streams=[tokens, approvals], expires="1d")}

    return app
