"""A worker's application that knows none of the live tests' workflows and steps: what a deploy in progress has."""

from __future__ import annotations

from celery import Celery

from durable import Durable

celery = Celery("live")
engine = Durable(celery)
