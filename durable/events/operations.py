"""The events of a run's operations: steps, waits, hooks and child runs."""

from __future__ import annotations

from dataclasses import dataclass

from .event import Event, EventKind, Phase, define_event


@define_event(EventKind.STEP_CREATED, Phase.CREATED, value="args")
class StepCreated(Event):
    """The workflow called a step."""

    name: str
    digest: str
    args: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptEnded(Event):
    """
    The base of the events that end an attempt.

    ``started_at`` is when the attempt started, ``worker`` its process (``host:pid``), ``responded`` the ids of the
    requests that it answered.
    """

    attempt: int
    started_at: int | None = None
    worker: str | None = None
    responded: tuple[str, ...] = ()


@define_event(EventKind.STEP_RETRYING, value="error")
class StepRetrying(AttemptEnded):
    """An attempt failed; the next may start at ``due_at``."""

    error: str
    due_at: int


@define_event(EventKind.STEP_COMPLETED, Phase.ENDED, value="result")
class StepCompleted(AttemptEnded):
    """An attempt returned."""

    result: str


@define_event(EventKind.STEP_FAILED, Phase.ENDED, value="error")
class StepFailedEvent(AttemptEnded):
    """The step failed: its last attempt failed, or one that is not retried."""

    error: str


@define_event(EventKind.STEP_CANCELLED, Phase.ENDED)
class StepCancelled(Event):
    """The workflow no longer waits for the step: the call lost a race, or its task was cancelled."""


@define_event(EventKind.WAIT_CREATED, Phase.CREATED)
class WaitCreated(Event):
    """The workflow sleeps until ``due_at``."""

    digest: str
    due_at: int


@define_event(EventKind.WAIT_COMPLETED, Phase.ENDED)
class WaitCompleted(Event):
    """A sleep is over because its time came, or early by ``wake_up``."""

    early: bool = False


@define_event(EventKind.WAIT_CANCELLED, Phase.ENDED)
class WaitCancelled(Event):
    """The workflow no longer waits for the sleep."""


@define_event(EventKind.HOOK_CREATED, Phase.CREATED)
class HookCreated(Event):
    """The run holds the hook's token: the one that the workflow asked for, or a random one."""

    name: str
    digest: str
    token: str


@define_event(EventKind.HOOK_CONFLICTED, Phase.CREATED)
class HookConflicted(Event):
    """Another hook, of the run ``owner``, holds the token."""

    name: str
    digest: str
    token: str
    owner: str


@define_event(EventKind.HOOK_RECEIVED, value="payload")
class HookReceived(Event):
    """
    The hook received a payload (``payload``) or a webhook request (``request_id``).

    With both it is a question: a payload whose sender waits for the reply to ``request_id``.
    """

    payload: str | None = None
    request_id: str | None = None


@define_event(EventKind.HOOK_CLOSED, Phase.ENDED)
class HookClosedEvent(Event):
    """The workflow stopped listening."""


@define_event(EventKind.CHILD_CREATED, Phase.CREATED, value="args")
class ChildCreated(Event):
    """The workflow called another workflow, which runs as ``run_id``."""

    name: str
    digest: str
    args: str
    run_id: str


@define_event(EventKind.CHILD_COMPLETED, Phase.ENDED, value="result")
class ChildCompleted(Event):
    """The child run returned."""

    result: str


@define_event(EventKind.CHILD_FAILED, Phase.ENDED, value="error")
class ChildFailed(Event):
    """The child run failed."""

    error: str


@define_event(EventKind.CHILD_CANCELLED, Phase.ENDED)
class ChildCancelled(Event):
    """
    The child run was cancelled: by a caller, or because the workflow no longer waits for it.

    Attributes:
        reason: The caller's, ``""`` if it gave none; None where the workflow no longer waits.  Logs of older versions
            also have None for a caller who gave none.
    """

    reason: str | None = None
