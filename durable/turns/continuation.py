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
from collections import deque
from collections.abc import Callable

from .. import codec, registry
from ..engine import Engine, KnownWait
from ..http import Request
from ..registry import SEMANTICS
from ..replay import commands
from ..store import Claim, Run, pauses, runs
from .decision import Decision
from .offers import may_run_in_place
from .prepared_turn import Gathered
from .run_row import started_at

#: How long outcomes are gathered before they are recorded, in seconds.
GATHER_SECS = 0.005
#: The most waits that are ended in one transaction: each may leave this process with an attempt to run.
MOST_TOGETHER = 8


class Continuation:
    """
    What a worker may still do with one message.

    Attributes:
        next: The attempt that this process has claimed and runs next.
        has_turned: Whether the turn after the attempt was taken together with its outcome.
        has_offers: Whether steps of the run may be offered, for this process to take.
        ready: The attempts that it has claimed as well, which come after that one.
        waits: The waits that this process ends next.
        gathered: The outcomes of other runs' attempts that are recorded next; another thread may record them.
        in_batches: Whether a turn takes in several outcomes: those that let the workflow begin nothing wait for others.
    """

    def __init__(
        self,
        engine: Engine,
        queue: str,
        *,
        has_offers: bool = False,
        in_batches: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            queue: The queue that the message came from.
            clock: Returns the time in seconds.
        """
        self.queue = queue
        self.has_offers = has_offers
        self.in_batches = in_batches
        self.next: Claim | None = None
        self.ready: deque[Claim] = deque()
        self.waits: list[KnownWait] = []
        self.gathered: deque[Gathered] = deque()
        self.has_turned = False
        self._gathers_until = 0.0
        self._engine = engine
        self._clock = clock
        self._until = clock() + max(engine.settings.continuation, engine.least_continuation) / 1_000_000
        self._drives_at = 0.0
        #: By step name: whether it may run here.
        self._runs_here: dict[str, bool] = {}

    def begin(self) -> Claim | None:
        """Return the attempt to run now, if one was claimed here.  From now on the caller is responsible for it."""
        held, self.next, self.has_turned = self.next, None, False
        return held

    def take_ready(self) -> Claim | None:
        """Take the next of the attempts that were claimed together; another thread may release some meanwhile."""
        try:
            self.next = self.ready.popleft()
        except IndexError:
            return None
        return self.next

    @property
    def has_others(self) -> bool:
        """Whether this process has attempts of other runs in hand, to run or to record."""
        return bool(self.ready or self.gathered)

    def gather(self, outcome: Gathered) -> None:
        """Keep the outcome of the attempt that runs now, to be recorded with those of others."""
        if not self.gathered:
            self._gathers_until = self._clock() + GATHER_SECS
        self.gathered.append(outcome)
        self.has_turned = True

    def records_before(self, held: Claim) -> bool:
        """Return whether what was gathered is to be recorded before this attempt runs, which may take long."""
        if not self.gathered:
            return False
        return self._clock() >= self._gathers_until or not self._engine.quick_steps.has(held.name)

    def take_gathered(self) -> list[Gathered]:
        """Take the outcomes to record now; two threads never take the same one."""
        taken: list[Gathered] = []
        while True:
            try:
                taken.append(self.gathered.popleft())
            except IndexError:
                return taken

    def take_due_waits(self) -> list[KnownWait]:
        """Take waits of other runs that this process knows and that are due; none when other messages come first."""
        now = self._engine.now()
        while len(self.waits) < MOST_TOGETHER and not self.is_over:
            due = self._engine.known_waits.take_due(now)
            if due is None:
                break
            self.waits.append(due)
        return self.waits

    def begin_waits(self) -> list[KnownWait]:
        """Return the waits to end now, if some were taken here."""
        waits, self.waits, self.has_turned = self.waits, [], False
        return waits

    @property
    def is_over(self) -> bool:
        """Whether other runs come first now."""
        return self._clock() >= self._until

    def puts_off_drive(self, secs: float) -> bool:
        """
        Return whether a turn can be put off while this process goes on with the run's steps.

        One that cannot is taken now, and others can be put off for so many *secs*.
        """
        now = self._clock()
        if now < self._drives_at:
            return True
        self._drives_at = now + secs
        return False

    def names(self) -> list[str]:
        """The names of the steps that may run here."""
        return [name for name in registry.steps if self._runs(name)]

    def takes_turn(self, run: Run) -> bool:
        """Return whether the turns of a run come to the queue of this message, and nothing pauses them."""
        queue = self._engine.dispatch.find_queue_of_turn(run.queue)
        known = self._engine.pauses
        return queue == self.queue and not (known and known.of_run(run.name, queue))

    def choose(self, decision: Decision) -> Claim | None:
        """Return a claim for the first step that a turn asks for and that may run here next."""
        if decision.fault is not None or decision.outcome is not None or decision.run.priority is not None:
            return None
        if self.is_over:
            return None
        given_up = {each.op_id for each in decision.commands if isinstance(each, commands.Withdraw)}
        wanted = (each for each in decision.commands if isinstance(each, commands.CreateStep))
        command = next((each for each in wanted if each.op_id not in given_up and self._runs(each.name)), None)
        if command is None:
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
            scheduled_for=run.scheduled_for,
            forked_from=run.forked_from,
            run_turn=run.turn + 1,
            semantics=SEMANTICS[0],
            queue=self.queue,
            requests=loaded,
            trace_context=runs.trace_context(self._engine.store.vault, run.id, run.trace_context),
        )

    def _runs(self, name: str) -> bool:
        """Return whether a step may run here, without a message of its own."""
        if name not in self._runs_here:
            is_from_here = self._engine.dispatch.find_queue_of_step(name) == self.queue
            is_paused = self._engine.pauses.has(pauses.QUEUE, self.queue)
            self._runs_here[name] = is_from_here and not is_paused and may_run_in_place(self._engine, name)
        return self._runs_here[name]
