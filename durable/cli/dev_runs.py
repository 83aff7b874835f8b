"""What happens to runs, one line for each event: ``durable dev`` reads it from the log, whatever process did it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from .. import codec, events
from ..engine import Engine
from ..errors import DurableError
from ..events import Event
from ..store import Run, RunStatus, run_log, runs
from .terminal import printable

#: The most runs and the most events of a run that are read at once.
MOST_RUNS = 200
MOST_EVENTS = 200
_INTERVAL_SECS = 0.3
#: A turn takes the time of its events before it commits them.  Runs that changed so long ago are read again.
_OVERLAP = 10_000_000
#: The characters of a run's id that are shown.
_ID = 12


class RunLines:
    """Reads the events of runs, and prints a line for each.  Events from before it was made are left out."""

    def __init__(self, engine: Engine, echo: Callable[[str], object]) -> None:
        """
        Args:
            echo: Prints a line.
        """
        self._engine = engine
        self._echo = echo
        self._began = self._since = engine.now()
        #: By run, the last event that was read.
        self._seen: dict[str, int] = {}
        #: By run and operation, the name of a step.
        self._names: dict[tuple[str, str], str] = {}
        #: Runs whose block was printed.
        self._blocked: set[str] = set()

    def follow(self, stopping: threading.Event) -> None:
        """Print what happens until *stopping* is set."""
        while not stopping.wait(_INTERVAL_SECS):
            try:
                self.poll()
            except (SQLAlchemyError, DurableError):
                continue  # the worker reports what is wrong with the database

    def poll(self) -> None:
        """Print what has happened since the last call."""
        with self._engine.store.read() as tx:
            changed = runs.changed(tx, max(0, self._since - _OVERLAP), MOST_RUNS)
        now = self._engine.now()
        for run in changed:
            self._print_new(run)
        self._since = now

    def _print_new(self, run: Run) -> None:
        after = self._seen.get(run.id, 0)
        while run.seq > after:
            with self._engine.store.read() as tx:
                page = run_log.page(
                    tx, run.id, after=after, before=2**62, limit=MOST_EVENTS, newest_first=False, values=True
                )
            if not page:
                break
            after = page[-1].seq
            for event in page:
                if event.at >= self._began and (text := self._text(run, event)):
                    self._print(run, text)
        self._seen[run.id] = max(after, run.seq)
        is_blocked = run.status == RunStatus.BLOCKED
        if is_blocked and run.id not in self._blocked:
            self._print(run, f"is blocked; durable runs show {run.id} says why")
        (self._blocked.add if is_blocked else self._blocked.discard)(run.id)

    def _print(self, run: Run, text: str) -> None:
        self._echo(printable(f"{_short(run.name)} {run.id[:_ID]}… {text}"))

    def _text(self, run: Run, event: Event) -> str | None:
        """The line of an event without its run; None for events that are not shown."""
        match event:
            case events.RunStarted():
                return "started"
            case events.StepCreated(name=name) | events.ChildCreated(name=name):
                self._names[run.id, event.op_id] = _short(name)
                return None
            case events.StepRetrying(attempt=attempt, error=error):
                return f"{self._name(run, event)} attempt {attempt} failed: {_error(error)}"
            case events.StepFailedEvent(attempt=attempt, error=error):
                return f"{self._name(run, event)} failed in attempt {attempt}: {_error(error)}"
            case events.StepCompleted(started_at=began):
                return f"{self._name(run, event)} completed{_took(began, event.at)}"
            case events.WaitCreated(due_at=due_at):
                return f"sleeps for {max(0, due_at - event.at) / 1_000_000:.1f} s"
            case events.HookReceived(payload=payload):
                return "received a request" if payload is None else "received a payload"
            case events.RunCancelRequested():
                return "is to be cancelled"
            case events.RunCompleted():
                return f"completed{_took(run.started_at, event.at)}"
            case events.RunFailedEvent(error=error):
                return f"failed{_took(run.started_at, event.at, 'after')}: {_error(error)}"
            case events.RunCancelledEvent() | events.RunContinued():
                next_id = getattr(event, "run_id", None)
                return "was cancelled" if next_id is None else f"continues as run {next_id[:_ID]}…"
        return None

    def _name(self, run: Run, event: Event) -> str:
        key = (run.id, event.op_id)
        if key not in self._names:
            with self._engine.store.read() as tx:
                for created in run_log.creations(tx, run.id, [event.op_id]):
                    self._names[key] = _short(getattr(created, "name", event.op_id))
        return self._names.get(key, event.op_id)


def _short(name: str) -> str:
    """The last part of a workflow's or a step's name."""
    return name.rpartition(".")[2]


def _error(text: str) -> str:
    """The error in one line."""
    return str(codec.error_summary(text)).partition("\n")[0][:200]


def _took(began: int | None, ended: int, word: str = "in") -> str:
    return "" if began is None else f" {word} {max(0, ended - began) / 1_000_000:.1f} s"
