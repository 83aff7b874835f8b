"""The example of streams, with what the tests' processes need: a route that says that the web process is up."""

from __future__ import annotations

import sys
from pathlib import Path

import flask

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "streams"))

import thumbnails
from thumbnails import celery, engine

__all__ = ["celery", "create_app", "engine"]


def create_app() -> flask.Flask:
    app = thumbnails.create_app()
    app.add_url_rule("/health", view_func=lambda: {"status": "ok"})
    return app
