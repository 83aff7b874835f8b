"""
Replay: a workflow and its log in, what to do next out.

Rule 1: no I/O.  No clock, database, broker or environment; the log is the
only thing a replay may learn from.

Rule 2: no writing.  A replay never appends an event.  It returns commands,
and ``drive`` commits them with the events that they cause, in one transaction.

Rule 3: one event at a time.  An event is applied, the loop runs until nothing
is ready, then comes the next.  Two outcomes at once would let what follows
them come out in another order than it did live.

Rule 4: a divergence never fails the run.  It is a ``fault``: nothing of this
replay may be committed, and the run waits for code that matches its log.

Theory of operation
===================
The workflow is a coroutine on a loop of ours.  Feeding it a log tells it at
first what will have been asked for, so that each call can be compared as it
is made; then each event in its turn.  ``*_created`` only checks that the
workflow has asked by now.  An outcome resolves the call that waits for it, if
one still does.  What the workflow has asked for beyond the log are the
commands.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from .. import codec, events
from ..errors import DurableError, RunCancelled, SerializationError
from ..events import Event
from ..http import Request
from ..registry import Workflow, definitions
from ..sandbox import ends_process, guards, lint, log_records
from . import failures
from .commands import Command, Outcome, SetAttributes
from .hooks import Hook, Received
from .loop import DurableLoop
from .operations import Created, describe
from .run_context import RunContext, RunInfo, child_run_id

#: What an event weighs in ``size`` beside its text, in bytes: futures, tasks, bookkeeping.
OVERHEAD = 500

_CREATED = (
    events.StepCreated,
    events.WaitCreated,
    events.HookCreated,
    events.HookConflicted,
    events.ChildCreated,
)
_GIVEN_UP = (events.StepCancelled, events.WaitCancelled, events.ChildCancelled, events.HookClosedEvent)
_NOTED = (events.MarkerRecorded, events.AttributesSet)
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
    One run of *workflow*, as far as the log goes that it was fed.

    Attributes:
        cursor: ``seq`` of the last event fed.
        outcome: How the run ended, None while it goes on.  The log may still lack what ``take`` returns.
        cancel: What told the run to cancel first, if anything did.
        fault: How the workflow differs from its log, or why it was not followed further.  Commit nothing then.
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
            requests: Those that the arguments refer to.
            max_operations: To ask for more than these is a fault; 0: any number.
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
        self._loop = DurableLoop(info.run_id)  # type: ignore[abstract]  # what it lacks, it refuses
        self._loop.passthrough_modules = workflow.passthrough_modules
        self._ledger = self._loop.ledger
        self._ledger.limit = max_operations
        self._context = RunContext(self._loop, info)
        self._cancelling = False
        self._ended: set[str] = set()
        self._late: dict[str, list[str]] = collections.defaultdict(list)

    # In

    def feed(
        self,
        log: Sequence[Event],
        requests: Mapping[str, Request] | None = None,
        *,
        replaying: bool = False,
    ) -> None:
        """
        Apply events, in the order of their ``seq``.  After a fault or an outcome the workflow hears of none,
        but what has an outcome of its own by then is not withdrawn.

        Args:
            requests: Those that these events refer to.
            replaying: They were applied before, in an earlier turn: the workflow's log lines are not
                wanted again, and ``patched`` answers as it would have then.
        """
        self._loop.muted = replaying
        self._requests = {**self._requests, **(requests or {})} if self._loop.main is None else requests or {}
        for event in log:
            self._note(event)
        for event in log:
            self.cursor = max(self.cursor, event.seq)
            if self.outcome is None and self.fault is None:
                self._apply(event)
                self._conclude()
            elif event.phase == "ended" and event.op_id in self._ledger.issued:
                # The workflow gave it up with its last breath; an operation ends once.
                self._ledger.end(event.op_id)

    def _note(self, event: Event) -> None:
        """What the log says of the workflow's wishes has to be known before they are made."""
        if isinstance(event, _CREATED) and event.op_id not in self._ledger.issued:
            self._ledger.recorded[event.op_id] = event
        elif isinstance(event, _GIVEN_UP):
            self._ledger.given_up.add(event.op_id)
        elif isinstance(event, _NOTED):
            self._ledger.noted.add(event.op_id)
        elif isinstance(event, events.RunCancelRequested):
            self.cancel = self.cancel or event
        text = getattr(event, event.value_field) if event.value_field else None
        self.size += OVERHEAD + len(text or "")

    def _apply(self, event: Event) -> None:
        handle = _HANDLERS.get(type(event))
        if handle is not None and self._is_expected(event):
            handle(self, event)

    def _is_expected(self, event: Event) -> bool:
        if type(event) in _OF_THE_RUN:
            return True
        if event.op_id not in self._ledger.issued:
            what = describe(event) if isinstance(event, _CREATED) else f"{event.kind} of {event.op_id}"
            self._diverge(event.op_id, what, "nothing")
        elif type(event) in _OUTCOMES:
            if event.op_id in self._ended:
                self._diverge(event.op_id, f"two outcomes, the second is {event.kind}", "one")
            self._ended.add(event.op_id)
        return self.fault is None

    def _diverge(self, op_id: str, recorded: str, asked: str) -> None:
        self._loop.diverge(op_id, recorded, asked, self._loop.waiting_line(op_id))

    # Out

    @property
    def fault(self) -> DurableError | None:
        return self._ledger.fault

    @property
    def ended(self) -> set[str]:
        """Operations whose outcome was fed, or that were withdrawn or closed."""
        return self._ledger.ended

    @property
    def open_hooks(self) -> set[str]:
        """Hooks that were asked for, and neither closed nor in conflict."""
        return {op_id for op_id, hook in self._context.hooks.items() if hook.open}

    @property
    def taken(self) -> set[str]:
        """Ids of the webhook requests that the workflow has taken out of a hook's queue."""
        return self._context.taken

    def waits_only_for(self, op_id: str) -> bool:
        """Whether the workflow waits for the outcome of this operation, and of no other step or child."""
        pending = self._loop.pending
        others = (self._ledger.issued[each].kind for each in pending if each != op_id)
        return op_id in pending and all(kind == "wait" for kind in others)

    @property
    def out(self) -> int:
        """How many operations the workflow awaits the outcome of."""
        return len(self._loop.pending)

    @property
    def has_only_steps(self) -> bool:
        """Whether the workflow has asked for steps only, and nobody to cancel it."""
        return self.cancel is None and all(asked.kind == "step" for asked in self._ledger.issued.values())

    @property
    def unclosable(self) -> str | None:
        """After ``park``: where the workflow swallows even its own end; it leaks then."""
        return self._loop.unclosable

    def queued(self, op_id: str) -> list[str]:
        """Ids of the webhook requests that came to a hook and were not taken."""
        hook = self._context.hooks.get(op_id)
        waiting = [item.request.id for item in hook.waiting if item.request] if hook else []
        return [each for each in waiting if each] + self._late.get(op_id, [])

    def take(self) -> list[Command]:
        """What was asked for since the last call, in that order; from now on it counts as recorded."""
        if self.fault is not None:
            return []
        taken = list(self._ledger.commands.values())
        self._ledger.commands.clear()
        for command in taken:
            if isinstance(command, SetAttributes):
                self._context.attributes.record(command.op_id, command.attributes)
        return taken

    def park(self) -> None:
        """Put the workflow away.  The object is of no use afterwards."""
        self._loop.park()

    # The run

    def _start(self, event: events.RunStarted) -> None:
        if self._loop.main is not None:
            return
        coro = self._called()
        if coro is not None:
            self._loop.start(coro, event.at)

    def _called(self) -> Coroutine[Any, Any, Any] | None:
        """The workflow's coroutine; None, with a fault or an outcome, where the arguments are not for it."""
        workflow = self.workflow
        try:
            bound = codec.decode_call(self._args, self._requests, workflow.signature)
        except SerializationError as error:
            # They were bound to the signature when the run was started: this is other code.
            self._misfit(error)
            return None
        try:
            definitions.fit_arguments(workflow, bound)
        except BaseException as error:  # validators are the author's
            if ends_process(error):
                raise
            if self._ledger.recorded:
                self._misfit(error)
            else:
                self.outcome = Outcome(status="failed", value=codec.encode_error(error))
            return None
        return workflow.function(*bound.args, **bound.kwargs)  # type: ignore[no-any-return]

    def _misfit(self, error: BaseException) -> None:
        takes = f"{self.workflow.name}{self.workflow.signature}: {error}"
        self._loop.diverge(events.ROOT, f"arguments {self._args}", takes, self.workflow.place)

    def _cancel(self, event: events.RunCancelRequested) -> None:
        if self._loop.main is None:
            self.outcome = Outcome(status="cancelled")
        elif not self._cancelling:
            self._cancelling = True
            self._loop.now = max(self._loop.now, event.at)
            # Deferred: a task that has not begun would never begin.
            self._loop.run(self._loop.call_soon, self._loop.main.cancel, event.reason)

    def _conclude(self) -> None:
        main = self._loop.main
        if main is None or not main.done() or self.fault is not None or self.outcome is not None:
            return
        left = next(iter(self._ledger.recorded.values()), None)
        if left is not None:
            self._loop.diverge(left.op_id, describe(left), "the end of the workflow", self.workflow.place)
            return
        error: BaseException | None = asyncio.CancelledError() if main.cancelled() else main.exception()
        if error is not None and ends_process(error):
            raise error
        self.outcome = self._cancelled(error) if self._cancelling else self._ended_with(main, error)

    def _cancelled(self, error: BaseException | None) -> Outcome:
        """A run that was told to cancel ends so, whatever its cleanup did."""
        if error is None or isinstance(error, asyncio.CancelledError):
            return Outcome(status="cancelled")
        return Outcome(status="cancelled", value=codec.encode_error(error))

    def _ended_with(self, main: asyncio.Task[Any], error: BaseException | None) -> Outcome:
        if error is None:
            try:
                return Outcome(status="completed", value=codec.encode(main.result(), "result"))
            except BaseException as refusal:  # what makes a value plain may be the author's
                if ends_process(refusal):
                    raise
                error = refusal
        return Outcome(status="failed", value=codec.encode_error(error))

    def _attributes_set(self, event: events.AttributesSet) -> None:
        self._context.attributes.record(event.op_id, event.attributes)

    # Operations

    def _created(self, event: Created) -> None:
        """It was fed back, or its call was compared when it was made."""
        asked = self._ledger.issued[event.op_id]
        if not asked.is_of(event):
            self._diverge(event.op_id, describe(event), describe(asked))

    def _step_completed(self, event: events.StepCompleted) -> None:
        self._resolve(event, event.result)

    def _step_failed(self, event: events.StepFailedEvent) -> None:
        self._resolve_with_error(event, lambda: failures.step_error(event, self._name(event), self._requests))

    def _wait_completed(self, event: events.WaitCompleted) -> None:
        self._loop.resolve(event.op_id, event.at)

    def _child_completed(self, event: events.ChildCompleted) -> None:
        self._resolve(event, event.result)

    def _child_failed(self, event: events.ChildFailed) -> None:
        run_id = child_run_id(self.info.run_id, event.op_id)
        self._resolve_with_error(event, lambda: failures.child_error(event, run_id, self._requests))

    def _child_cancelled(self, event: events.ChildCancelled) -> None:
        run_id = child_run_id(self.info.run_id, event.op_id)
        self._resolve_with_error(event, lambda: RunCancelled(run_id, event.reason))

    def _resolve(self, event: Event, text: str) -> None:
        if event.op_id not in self._loop.pending:
            self._ledger.end(event.op_id)
            return
        try:
            value = codec.decode(text, self._requests)
        except SerializationError as error:
            # It was written by other code than this: no failure of the run.
            self._diverge(event.op_id, f"{event.kind} of {self._name(event)}: {text}", f"nothing, for {error}")
            return
        self._loop.resolve(event.op_id, event.at, value)

    def _resolve_with_error(self, event: Event, make: Callable[[], BaseException]) -> None:
        error = make() if event.op_id in self._loop.pending else None
        self._loop.resolve(event.op_id, event.at, error=error)

    def _name(self, event: Event) -> str:
        return self._ledger.issued[event.op_id].name

    # Hooks

    def _hook_created(self, event: events.HookCreated) -> None:
        hook = self._registering(event)
        if hook is not None:
            self._loop.run(hook.registered)

    def _hook_conflicted(self, event: events.HookConflicted) -> None:
        self._ledger.ended.add(event.op_id)
        hook = self._registering(event)
        if hook is not None:
            self._loop.run(hook.conflicted, event.owner)

    def _registering(self, event: events.HookCreated | events.HookConflicted) -> Hook[Any] | None:
        """The hook whose fate the event tells; None where that changes nothing any more."""
        self._created(event)
        hook = self._context.hooks.get(event.op_id)
        if hook is not None and hook.token != event.token:
            # A drawn one that was not committed, and drawn again: whoever fed this mixed two turns up.
            self._diverge(event.op_id, f"token {event.token!r}", f"token {hook.token!r}")
        if self.fault is None:
            self._loop.now = max(self._loop.now, event.at)
            return hook
        return None

    def _hook_received(self, event: events.HookReceived) -> None:
        hook = self._context.hooks.get(event.op_id)
        if hook is None or not hook.open:
            if event.request_id is not None:
                self._late[event.op_id].append(event.request_id)
            return
        self._loop.now = max(self._loop.now, event.at)
        self._loop.run(hook.put, self._received(event))

    def _received(self, event: events.HookReceived) -> Received:
        stamp = self._loop.stamp()
        if event.request_id is not None:
            return Received(stamp, request=self._requests[event.request_id])
        text = event.payload or "null"
        requests = {each: self._requests[each] for each in codec.request_ids(text) if each in self._requests}
        return Received(stamp, payload=text, requests=requests)


_HANDLERS: dict[type[Event], Callable[[Replay, Any], None]] = {
    events.RunStarted: Replay._start,
    events.RunCancelRequested: Replay._cancel,
    events.StepCreated: Replay._created,
    events.StepRetrying: lambda replay, event: None,
    events.StepCompleted: Replay._step_completed,
    events.StepFailedEvent: Replay._step_failed,
    events.StepCancelled: lambda replay, event: None,
    events.WaitCreated: Replay._created,
    events.WaitCompleted: Replay._wait_completed,
    events.WaitCancelled: lambda replay, event: None,
    events.HookCreated: Replay._hook_created,
    events.HookConflicted: Replay._hook_conflicted,
    events.HookReceived: Replay._hook_received,
    events.HookClosedEvent: lambda replay, event: None,
    events.ChildCreated: Replay._created,
    events.ChildCompleted: Replay._child_completed,
    events.ChildFailed: Replay._child_failed,
    events.ChildCancelled: Replay._child_cancelled,
    events.AttributesSet: Replay._attributes_set,
}
