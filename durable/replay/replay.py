"""
Replay: runs a workflow against its log, and returns the commands that the log lacks.

Rule 1: no I/O.  A replay uses no clock, database, broker or environment.  It
learns everything from the log.

Rule 2: no writing.  A replay never appends an event.  It returns commands, and
``drive`` commits them with the events that they cause, in one transaction.

Rule 3: one event at a time.  An event is applied, the loop runs until nothing
is ready, then the next event is applied.  Applying two outcomes at once could
change the order in which the code after them runs.

Rule 4: a divergence never fails the run, nor does a mistake in its code.  It is
a ``fault``: nothing of this replay may be committed, and the run waits for code
that is right and matches its log.

Theory of operation
===================
The workflow is a coroutine on our own event loop.  ``feed`` applies a piece of
the log in two passes.

The first pass reads ahead.  It collects what the log says about the workflow's
calls (which operations it created, which it gave up), so that each call can be
compared with its record at the moment the workflow makes it.

The second pass applies the events one by one:

- ``run_started`` calls the workflow's function and runs it until it waits.
- ``…_created`` checks that the workflow has asked for this operation by now.
- An outcome resolves the future of its operation, if the workflow still waits
  for it, and runs the workflow until it waits again.
- ``run_cancel_requested`` cancels the main task, once.

When the main task is done, its result is the ``outcome``.  The operations that
the workflow asked for and the log does not record are the commands; ``take``
returns them.  A process that keeps the object feeds it the next events later,
so the workflow does not start again from the top.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import events
from ..errors import DurableError
from ..events import Event
from ..http import Request
from ..registry import Workflow
from ..sandbox import guards, lint, log_records
from .commands import Command, Outcome, SetAttributes
from .execution import Execution
from .operations import CREATED
from .run_info import RunInfo

#: What an event adds to ``size`` beside its text, in bytes: futures, tasks, bookkeeping.
EVENT_OVERHEAD = 500

_GIVEN_UP = (events.StepCancelled, events.WaitCancelled, events.ChildCancelled, events.HookClosedEvent)
_MARKERS = (events.MarkerRecorded, events.AttributesSet, events.ReplySent)


class Replay:
    """
    One run of *workflow*, up to the last event that was fed.

    Attributes:
        cursor: ``seq`` of the last event fed.
        cancel: The first event that asked the run to cancel, None without one.
        fault: How the workflow differs from its log, its mistake, or why the replay stopped.  Commit nothing then.
        size: Roughly how many bytes this object keeps.
    """

    def __init__(
        self,
        workflow: Workflow[..., Any],
        info: RunInfo,
        args: str,
        requests: Mapping[str, Request] | None = None,
        *,
        max_operations: int = 0,
    ) -> None:
        """
        Args:
            args: The encoded arguments.
            requests: The webhook requests that the arguments refer to, by id.
            max_operations: A workflow that asks for more operations is at fault; 0 means any number.
        """
        guards.install()
        log_records.install()
        lint.warn_once(workflow.function, workflow.passthrough_modules)
        self.workflow = workflow
        self.info = info
        self.cursor = 0
        self.cancel: events.RunCancelRequested | None = None
        self.size = len(args)
        self._execution = Execution(workflow, info, args, requests or {})
        self._loop = self._execution.loop
        self._context = self._execution.context
        self._operations = self._execution.operations
        self._operations.limit = max_operations

    # Events in

    def feed(
        self,
        log: Sequence[Event],
        requests: Mapping[str, Request] | None = None,
        *,
        replaying: bool = False,
    ) -> None:
        """
        Apply events, in the order of their ``seq``.

        After a fault or an outcome, the workflow sees no more events.

        Args:
            requests: The webhook requests that these events refer to, by id.
            replaying: The events were applied before, in an earlier turn.  The workflow's log lines
                are dropped, and ``patched`` answers as it did then.
        """
        execution, operations = self._execution, self._operations
        self._loop.muted = replaying
        # Until the workflow starts, the requests of its arguments are needed too.
        given = requests or {}
        execution.requests = {**execution.requests, **given} if self._loop.main is None else given
        # Read ahead what the log says about calls that the workflow has not made yet.
        for event in log:
            if isinstance(event, CREATED) and event.op_id not in operations.issued:
                operations.recorded[event.op_id] = event
            elif isinstance(event, _GIVEN_UP):
                operations.given_up.add(event.op_id)
            elif isinstance(event, _MARKERS):
                operations.markers.add(event.op_id)
            elif isinstance(event, events.RunCancelRequested):
                self.cancel = self.cancel or event
            text = getattr(event, event.value_field) if event.value_field else None
            self.size += EVENT_OVERHEAD + len(text or "")
        # Apply one event after the other.
        for event in log:
            self.cursor = max(self.cursor, event.seq)
            if execution.outcome is not None or operations.fault is not None:
                if event.phase == "ended" and event.op_id in operations.issued:
                    # The workflow withdrew the operation just before it ended, and the outcome came first.
                    operations.end(event.op_id)
                elif isinstance(event, events.HookReceived):
                    execution.hand_over(event)
                continue
            self._loop.seq = event.seq
            apply = _HANDLERS.get(type(event))
            if apply is not None and execution.expects(event):
                apply(execution, event)
            execution.finish_if_over()

    # Commands and state out

    def take(self) -> list[Command]:
        """The commands since the last call, in the order of the workflow's calls.  They count as recorded now."""
        if self.fault is not None:
            return []
        taken = list(self._operations.commands.values())
        self._operations.commands.clear()
        for command in taken:
            if isinstance(command, SetAttributes):
                self._context.attributes.record(command.op_id, command.attributes)
        return taken

    def park(self) -> None:
        """Close the workflow's coroutines.  The object cannot be used afterwards."""
        self._loop.park()

    @property
    def outcome(self) -> Outcome | None:
        """How the run ended, None while it goes on.  The log may still lack what ``take`` returns."""
        return self._execution.outcome

    @property
    def fault(self) -> DurableError | None:
        return self._operations.fault

    @property
    def ended(self) -> set[str]:
        """Operations whose outcome was fed, or that were withdrawn or closed."""
        return self._operations.ended

    @property
    def open_hooks(self) -> set[str]:
        """Hooks that were asked for, and neither closed nor in conflict."""
        mine = {op_id for op_id, hook in self._context.hooks.items() if hook.open}
        return mine.union(self._context.handed_over.unclaimed)

    @property
    def taken(self) -> set[str]:
        """Ids of the webhook requests that the workflow has taken out of a hook's queue."""
        return self._context.taken

    def queued(self, op_id: str) -> list[str]:
        """Ids of the webhook requests to a hook that the workflow has not taken."""
        hook = self._context.hooks.get(op_id)
        waiting = [item.request.id for item in hook.queue if item.request] if hook else []
        return [each for each in waiting if each] + self._execution.late_requests.get(op_id, [])

    @property
    def pending_count(self) -> int:
        """How many operations the workflow waits for."""
        return len(self._loop.pending)

    def waits_only_for(self, op_id: str) -> bool:
        """Whether the workflow waits for this operation, and for no other step or child."""
        pending = self._loop.pending
        others = (self._operations.issued[each].kind for each in pending if each != op_id)
        return op_id in pending and all(kind == "wait" for kind in others)

    @property
    def has_only_steps_and_waits(self) -> bool:
        """Whether the workflow has asked for nothing else, was not asked to cancel, and has taken no request."""
        if self.cancel is not None or self.taken:
            return False
        return all(asked.kind in ("step", "wait") for asked in self._operations.issued.values())

    @property
    def open_waits(self) -> list[str]:
        """The waits that the workflow has asked for and that are not over."""
        issued = self._operations.issued.items()
        return [op_id for op_id, asked in issued if asked.kind == "wait" and op_id not in self.ended]

    @property
    def unclosable(self) -> str | None:
        """After ``park``: where a coroutine could not be closed and stays in memory; None when all were closed."""
        return self._loop.unclosable


def _only_check(execution: Execution, event: Event) -> None:
    """``expects`` has checked the event, and the workflow does not see it."""


_HANDLERS: dict[type[Event], Callable[[Execution, Any], None]] = {
    events.RunStarted: Execution.start,
    events.RunForked: _only_check,
    events.RunCancelRequested: Execution.cancel,
    events.AttributesSet: Execution.set_attributes,
    events.ValuePublished: _only_check,
    events.ReplySent: _only_check,
    events.StepCreated: Execution.check_created,
    events.StepRetrying: Execution.note_replies,
    events.StepCompleted: Execution.complete,
    events.StepFailedEvent: Execution.fail,
    events.StepCancelled: _only_check,
    events.WaitCreated: Execution.check_created,
    events.WaitCompleted: Execution.end_wait,
    events.WaitCancelled: _only_check,
    events.HookCreated: Execution.register_hook,
    events.HookConflicted: Execution.register_hook,
    events.HookReceived: Execution.receive,
    events.HookClosedEvent: _only_check,
    events.ChildCreated: Execution.check_created,
    events.ChildCompleted: Execution.complete,
    events.ChildFailed: Execution.fail,
    events.ChildCancelled: Execution.fail,
}
