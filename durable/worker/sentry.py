"""Tags for Sentry's events of a task: the run, the step, the attempt.  The application imports Sentry, if it has it."""

from __future__ import annotations

import sys
from typing import Any


def tag(run_id: str, step: str | None = None, attempt: int = 1) -> None:
    """Tag what Sentry reports of this task, if the application uses Sentry's integration for Celery."""
    sentry: Any = sys.modules.get("sentry_sdk")
    # Without the integration no scope belongs to the task, and the tags would stay on.
    if sentry is None or sentry.get_client().get_integration("celery") is None:
        return
    sentry.set_tag("durable.run_id", run_id)
    if step is not None:
        sentry.set_tags({"durable.step": step, "durable.attempt": attempt})
    if attempt > 1:
        message = f"Attempt {attempt} of step {step}: the one before it failed, or its process died."
        sentry.add_breadcrumb(category="durable", message=message, level="warning")
