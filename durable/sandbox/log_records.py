"""
Log records of workflows and steps: each appears once, and carries its run, its workflow, its step and its attempt.

A replay runs a workflow body again from its start, so the body makes records that it made in an earlier turn.  These
are dropped.  Records made in a run carry ``run_id`` and ``workflow``; records made in a step also carry ``step`` and
``attempt``.  All other records stay as they are, and so does a field of one of these names in the call's ``extra=``.

How a record is dropped: ``install`` wraps the process's log record factory (``logging.setLogRecordFactory``).  While a
body repeats what it did before, the factory makes records of a level below every handler's level.  A ``logging.Filter``
would have to be on every handler, also on those that are added later.  Two kinds of code still see dropped records, at
level -1: filters of the logger itself, and tools that patch ``Logger.callHandlers`` and do not look at the level.

The library's own log calls never raise, whatever the application's handlers, filters and record factories do.
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

#: The level of a record that no handler takes: the lowest level of a handler is NOTSET, 0.
_DROPPED = -1


def get(name: str) -> Logger:
    """The library's logger of this name."""
    return Logger(logging.getLogger(name), {})


class Logger(Adapter):
    """A logger that never raises: the outcome of an attempt is recorded even if its log line fails."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log with the line of the caller; print a note to stderr if that raises."""
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
    """
    Wrap the process's log record factory, unless it is wrapped already.

    ``Durable(...)`` and each replay call this, so that it also works after an application sets a factory of its own.
    """
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _RecordFactory):
        logging.setLogRecordFactory(_RecordFactory(factory))


class _RecordFactory:
    """The application's record factory, which also adds the run and the step, and drops repeated records."""

    def __init__(self, factory: Any) -> None:
        self._factory = factory

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        loop = current.workflow_loop()
        if loop is not None and loop.replaying:
            dropped = logging.LogRecord(*args, **kwargs)
            dropped.levelno = _DROPPED
            return dropped
        record: logging.LogRecord = self._factory(*args, **kwargs)
        if loop is not None:
            info = loop.context.info
            _add(record, run_id=info.run_id, workflow=info.name)
        elif (step := current.running_step.get()) is not None:
            of_step, of_run = step.metadata, step.workflow_metadata
            _add(record, run_id=of_run.run_id, workflow=of_run.name, step=of_step.name, attempt=of_step.attempt)
        return record


def _add(record: logging.LogRecord, **fields: object) -> None:
    """Add fields, but none that the call's ``extra=`` has too: ``logging`` raises KeyError for a name that is taken."""
    making = sys._getframe(2)
    extra = making.f_locals.get("extra") if making.f_code.co_name == "makeRecord" else None
    record.__dict__.update({name: value for name, value in fields.items() if name not in (extra or ())})
