"""
Continuation: a worker that has a run in hand goes on with it, instead of sending a message to itself.

It takes the next link of the chain itself: the turn, and then the step that this turn asks for, whose row is
born claimed.  The carrying message stays unacknowledged until then, and the rows say who runs what: a crash is
found as any other.  A journey ends when its time is up, so that other runs get their turn, and wherever the next
step is not this worker's: then its message is sent.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

from .. import codec, registry
from ..engine import Engine
from ..http import Request
from ..registry import SEMANTICS, AdoptedStep, Step
from ..replay import commands
from ..store import Claim
from .commit import started_at
from .decision import Decision

_LIMITS = ("task_time_limit", "task_soft_time_limit", "task_default_rate_limit")


class Continuation:
    """
    How far one message takes its worker.

    Attributes:
        next: The attempt that was claimed here, to be run next.
        has_turned: Whether the turn that the attempt asks for was taken together with its outcome.
    """

    def __init__(self, engine: Engine, queue: str, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            queue: Where the carrying message came from.
            clock: Says the time, in seconds.
        """
        self.queue = queue
        self.next: Claim | None = None
        self.has_turned = False
        self._engine = engine
        self._clock = clock
        self._until = clock() + engine.settings.continuation / 1_000_000
        #: By name, whether a step may be run here.
        self._known: dict[str, bool] = {}

    def begin(self) -> Claim | None:
        """The attempt to run now, if it was claimed here: from now on it is the caller's."""
        held, self.next, self.has_turned = self.next, None, False
        return held

    def leads_to_turn(self, queue: str | None) -> bool:
        """Whether a turn of a run with this *queue* would have come to this very queue."""
        return self._engine.dispatch.known_queue_of_turn(queue) == self.queue

    def choose(self, decision: Decision) -> Claim | None:
        """The claim for the step that a turn asks for, if that may run here right after it."""
        if decision.outcome is not None or decision.run.priority is not None or self._clock() >= self._until:
            return None
        given_up = {each.op_id for each in decision.commands if isinstance(each, commands.Withdraw)}
        wanted = [each for each in decision.commands if isinstance(each, commands.CreateStep)]
        if len(wanted) != 1 or wanted[0].op_id in given_up or not self._leads_to_step(wanted[0].name):
            return None
        return self._claim(decision, wanted[0])

    def _leads_to_step(self, name: str) -> bool:
        if name not in self._known:
            self._known[name] = self._takes(name)
        return self._known[name]

    def _takes(self, name: str) -> bool:
        known, task = registry.steps.get(name), self._engine.celery.tasks.get(name)
        if known is None or task is None or isinstance(known, AdoptedStep):
            return False
        if known.semantics != SEMANTICS[0] or known.timeout is not None or _is_limited(known, task):
            return False
        return self._engine.dispatch.known_queue_of_step(name) == self.queue

    def _claim(self, decision: Decision, command: commands.CreateStep) -> Claim:
        run, now = decision.run, self._engine.now()
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
            requests=_known_requests(decision, command.args),
        )


def _known_requests(decision: Decision, args: str) -> dict[str, Request]:
    """Those among the arguments that the turn has loaded, body and all."""
    found = {each: decision.requests.get(each) for each in codec.request_ids(args)}
    return {each: request for each, request in found.items() if request is not None and request.is_loaded}


def _is_limited(step: Step[..., Any], task: Any) -> bool:
    """Whether Celery limits a step's task, or lets it overtake others: it needs a message of its own then."""
    limits = (task.time_limit, task.soft_time_limit, task.rate_limit, task.priority, step.options.get("priority"))
    return any(each is not None for each in limits) or any(task.app.conf.get(name) for name in _LIMITS)
