"""
Log records of runs: each appears once, and says which run it is of.

While a workflow is replayed its body runs again; what it logs then has been
logged before, and is dropped.  Records made in a run carry ``run_id``; those
made in a step also ``step`` and ``attempt``.  All others are left alone.

durable's own records never raise, whatever an application's handlers, filters and record factories do.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .. import current
from .process_ends import ends_process

if TYPE_CHECKING:
    Adapter = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter


def get(name: str) -> Logger:
    """durable's logger of this name."""
    return Logger(logging.getLogger(name), {})


class Logger(Adapter):
    """A logger that loses a record rather than raise: an outcome is recorded whatever becomes of its log line."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log it as from the caller's line."""
        try:
            self.logger.log(level, msg, *args, **{"stacklevel": 2, **kwargs})
        except BaseException as error:
            if ends_process(error):
                raise
            with suppress(Exception):
                print(
                    f"durable: a record of the logger {self.logger.name!r} was lost: a handler, a filter, a record"
                    f" factory or the repr of a value raised {type(error).__name__}.",
                    file=sys.stderr,
                )


def install() -> None:
    """Begin; doing it again changes nothing."""
    if not isinstance(logging.getLogRecordFactory(), _Factory):
        logging.setLogRecordFactory(_Factory(logging.getLogRecordFactory()))
    if logging.Logger.handle is not _handle:
        logging.Logger.handle = _handle  # type: ignore[method-assign]


class _Factory:
    """Makes records as before, and adds whose they are."""

    def __init__(self, stock: Any) -> None:
        self._stock = stock

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._stock(*args, **kwargs)
        record.__dict__.update(_whose())
        return record


def _whose() -> dict[str, Any]:
    loop = current.workflow_loop()
    if loop is not None:
        return {"run_id": loop.context.info.run_id}
    step = current.running_step.get()
    if step is None:
        return {}
    known = step.metadata
    return {"run_id": known.run_id, "step": known.name, "attempt": known.attempt}


_stock_handle = logging.Logger.handle


def _handle(self: logging.Logger, record: logging.LogRecord) -> None:
    # A filter would have to stand on every handler, also on those that are added later.
    loop = current.workflow_loop()
    if loop is None or not loop.replaying:
        _stock_handle(self, record)
