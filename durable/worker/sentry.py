"""What Sentry shows of a task: tags, and why a step is retried.  The application imports Sentry, if it has it."""

from __future__ import annotations

import sys
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from .. import codec, duration
from ..attempts import Address
from ..engine import Engine
from ..errors import DurableError
from ..sandbox import log_records
from ..store import reason, run_log

#: The most earlier attempts that Sentry is told of, the latest ones, and the most characters of each error.
_MOST_ATTEMPTS, _MOST_TEXT = 10, 1024

log = log_records.get("durable.tasks")


def tag(run_id: str, step: str | None = None, attempt: int = 1) -> None:
    """Tag what Sentry reports of this task."""
    if (sentry := _sdk()) is None:
        return
    sentry.set_tag("durable.run_id", run_id)
    if step is not None:
        sentry.set_tags({"durable.step": step, "durable.attempt": attempt})


def note_retry(engine: Engine, step: str, address: Address) -> None:
    """Leave a breadcrumb of each earlier attempt of a step, with its error.  Never raises."""
    if address.attempt == 1 or (sentry := _sdk()) is None:
        return
    try:
        with engine.store.read() as tx:
            failed = run_log.retried_attempts(tx, address.run, address.op, _MOST_ATTEMPTS)
    except (SQLAlchemyError, DurableError) as trouble:
        log.warning("Sentry gets no errors of the earlier attempts of run %s: %s", address.run, reason(trouble))
        return
    for each in failed:
        error = str(codec.error_summary(each.error))[:_MOST_TEXT]
        sentry.add_breadcrumb(
            category="durable",
            level="warning",
            timestamp=duration.to_datetime(each.at),
            message=f"Attempt {each.attempt} of step {step} failed: {error}",
        )


def _sdk() -> Any:
    """Sentry's SDK, if the application uses its integration for Celery: otherwise no scope belongs to the task."""
    sentry: Any = sys.modules.get("sentry_sdk")
    return None if sentry is None or sentry.get_client().get_integration("celery") is None else sentry
