"""The example application's web side: ``gunicorn 'webapp:create_app()'``."""

import flask

from durable import HookNotFound, RunNotFound
from durable.metrics import create_metrics
from durable.web import create_blueprint
from worker.app import engine

from . import documents, orders, runs, uploads


def create_app() -> flask.Flask:
    """The Flask app: the example's routes, and the blueprints that receive webhooks and serve metrics."""
    app = flask.Flask(__name__)
    app.register_blueprint(create_blueprint(engine))
    # Without log-in: keep it inside your network.
    app.register_blueprint(create_metrics(engine))
    for part in (orders, documents, uploads, runs):
        app.register_blueprint(part.bp)
    app.register_error_handler(HookNotFound, _not_found)
    app.register_error_handler(RunNotFound, _not_found)
    app.add_url_rule("/health", view_func=health)
    return app


def health() -> dict[str, str]:
    """For load balancers: the process answers."""
    return {"status": "ok"}


def _not_found(error: Exception) -> tuple[dict[str, str], int]:
    return {"error": str(error)}, 404
