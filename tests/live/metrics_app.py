"""The live tests' Flask app, with metrics."""

from __future__ import annotations

import os

import flask
import live_app

from durable.metrics import create_metrics


def create_app() -> flask.Flask:
    """Serve webhooks and ``/metrics``; each answer names its process."""
    app = live_app.create_app()
    app.register_blueprint(create_metrics(live_app.engine))

    @app.after_request
    def name_process(response: flask.Response) -> flask.Response:
        response.headers["X-Process"] = str(os.getpid())
        return response

    return app
