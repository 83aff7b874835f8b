"""The Celery app of the live tests with more settings: those that ``CELERY_SETTINGS`` holds as JSON."""

from __future__ import annotations

import json
import os

from celery import Celery

from durable import Durable

celery = Celery("live", include=["live_flows"])
celery.conf.update(json.loads(os.environ["CELERY_SETTINGS"]))
engine = Durable(celery)
