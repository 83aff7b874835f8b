"""The Celery app of the tests that kill a step which emits."""

from __future__ import annotations

from celery import Celery

from durable import Durable

celery = Celery("emitting", include=["emitting_flows"])
engine = Durable(celery)
