"""
Replay: runs a workflow against its log, and returns the commands that the log lacks.

Rule 1: no I/O.  A replay uses no clock, database, broker or environment.  It
learns everything from the log.

Rule 2: no writing.  A replay never appends an event.  It returns commands, and
``drive`` commits them with the events that they cause, in one transaction.

Rule 3: one event at a time.  An event is applied, the loop runs until nothing
is ready, then the next event is applied.  Applying two outcomes at once could
change the order in which the code after them runs.

Rule 4: a divergence never fails the run.  It is a ``fault``: nothing of this
replay may be committed, and the run waits for code that matches its log.

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

import asyncio
import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import codec, events
from ..errors import DurableError, RunCancelled, SerializationError
from ..events import Event
from ..http import Request
from ..registry import Workflow, definitions
from ..sandbox import ends_process, guards, lint, log_records
from . import failures
from .commands import Command, Outcome, SetAttributes
from .hooks import Received
from .loop import DurableLoop
from .operations import Created, describe
from .run_context import RunContext, RunInfo, child_run_id

#: What an event adds to ``size`` beside its text, in bytes: futures, tasks, bookkeeping.
EVENT_OVERHEAD = 500

_CREATED = (
    events.StepCreated,
    events.WaitCreated,
    events.HookCreated,
    events.HookConflicted,
    events.ChildCreated,
)
_GIVEN_UP = (events.StepCancelled, events.WaitCancelled, events.ChildCancelled, events.HookClosedEvent)
_MARKERS = (events.MarkerRecorded, events.AttributesSet)
_OF_THE_RUN = frozenset({events.RunStarted, events.RunCancelRequested, events.AttributesSet})
_OUTCOMES = frozenset(
    {
        events.StepCompleted,
        events.StepFailedEvent,
        events.WaitCompleted,
        events.ChildCompleted,
        events.ChildFailed,
    }
)


class Replay:
    """
    One run of *workflow*, up to the last event that was fed.

    Attributes:
        cursor: ``seq`` of the last event fed.
        outcome: How the run ended, None while it goes on.  The log may still lack what ``take`` returns.
        cancel: The first event that asked the run to cancel, None without one.
        fault: How the workflow differs from its log, or why the replay stopped.  Commit nothing then.
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
        self.outcome: Outcome | None = None
        self.cancel: events.RunCancelRequested | None = None
        self.size = len(args)
        self._args = args
        self._requests: Mapping[str, Request] = requests or {}
        self._loop = DurableLoop(info.run_id)  # type: ignore[abstract]  # its other methods raise
        self._loop.passthrough_modules = workflow.passthrough_modules
        self._operations = self._loop.operations
        self._operations.limit = max_operations
        self._context = RunContext(self._loop, info)
        self._cancelling = False
        self._with_outcome: set[str] = set()
        self._late_requests: dict[str, list[str]] = collections.defaultdict(list)

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
        self._loop.muted = replaying
        # Until the workflow starts, the requests of its arguments are needed too.
        self._requests = {**self._requests, **(requests or {})} if self._loop.main is None else requests or {}
        for event in log:
            self._read_ahead(event)
        for event in log:
            self.cursor = max(self.cursor, event.seq)
            if self.outcome is not None or self._operations.fault is not None:
                if event.phase == "ended" and event.op_id in self._operations.issued:
                    # The workflow withdrew the operation just before it ended, and the outcome came first.
                    self._operations.end(event.op_id)
                continue
            apply = _HANDLERS.get(type(event))
            if apply is not None and self._is_expected(event):
                apply(self, event)
            main = self._loop.main
            if main is not None and main.done() and self._operations.fault is None and self.outcome is None:
                self._finish(main)

    def _read_ahead(self, event: Event) -> None:
        """Collect what the log says about calls that the workflow has not made yet."""
        if isinstance(event, _CREATED) and event.op_id not in self._operations.issued:
            self._operations.recorded[event.op_id] = event
        elif isinstance(event, _GIVEN_UP):
            self._operations.given_up.add(event.op_id)
        elif isinstance(event, _MARKERS):
            self._operations.markers.add(event.op_id)
        elif isinstance(event, events.RunCancelRequested):
            self.cancel = self.cancel or event
        text = getattr(event, event.value_field) if event.value_field else None
        self.size += EVENT_OVERHEAD + len(text or "")

    def _is_expected(self, event: Event) -> bool:
        """Whether the workflow has asked for the operation, and it has no outcome yet; else there is a fault."""
        if type(event) in _OF_THE_RUN:
            return True
        if event.op_id not in self._operations.issued:
            recorded = describe(event) if isinstance(event, _CREATED) else f"{event.kind} of {event.op_id}"
            self._diverge(event.op_id, recorded, "nothing")
        elif type(event) in _OUTCOMES:
            if event.op_id in self._with_outcome:
                self._diverge(event.op_id, f"two outcomes, the second is {event.kind}", "one")
            self._with_outcome.add(event.op_id)
        return self.fault is None

    def _diverge(self, op_id: str, recorded: str, asked: str) -> None:
        self._loop.diverge(op_id, recorded, asked, self._loop.waiting_line(op_id))

    def _finish(self, main: asyncio.Task[Any]) -> None:
        """Make the end of the main task the run's outcome, or a fault when the log records more operations."""
        unclaimed = next(iter(self._operations.recorded.values()), None)
        if unclaimed is not None:
            place = self.workflow.place
            self._loop.diverge(unclaimed.op_id, describe(unclaimed), "the end of the workflow", place)
            return
        error: BaseException | None = asyncio.CancelledError() if main.cancelled() else main.exception()
        if error is not None and ends_process(error):
            raise error
        if self._cancelling:
            # A run that was asked to cancel ends as cancelled, whatever its cleanup did.
            value = None
            if error is not None and not isinstance(error, asyncio.CancelledError):
                value = codec.encode_error(error)  # its cleanup failed
            self.outcome = Outcome(status="cancelled", value=value)
            return
        if error is None:
            try:
                self.outcome = Outcome(status="completed", value=codec.encode(main.result(), "result"))
                return
            except BaseException as refusal:  # encoding may call the author's code
                if ends_process(refusal):
                    raise
                error = refusal
        self.outcome = Outcome(status="failed", value=codec.encode_error(error))

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
    def fault(self) -> DurableError | None:
        return self._operations.fault

    @property
    def ended(self) -> set[str]:
        """Operations whose outcome was fed, or that were withdrawn or closed."""
        return self._operations.ended

    @property
    def open_hooks(self) -> set[str]:
        """Hooks that were asked for, and neither closed nor in conflict."""
        return {op_id for op_id, hook in self._context.hooks.items() if hook.open}

    @property
    def taken(self) -> set[str]:
        """Ids of the webhook requests that the workflow has taken out of a hook's queue."""
        return self._context.taken

    def queued(self, op_id: str) -> list[str]:
        """Ids of the webhook requests to a hook that the workflow has not taken."""
        hook = self._context.hooks.get(op_id)
        waiting = [item.request.id for item in hook.queue if item.request] if hook else []
        return [each for each in waiting if each] + self._late_requests.get(op_id, [])

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
    def has_only_steps(self) -> bool:
        """Whether the workflow has asked for nothing but steps, and was not asked to cancel."""
        return self.cancel is None and all(asked.kind == "step" for asked in self._operations.issued.values())

    @property
    def unclosable(self) -> str | None:
        """After ``park``: where a coroutine could not be closed and stays in memory; None when all were closed."""
        return self._loop.unclosable

    # Events of the run

    def _start(self, event: events.RunStarted) -> None:
        """Call the workflow's function and run it until it waits; arguments that do not fit end the replay."""
        if self._loop.main is not None:
            return
        workflow = self.workflow
        try:
            bound = codec.decode_call(self._args, self._requests, workflow.signature)
        except SerializationError as error:
            # They matched the signature when the run was created, so the code has changed since.
            self._diverge_in_arguments(error)
            return
        try:
            definitions.fit_arguments(workflow, bound)
        except BaseException as error:  # validators are the author's code
            if ends_process(error):
                raise
            if self._operations.recorded:
                self._diverge_in_arguments(error)
            else:
                self.outcome = Outcome(status="failed", value=codec.encode_error(error))
            return
        self._loop.start(workflow.function(*bound.args, **bound.kwargs), event.at)

    def _diverge_in_arguments(self, error: BaseException) -> None:
        takes = f"{self.workflow.name}{self.workflow.signature}: {error}"
        self._loop.diverge(events.ROOT, f"arguments {self._args}", takes, self.workflow.place)

    def _cancel(self, event: events.RunCancelRequested) -> None:
        if self._loop.main is None:
            self.outcome = Outcome(status="cancelled")
        elif not self._cancelling:
            self._cancelling = True
            self._loop.now = max(self._loop.now, event.at)
            # By call_soon, because a task that is cancelled before its first step never runs at all.
            self._loop.run(self._loop.call_soon, self._loop.main.cancel, event.reason)

    def _set_attributes(self, event: events.AttributesSet) -> None:
        self._context.attributes.record(event.op_id, event.attributes)

    # Events of operations

    def _check_created(self, event: Created) -> None:
        """Compare the record with the call.  Calls made after ``_read_ahead`` were compared already."""
        asked = self._operations.issued[event.op_id]
        if not asked.matches(event):
            self._diverge(event.op_id, describe(event), describe(asked))

    def _complete(self, event: events.StepCompleted | events.ChildCompleted) -> None:
        if event.op_id not in self._loop.pending:
            self._operations.end(event.op_id)
            return
        try:
            value = codec.decode(event.result, self._requests)
        except SerializationError as error:
            # Other code wrote the value.  That is a divergence, and no failure of the run.
            name = self._operations.issued[event.op_id].name
            self._diverge(event.op_id, f"{event.kind} of {name}: {event.result}", f"nothing, for {error}")
            return
        self._loop.resolve(event.op_id, event.at, value)

    def _fail(self, event: events.StepFailedEvent | events.ChildFailed | events.ChildCancelled) -> None:
        if event.op_id not in self._loop.pending:
            self._operations.end(event.op_id)
            return
        error: BaseException
        if isinstance(event, events.StepFailedEvent):
            error = failures.step_error(event, self._operations.issued[event.op_id].name, self._requests)
        elif isinstance(event, events.ChildFailed):
            error = failures.child_error(event, child_run_id(self.info.run_id, event.op_id), self._requests)
        else:
            error = RunCancelled(child_run_id(self.info.run_id, event.op_id), event.reason)
        self._loop.resolve(event.op_id, event.at, error=error)

    def _end_wait(self, event: events.WaitCompleted) -> None:
        self._loop.resolve(event.op_id, event.at)

    # Events of hooks

    def _register_hook(self, event: events.HookCreated | events.HookConflicted) -> None:
        """The hook's token is this run's, or another run holds it."""
        if isinstance(event, events.HookConflicted):
            self._operations.ended.add(event.op_id)
        self._check_created(event)
        hook = self._context.hooks.get(event.op_id)
        if hook is not None and hook.token != event.token:
            # The random token of an uncommitted turn: the caller fed this object the log of another turn.
            self._diverge(event.op_id, f"token {event.token!r}", f"token {hook.token!r}")
        if self.fault is not None:
            return
        self._loop.now = max(self._loop.now, event.at)
        if hook is None:
            return
        if isinstance(event, events.HookConflicted):
            self._loop.run(hook.mark_conflicted, event.owner)
        else:
            self._loop.run(hook.mark_registered)

    def _receive(self, event: events.HookReceived) -> None:
        """Put a payload into its hook's queue; a request that came after the hook was closed is kept apart."""
        hook = self._context.hooks.get(event.op_id)
        if hook is None or not hook.open:
            if event.request_id is not None:
                self._late_requests[event.op_id].append(event.request_id)
            return
        self._loop.now = max(self._loop.now, event.at)
        stamp = self._loop.next_stamp()
        if event.request_id is not None:
            received = Received(stamp, request=self._requests[event.request_id])
        else:
            text = event.payload or "null"
            requests = {each: self._requests[each] for each in codec.request_ids(text) if each in self._requests}
            received = Received(stamp, payload=text, requests=requests)
        self._loop.run(hook.put, received)


def _only_check(replay: Replay, event: Event) -> None:
    """``_is_expected`` has checked the event, and the workflow does not see it."""


_HANDLERS: dict[type[Event], Callable[[Replay, Any], None]] = {
    events.RunStarted: Replay._start,
    events.RunCancelRequested: Replay._cancel,
    events.AttributesSet: Replay._set_attributes,
    events.StepCreated: Replay._check_created,
    events.StepRetrying: _only_check,
    events.StepCompleted: Replay._complete,
    events.StepFailedEvent: Replay._fail,
    events.StepCancelled: _only_check,
    events.WaitCreated: Replay._check_created,
    events.WaitCompleted: Replay._end_wait,
    events.WaitCancelled: _only_check,
    events.HookCreated: Replay._register_hook,
    events.HookConflicted: Replay._register_hook,
    events.HookReceived: Replay._receive,
    events.HookClosedEvent: _only_check,
    events.ChildCreated: Replay._check_created,
    events.ChildCompleted: Replay._complete,
    events.ChildFailed: Replay._fail,
    events.ChildCancelled: Replay._fail,
}
