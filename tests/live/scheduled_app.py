"""An application whose schedules are named by the environment, so that a test can deploy others."""

from __future__ import annotations

import os
from datetime import datetime

from celery import Celery

from durable import Durable, get_workflow_metadata, schedule, workflow

celery = Celery("scheduled")
engine = Durable(celery)


@workflow(name="scheduled_app.tick")
async def tick() -> datetime | None:
    return get_workflow_metadata().scheduled_for


for name in filter(None, os.environ.get("DECLARED", "").split(",")):
    schedule(name, tick, every="1s", overlap="allow", catch_up="all")
