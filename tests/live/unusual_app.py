"""The Celery app of the workflows that raise what is no ``Exception``."""

from __future__ import annotations

from celery import Celery

from durable import Durable

celery = Celery("unusual", include=["unusual_flows"])
engine = Durable(celery)
