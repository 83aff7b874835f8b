"""The Celery app and the Flask app of the live tests: the example's workflows and the tests' own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import flask
from celery import Celery, signals

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
celery.conf.worker_soft_shutdown_timeout = float(os.environ.get("SOFT_SHUTDOWN", "0"))
if "VISIBILITY_TIMEOUT" in os.environ:
    seconds = {"visibility_timeout": float(os.environ["VISIBILITY_TIMEOUT"]), "unacked_restore_interval": 1}
    celery.conf.broker_transport_options = {**seconds, "unacked_restore_throttle": 1}
engine = Durable(celery)


@signals.task_prerun.connect(weak=False)
@signals.task_postrun.connect(weak=False)
@signals.task_success.connect(weak=False)
def note_signal(sender: Any, task_id: str | None = None, signal: Any = None, **_: object) -> None:
    """Write down which signal fired for which task, where a test wants to know."""
    if "NOTE_SIGNALS" in os.environ:
        with Path(os.environ["NOTE_SIGNALS"]).open("a") as file:
            file.write(f"{signal.name} {sender.name} {task_id or sender.request.id} {sender.request.is_eager}\n")


def create_app() -> flask.Flask:
    app = flask.Flask("live")
    app.register_blueprint(create_blueprint(engine))
    app.add_url_rule("/health", view_func=lambda: {"status": "ok"})
    return app
