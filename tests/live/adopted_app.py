"""A team's Celery app as it was before durable: a task class of Flask's, routes of its own, tasks in a module."""

from __future__ import annotations

import flask
from celery import Celery, Task

from durable import Durable

web = flask.Flask("shop")


class FlaskTask(Task):  # type: ignore[misc]
    def __call__(self, *args: object, **kwargs: object) -> object:
        with web.app_context():
            return self.run(*args, **kwargs)


celery = Celery("shop", task_cls=FlaskTask, include=["adopted_flows"])
celery.conf.task_routes = {"adopted_flows.book": {"queue": "ledger"}}
engine = Durable(celery)
