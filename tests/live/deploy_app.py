"""The application of the new release: ``stranger_app`` is the old one."""

from __future__ import annotations

from celery import Celery

from durable import Durable

celery = Celery("live", include=["deploy_flows"])
engine = Durable(celery)
