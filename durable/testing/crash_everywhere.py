"""
``crash_everywhere``: runs one workflow again and again, each time with one crash or one message fault.

A boundary is one hit of one failpoint (docs/how-to/testing.md lists them).  A crash ends the process there: everything
in its memory is gone, it runs no cleanup, and the message that it was processing is gone.  Another process starts,
finds the unfinished work by heartbeats and sweeps, and continues.  A message fault loses, repeats or delays one
message.  After each fault the run must end as it does without one, and its log must keep what the documentation
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
from .faults import Fault, Trace, faults, why_missed
from .invariants import check, unfinished_work
from .memory_broker import Message, later

#: How late a late message is, in microseconds: later than the sweep sends the message again.
_LATE_MICROS = 7_000_000
#: A run that needs more processes than this will never end.
_MAX_PROCESSES = 20
#: After so many jumps in time, unfinished work of an ended run stays unfinished.
_MAX_JUMPS = 100

#: Acts as the outside world.  It is called again after a crash, so it must check what it has done already.
During = Callable[[Environment, Run[Any]], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """How many boundaries and messages there are, and how many faults were tried."""

    boundaries: int
    messages: int
    played: int


@dataclass(frozen=True, slots=True)
class WorkflowCall:
    """The workflow to run, with its arguments."""

    workflow: Workflow[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended: what is compared between a run with a fault and one without."""

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
        args, kwargs: The arguments of the workflow.
        during: Acts as the outside world: resumes hooks, posts to webhooks.  It is called again after a crash.
        outcome: Returns what to compare of the ended run, by default its result or error.
        sample: Try only so many faults, chosen by *seed*.
        settings: Settings of the environments.

    Raises:
        AssertionError: A fault changed how the run ends, its log is not as it must be, or the fault did not
            happen because the workflow behaves differently each time.  The message names the fault.
    """
    runner = _Runner(WorkflowCall(workflow, args, kwargs or {}), during, outcome or _value, settings)
    trace, expected = runner.run(Fault())
    possible = faults(trace)
    chosen = possible if sample is None or sample >= len(possible) else random.Random(seed).sample(possible, sample)
    for fault in chosen:
        trace_now, end = runner.run(fault)
        why = why_missed(fault, trace_now, trace)
        assert why is None, (
            f"{workflow.name}: {fault} did not happen: {why}.  The workflow, a step or `during` behaves differently"
            " from one run to the next."
        )
        assert end == expected, f"{workflow.name} with {fault} ended as {end}, and without it as {expected}"
    return Report(boundaries=len(trace.hits), messages=len(trace.messages), played=len(chosen))


def _value(run: Run[Any]) -> Any:
    """A run's result, or the type and message of its error."""
    last = run.generations()[-1]
    ended = next(event for event in reversed(last.events()) if event.op_id == ROOT and event.phase == "ended")
    match ended:
        case events.RunCompleted(result=text):
            return text
        case events.RunFailedEvent(error=text):
            summary = codec.error_summary(text)
            return summary.error_type, summary.message
    return None


class _Runner:
    """Runs a workflow in a new environment, with one fault each time."""

    def __init__(
        self,
        call: WorkflowCall,
        during: During | None,
        outcome: Callable[[Run[Any]], Any],
        settings: dict[str, object],
    ) -> None:
        self._call = call
        self._during = during
        self._outcome = outcome
        self._settings = settings

    def run(self, fault: Fault) -> tuple[Trace, RunEnd]:
        """Run the workflow with this fault; the trace, and how the run ended."""
        with _fixed_random_seed(), Environment(**self._settings) as env:  # type: ignore[arg-type]
            with _inject(env, fault) as trace:
                run = self._run_through_crashes(env)
            # Let time pass until no work of the ended run is left.
            for _ in range(_MAX_JUMPS):
                if not any(unfinished_work(env, run)) or not env.jump():
                    break
            what = f"{self._call.workflow.name} with {fault}"
            if run.status not in ENDED:
                found = describe.describe(env.engine, run.id)
                raise AssertionError(
                    f"{what} is {run.status} in the end ({found['error']}), and waits for {found['waiting_for']}."
                    "  `during` must send what the run needs from outside."
                )
            for problem in check(env, run):
                raise AssertionError(f"{what}: {problem}")
            return trace, RunEnd(run.status, self._outcome(run))

    def _run_through_crashes(self, env: Environment) -> Run[Any]:
        """Start the run and let it end, in a new process after each crash."""
        call = self._call
        for _ in range(_MAX_PROCESSES):
            try:
                # The same run id after a crash: the run is created once.
                run = env.engine.start_with(call.workflow, call.args, call.kwargs, {"run_id": "crash-everywhere"})
                env.run_until_idle()
                if self._during is not None:
                    self._during(env, run)
                env.finish(run)
                return run
            except Crashed:
                env.restart()
        raise AssertionError(f"{call.workflow.name} has not ended after {_MAX_PROCESSES} crashes")


@contextmanager
def _inject(env: Environment, fault: Fault) -> Iterator[Trace]:
    """Make the fault happen inside the block, and record the trace."""
    trace = Trace()

    def on_hit(point: str) -> None:
        env.store.check_alive()
        trace.hits.append(point)
        if len(trace.hits) == fault.hit and point == fault.point:
            env.store.crashed = True
            raise Crashed

    def deliver(message: Message) -> list[Message]:
        trace.messages.append(message.what)
        if len(trace.messages) != fault.message or message.what != fault.what:
            return [message]
        if fault.kind == "lost":
            return []
        late = later(message, _LATE_MICROS)
        return [late] if fault.kind == "late" else [message, later(message, 1), late]

    env.broker.deliver = deliver
    with failpoints.watched(on_hit):
        yield trace
    env.broker.deliver = lambda message: [message]


@contextmanager
def _fixed_random_seed() -> Iterator[None]:
    """Give the process the same random numbers each time, since the delays of retries are random."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)
