"""
``crash_everywhere``: one workflow, run once per boundary with a crash there, and once per message gone astray.

A boundary is one hit of one failpoint (docs/how-to/testing.md has the list).  A crash ends the process there: nothing
of what it had in memory is left, it hands nothing back, and the message it was at is gone.  Another process takes its
place, finds by beats and sweeps what was left, and goes on.  A message goes astray by being lost, repeated, or late.
After each of these the run has to come to what it comes to without, and its log has to keep what the documentation
promises.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .. import codec, events, failpoints
from ..client import describe
from ..events import ROOT
from ..registry import Run, Workflow
from ..store import ENDED
from .clock import Crashed
from .environment import Environment
from .faults import Fault, Seen, faults, missed
from .invariants import check, left_over
from .memory_broker import Message, later

#: How late a message comes that is late: longer than the sweep is patient.
_LATE = 7_000_000
#: A run that has died so often in one play will never end.
_MOST_LIVES = 20
#: So many jumps in time, and what is left of an ended run stays.
_MOST_ROUNDS = 100

#: What plays the outside world.  After a crash it is called again, so it looks before it does anything twice.
During = Callable[[Environment, Run[Any]], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was tried: boundaries and messages that there are, and how many faults were played."""

    boundaries: int
    messages: int
    played: int


@dataclass(frozen=True, slots=True)
class Call:
    """What is run."""

    workflow: Workflow[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    status: str
    value: Any


def crash_everywhere(
    workflow: Workflow[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    during: During | None = None,
    outcome: Callable[[Run[Any]], Any] | None = None,
    sample: int | None = None,
    seed: int = 0,
    **settings: object,
) -> Report:
    """
    Run *workflow* with a crash at every boundary, and with every message lost, repeated and late.

    Args:
        args, kwargs: The workflow's.
        during: Plays the outside world: resumes hooks, posts to webhooks.  It is called again after a crash.
        outcome: What is compared, of the ended run; its result or error if not given.
        sample: So many faults only, drawn by *seed*.
        settings: Of the environments.

    Raises:
        AssertionError: A fault changed what the run comes to, its log is not as it must be, or the fault did not come
            because plays differ.  Names the fault.
    """
    player = _Player(Call(workflow, args, kwargs or {}), during, outcome or _value, settings)
    seen, expected = player.play(Fault())
    known = faults(seen)
    chosen = known if sample is None or sample >= len(known) else random.Random(seed).sample(known, sample)
    for fault in chosen:
        seen_now, found = player.play(fault)
        why = missed(fault, seen_now, seen)
        assert why is None, (
            f"{workflow.name}: {fault} did not come: {why}.  The workflow, a step or `during` does something else"
            " from one play to the next."
        )
        assert found == expected, f"{workflow.name} with {fault} came to {found}, and without to {expected}"
    return Report(boundaries=len(seen.hits), messages=len(seen.messages), played=len(chosen))


def _value(run: Run[Any]) -> Any:
    """A run's result, or the type and message of its error."""
    ended = next(event for event in reversed(run.events()) if event.op_id == ROOT and event.phase == "ended")
    match ended:
        case events.RunCompleted(result=text):
            return text
        case events.RunFailedEvent(error=text):
            summary = codec.error_summary(text)
            return summary.error_type, summary.message
    return None


class _Player:
    """Plays a workflow with one fault each time."""

    def __init__(
        self,
        call: Call,
        during: During | None,
        outcome: Callable[[Run[Any]], Any],
        settings: dict[str, object],
    ) -> None:
        self._call = call
        self._during = during
        self._outcome = outcome
        self._settings = settings

    def play(self, fault: Fault) -> tuple[Seen, Outcome]:
        """What is come by, and what the run comes to, with this fault."""
        with _same_draws(), Environment(**self._settings) as env:  # type: ignore[arg-type]
            with _faulty(env, fault) as seen:
                run = self._live(env)
            _settle(env, run)
            what = f"{self._call.workflow.name} with {fault}"
            if run.status not in ENDED:
                told = describe.describe(env.engine, run.id)
                raise AssertionError(
                    f"{what} is {run.status} in the end ({told['error']}), and waits for {told['waiting_for']}."
                    "  What has to come from outside, `during` has to send."
                )
            for problem in check(env, run):
                raise AssertionError(f"{what}: {problem}")
            return seen, Outcome(run.status, self._outcome(run))

    def _live(self, env: Environment) -> Run[Any]:
        for _ in range(_MOST_LIVES):
            try:
                run = self._start(env)
                if self._during is not None:
                    self._during(env, run)
                env.finish(run)
                return run
            except Crashed:
                env.restart()
        raise AssertionError(f"{self._call.workflow.name} has not ended in {_MOST_LIVES} lives")

    def _start(self, env: Environment) -> Run[Any]:
        call = self._call
        run = env.engine.start_with(call.workflow, call.args, call.kwargs, {"run_id": "crash-everywhere"})
        env.run_until_idle()
        return run


@contextmanager
def _faulty(env: Environment, fault: Fault) -> Iterator[Seen]:
    """Within it the fault comes; what is come by is seen."""
    seen = Seen()

    def note(point: str) -> None:
        env.store.check_alive()
        seen.hits.append(point)
        if len(seen.hits) == fault.hit and point == fault.point:
            env.store.crashed = True
            raise Crashed

    def fate(message: Message) -> list[Message]:
        seen.messages.append(message.what)
        is_meant = len(seen.messages) == fault.message and message.what == fault.what
        return _astray(message, fault.fate) if is_meant else [message]

    env.outbox.fate = fate
    with failpoints.watched(note):
        yield seen
    env.outbox.fate = lambda message: [message]


@contextmanager
def _same_draws() -> Iterator[None]:
    """Within it the process draws the same random numbers each time: the delays of retries have a share of chance."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


def _astray(message: Message, fate: str) -> list[Message]:
    if fate == "late":
        return [later(message, _LATE)]
    return [] if fate == "lost" else [message, later(message, 1), later(message, _LATE)]


def _settle(env: Environment, run: Run[Any]) -> None:
    """Let time pass until nothing of an ended run is left to do: what came too late to it is put away."""
    for _ in range(_MOST_ROUNDS):
        if not any(left_over(env, run)) or not env.jump():
            return
