"""
The workflow of a run as it executes: what one event of the log does to it.

``Replay`` reads the log and calls a method of ``Execution`` for each event.  A method resolves one operation, fills one
hook or changes one fact, and runs the workflow until it waits again.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .. import codec, events
from ..errors import RunCancelled, SerializationError
from ..events import Event
from ..http import Request
from ..registry import Workflow, definitions
from ..sandbox import ends_process
from . import failures
from .commands import Outcome, UnreadPayload
from .hooks import Received
from .loop import DurableLoop
from .mistakes import find_mistake
from .operations import CREATED, Created, describe
from .run_context import RunContext, child_run_id
from .run_info import RunInfo

_OF_THE_RUN = frozenset(
    {
        events.RunStarted,
        events.RunForked,
        events.RunCancelRequested,
        events.AttributesSet,
        events.ValuePublished,
        events.ReplySent,
    }
)
_OUTCOMES = frozenset(
    {
        events.StepCompleted,
        events.StepFailedEvent,
        events.WaitCompleted,
        events.ChildCompleted,
        events.ChildFailed,
    }
)


class Execution:
    """
    The execution of one workflow.

    Attributes:
        outcome: How the run ended, None while it goes on.
        late_requests: Ids of the webhook requests to hooks that the workflow had closed, by op id.
        requests: The webhook requests that the arguments and the events refer to, by id.
    """

    def __init__(self, workflow: Workflow[..., Any], info: RunInfo, args: str, requests: Mapping[str, Request]) -> None:
        """
        Args:
            args: The encoded arguments.
        """
        self.workflow = workflow
        self.info = info
        self.args = args
        self.requests = requests
        self.loop = DurableLoop(info.run_id)  # type: ignore[abstract]  # its other methods raise
        self.loop.passthrough_modules = workflow.passthrough_modules
        self.operations = self.loop.operations
        self.context = RunContext(self.loop, info, workflow)
        # A run that a receiver has started has its request from the beginning.
        self.context.taken |= codec.request_ids(args)
        self.outcome: Outcome | None = None
        self.late_requests: dict[str, list[str]] = collections.defaultdict(list)
        #: By op id the ids of child runs as the log has them: a fork refers to children of its origin.
        self._children: dict[str, str] = {}
        self._is_cancelling = False
        self._with_outcome: set[str] = set()

    def expects(self, event: Event) -> bool:
        """Whether the workflow has asked for the event's operation, which has no outcome yet; else note a fault."""
        if type(event) in _OF_THE_RUN:
            return True
        if event.op_id in self.context.handed_over.unclaimed and isinstance(event, events.HookReceived):
            return True
        if event.op_id not in self.operations.issued:
            recorded = describe(event) if isinstance(event, CREATED) else f"{event.kind} of {event.op_id}"
            self._diverge(event.op_id, recorded, "nothing")
        elif type(event) in _OUTCOMES:
            if event.op_id in self._with_outcome:
                self._diverge(event.op_id, f"two outcomes, the second is {event.kind}", "one")
            self._with_outcome.add(event.op_id)
        return self.operations.fault is None

    def _diverge(self, op_id: str, recorded: str, asked: str) -> None:
        self.loop.diverge(op_id, recorded, asked, self.loop.waiting_line(op_id))

    # Events of the run

    def start(self, event: events.RunStarted) -> None:
        """Call the workflow's function and run it until it waits; arguments that do not fit end the replay."""
        if self.loop.main is not None:
            return
        workflow = self.workflow
        try:
            bound = codec.decode_call(self.args, self.requests, workflow.signature)
        except SerializationError as error:
            # They matched the signature when the run was created, so the code has changed since.
            self._diverge_in_arguments(error)
            return
        try:
            definitions.fit_arguments(workflow, bound)
        except BaseException as error:  # validators are the author's code
            if ends_process(error):
                raise
            if self.operations.recorded:
                self._diverge_in_arguments(error)
            else:
                self._fail(error)
            return
        # The generation before may have left requests to answer.
        self.context.taken |= codec.request_ids(self.args)
        self.loop.start(workflow.function(*bound.args, **bound.kwargs), event.at)

    def _diverge_in_arguments(self, error: BaseException) -> None:
        takes = f"{self.workflow.name}{self.workflow.signature}: {error}"
        self.loop.diverge(events.ROOT, f"arguments {codec.shown_in_error(self.args)}", takes, self.workflow.place)

    def cancel(self, event: events.RunCancelRequested) -> None:
        """Cancel the main task, once; a run that has not started ends as cancelled."""
        if self.loop.main is None:
            self.outcome = Outcome(status="cancelled")
        elif not self._is_cancelling:
            self._is_cancelling = True
            self.loop.now = max(self.loop.now, event.at)
            # By call_soon, because a task that is cancelled before its first step never runs at all.
            self.loop.run(self.loop.call_soon, self.loop.main.cancel, event.reason)

    def set_attributes(self, event: events.AttributesSet) -> None:
        """Note that the log has this change of the run's attributes."""
        self.context.attributes.record(event.op_id, event.attributes)

    # Events of operations

    def check_created(self, event: Created) -> None:
        """Compare the record with the call.  A call made after its record was read was compared already."""
        asked = self.operations.issued[event.op_id]
        if not asked.matches(event):
            self._diverge(event.op_id, describe(event), describe(asked))
        elif isinstance(event, events.ChildCreated):
            self._children[event.op_id] = event.run_id

    def complete(self, event: events.StepCompleted | events.ChildCompleted) -> None:
        """Resolve a call with its result."""
        self.note_replies(event)
        if event.op_id not in self.loop.pending:
            self.operations.end(event.op_id)
            return
        try:
            value = codec.decode(event.result, self.requests)
        except SerializationError as error:
            # Other code wrote the value.  That is a divergence, and no failure of the run.
            name = self.operations.issued[event.op_id].name
            self._diverge(
                event.op_id, f"{event.kind} of {name}: {codec.shown_in_error(event.result)}", f"nothing, for {error}"
            )
            return
        self.loop.resolve(event.op_id, event.at, value)

    def fail(self, event: events.StepFailedEvent | events.ChildFailed | events.ChildCancelled) -> None:
        """Resolve a call with its exception."""
        self.note_replies(event)
        if event.op_id not in self.loop.pending:
            self.operations.end(event.op_id)
            return
        error: BaseException
        if isinstance(event, events.StepFailedEvent):
            error = failures.step_error(event, self.operations.issued[event.op_id].name, self.requests)
        elif isinstance(event, events.ChildFailed):
            error = failures.child_error(event, self._child_run_id(event.op_id), self.requests)
        else:
            error = RunCancelled(self._child_run_id(event.op_id), event.reason or None)
        self.loop.resolve(event.op_id, event.at, error=error)

    def note_replies(self, event: Event) -> None:
        """Note which questions an attempt has answered: the workflow's own replies to them come second."""
        if isinstance(event, events.AttemptEnded):
            self.context.replied.update(event.responded)

    def _child_run_id(self, op_id: str) -> str:
        return self._children.get(op_id) or child_run_id(self.info.run_id, op_id)

    def end_wait(self, event: events.WaitCompleted) -> None:
        """Resolve a sleep or a timeout."""
        self.loop.resolve(event.op_id, event.at)

    # Events of hooks

    def register_hook(self, event: events.HookCreated | events.HookConflicted) -> None:
        """The hook's token is this run's, or another run holds it."""
        if isinstance(event, events.HookConflicted):
            self.operations.ended.add(event.op_id)
        self.check_created(event)
        hook = self.context.hooks.get(event.op_id)
        if hook is not None and hook.token != event.token:
            # The random token of an uncommitted turn: the caller fed this object the log of another turn.
            self._diverge(event.op_id, f"token {event.token!r}", f"token {hook.token!r}")
        if self.operations.fault is not None:
            return
        self.loop.now = max(self.loop.now, event.at)
        if hook is None:
            return
        if isinstance(event, events.HookConflicted):
            self.loop.run(hook.mark_conflicted, event.owner)
        else:
            self.loop.run(hook.mark_registered)

    def receive(self, event: events.HookReceived) -> None:
        """Put a payload into its hook's queue; a request that came after the hook was closed is kept apart."""
        hook = self.context.hooks.get(event.op_id)
        unclaimed = self.context.handed_over.unclaimed.get(event.op_id)
        if unclaimed is None and (hook is None or not hook.open):
            if event.request_id is not None:
                self.late_requests[event.op_id].append(event.request_id)
            return
        self.loop.now = max(self.loop.now, event.at)
        stamp = self.loop.next_stamp()
        request = None if event.request_id is None else self.requests[event.request_id]
        text = event.payload if event.payload is not None or request is not None else "null"
        requests = {each: self.requests[each] for each in codec.request_ids(text or "") if each in self.requests}
        received = Received(stamp, payload=text, request=request, requests=requests)
        if unclaimed is not None:
            unclaimed.queue.append(received)
        elif hook is not None:
            self.loop.run(hook.put, received)

    def hand_over(self, event: events.HookReceived) -> None:
        """Leave a payload to the next generation: it came in one turn with the call of ``continue_as_new``."""
        outcome = self.outcome
        if outcome is not None and any(hook.op_id == event.op_id for hook in outcome.hooks):
            unread = UnreadPayload(self.loop.next_stamp(), event.op_id, event.payload, event.request_id)
            self.outcome = replace(outcome, unread=(*outcome.unread, unread))

    # The end

    def finish_if_over(self) -> None:
        """Make the end of the workflow the run's outcome, if it has ended."""
        main = self.loop.main
        if self.operations.fault is not None or self.outcome is not None or main is None:
            return
        if self.loop.continued is not None:
            if self._records_everything():
                # A run that was asked to cancel ends as cancelled, whatever its cleanup did.
                self.outcome = Outcome(status="cancelled") if self._is_cancelling else self.loop.continued
        elif main.done():
            self.finish(main)

    def _records_everything(self) -> bool:
        """Whether the workflow has asked for all that the log records; else note a fault."""
        unclaimed = next(iter(self.operations.recorded.values()), None)
        if unclaimed is not None:
            place = self.workflow.place
            # The loop notes no difference once the workflow has continued as new.
            self.operations.diverge(unclaimed.op_id, describe(unclaimed), "the end of the workflow", place)
        return unclaimed is None

    def finish(self, main: asyncio.Task[Any]) -> None:
        """
        Make the end of the main task the run's outcome.

        It is a fault when the log records more operations, or when the task raised a mistake in the code.
        """
        if not self._records_everything():
            return
        error: BaseException | None = asyncio.CancelledError() if main.cancelled() else main.exception()
        if error is not None and ends_process(error):
            raise error
        if self._is_cancelling:
            # A run that was asked to cancel ends as cancelled, whatever its cleanup did.
            value = None
            if error is not None and not isinstance(error, asyncio.CancelledError):
                value = codec.encode_error(error)  # its cleanup failed
            self.outcome = Outcome(status="cancelled", value=value)
            return
        if error is None:
            try:
                self.outcome = Outcome(status="completed", value=codec.encode(main.result(), "result"))
                self.loop.warn_unawaited()
                return
            except BaseException as refusal:  # encoding may call the author's code
                if ends_process(refusal):
                    raise
                error = refusal
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Make an error that nobody caught the run's outcome, or a fault if it is a mistake in the code."""
        workflow = self.workflow
        mistake = find_mistake(self.info.run_id, error, workflow.failure_exceptions, workflow.place)
        if mistake is not None:
            self.operations.fault = mistake
            return
        self.outcome = Outcome(status="failed", value=codec.encode_error(error), error=error)
