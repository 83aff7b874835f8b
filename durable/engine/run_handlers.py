"""
``RunHandlers``: the application's functions that are called with a run once it has failed or is blocked.

A process that has such a function writes a row (``store/run_calls.py``) with the change of the run, and deletes it when
the functions have been called.  So they are called at least once, whatever crashes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from ..errors import ConfigurationError
from ..registry import Run
from ..sandbox import ends_process, log_records
from ..store import RunStatus, Store, reason, run_calls

Handler = TypeVar("Handler", bound=Callable[[Run[Any]], object])

#: How long the process that has changed a run has to call the functions, in microseconds.  Then others do.
CALL_TIME = 30_000_000

#: How often the functions of a call are tried that end their process each time.
_MOST_TRIES = 5

log = log_records.get("durable.runs")


class RunHandlers:
    """The functions of one engine, by the status that they are called for."""

    def __init__(self) -> None:
        self._functions: dict[RunStatus, list[Callable[[Run[Any]], object]]] = {}

    def add(self, status: RunStatus, function: Handler) -> Handler:
        """Call *function* for runs that get this status.  Raises ConfigurationError for what cannot be called so."""
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                f"on_run_{status} takes a function with one parameter, the run, and {function!r} is"
                f" {'an `async def`: make it a `def`' if callable(function) else 'no function'}."
            )
        self._functions.setdefault(status, []).append(function)
        return function

    def plan(self, tx: Connection, run_id: str, status: RunStatus, next_send_at: int) -> None:
        """Note the call in the transaction that gives the run its status; does nothing without a function for it."""
        if self._functions.get(status):
            run_calls.add(tx, run_id, status, next_send_at)

    def wants(self, status: RunStatus | None) -> bool:
        """Whether there is a function for this status."""
        return bool(status is not None and self._functions.get(status))

    def call(self, store: Store, run: Run[Any], status: RunStatus) -> None:
        """Call the functions for a status that the run has just got.  Logs what they raise."""
        functions = self._functions.get(status)
        if not functions:
            return
        for function in functions:
            try:
                function(run)
            except BaseException as error:  # the functions are the author's
                if ends_process(error):
                    raise
                log.error("on_run_%s: %r raised an error for run %s.", status, function, run.id, exc_info=error)
        try:
            store.write(partial(run_calls.remove, run_id=run.id, status=status))
        except SQLAlchemyError as error:
            log.warning("on_run_%s is called again for run %s: its row stays (%s).", status, run.id, reason(error))

    def call_again(self, store: Store, run: Run[Any]) -> None:
        """Call the functions whose calls a crash has left, for a turn that the sweep has sent."""
        if not self._functions:
            return
        with store.read() as tx:
            if not run_calls.is_due(tx, run.id):
                return
        for status, tries in store.write(partial(run_calls.begin, run_id=run.id)).items():
            if tries > _MOST_TRIES:
                log.error("on_run_%s was not called for run %s: %d tries have not ended.", status, run.id, tries - 1)
                store.write(partial(run_calls.remove, run_id=run.id, status=status))
            else:
                self.call(store, run, status)
