"""The Celery app and the engine: ``celery -A worker.app worker`` and ``durable --app worker.app …``."""

from celery import Celery

from durable import Durable

celery = Celery(
    "worker",
    include=["worker.workflows.payments", "worker.workflows.verification", "worker.workflows.imports"],
)
engine = Durable(celery)
