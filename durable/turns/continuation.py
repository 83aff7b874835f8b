"""
In-place continuation: a worker that has a run in hand goes on with it, instead of sending a message to itself.

After an attempt the worker takes the turn itself, and then runs the step that this turn asks for.  The row of that
step is created as claimed by this process.  The message that brought the run here stays unacknowledged meanwhile, so
a crash is noticed like any other.  The continuation ends when its time is up (the setting ``continuation``), so that
other runs get their turn, and when the next step belongs on another queue: then that step's message is sent.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from .. import codec, registry
from ..engine import Engine
from ..http import Request
from ..registry import SEMANTICS, AdoptedStep
from ..replay import commands
from ..store import Claim, runs
from .commit import started_at
from .decision import Decision

_LIMITS = ("task_time_limit", "task_soft_time_limit", "task_default_rate_limit")


class Continuation:
    """
    What a worker may still do with one message.

    Attributes:
        next: The attempt that this process has claimed and runs next.
        has_turned: Whether the turn after the attempt was taken together with its outcome.
    """

    def __init__(self, engine: Engine, queue: str, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            queue: The queue that the message came from.
            clock: Returns the time in seconds.
        """
        self.queue = queue
        self.next: Claim | None = None
        self.has_turned = False
        self._engine = engine
        self._clock = clock
        self._until = clock() + engine.settings.continuation / 1_000_000
        #: By step name: whether it may run here.
        self._runs_here: dict[str, bool] = {}

    def begin(self) -> Claim | None:
        """Return the attempt to run now, if one was claimed here.  From now on the caller is responsible for it."""
        held, self.next, self.has_turned = self.next, None, False
        return held

    def leads_to_turn(self, queue: str | None) -> bool:
        """Return whether the turns of a run with this *queue* come to the queue of this message."""
        return self._engine.dispatch.find_queue_of_turn(queue) == self.queue

    def choose(self, decision: Decision) -> Claim | None:
        """Return a claim for the step that a turn asks for, if it asks for one step, which may run here next."""
        if decision.fault is not None or decision.outcome is not None or decision.run.priority is not None:
            return None
        if self._clock() >= self._until:
            return None
        given_up = {each.op_id for each in decision.commands if isinstance(each, commands.Withdraw)}
        wanted = [each for each in decision.commands if isinstance(each, commands.CreateStep)]
        if len(wanted) != 1 or wanted[0].op_id in given_up:
            return None
        command = wanted[0]
        if command.name not in self._runs_here:
            self._runs_here[command.name] = self._may_run(command.name)
        if not self._runs_here[command.name]:
            return None

        run, now = decision.run, self._engine.now()
        # Requests among the arguments that the turn has loaded with their bodies.
        found = {each: decision.requests.get(each) for each in codec.request_ids(command.args)}
        loaded: dict[str, Request] = {each: it for each, it in found.items() if it is not None and it.is_loaded}
        return Claim(
            claim=secrets.token_hex(16),
            run_id=run.id,
            op_id=command.op_id,
            name=command.name,
            attempt=1,
            started_at=now,
            claimed_at=now,
            args=command.args,
            run_name=run.name,
            # The turn that asks for the first step is the one that records the start.
            run_started_at=started_at(decision) or now,
            run_turn=run.turn + 1,
            semantics=SEMANTICS[0],
            queue=self.queue,
            requests=loaded,
            trace_context=runs.trace_context(self._engine.store.vault, run.id, run.trace_context),
        )

    def _may_run(self, name: str) -> bool:
        """Return whether a step may run here, without a message of its own."""
        step, task = registry.steps.get(name), self._engine.celery.tasks.get(name)
        if step is None or task is None or isinstance(step, AdoptedStep):
            return False
        if step.semantics != SEMANTICS[0] or step.timeout is not None:
            return False
        # Celery applies its limits and priorities to messages.
        limits = (task.time_limit, task.soft_time_limit, task.rate_limit, task.priority, step.options.get("priority"))
        if any(each is not None for each in limits) or any(task.app.conf.get(each) for each in _LIMITS):
            return False
        return self._engine.dispatch.find_queue_of_step(name) == self.queue
