"""The events of the run itself: how it goes, and what its workflow sets, publishes and replies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from .event import Event, EventKind, Phase, define_event


@define_event(EventKind.RUN_CREATED, Phase.CREATED, value="args")
class RunCreated(Event):
    """
    The run was started.  ``args`` is the encoded object of arguments by parameter name.

    A later generation ``continues`` the run with this id, and is handed over its open hooks: for each, a dict of
    ``op_id name token label``.

    ``scheduled_for`` is the time for which a schedule has started it.

    A fork has the random numbers of the run ``seed``.  ``renamed`` has, by the fork's own id and tokens, those that the
    workflow saw in their place when the digests of the log were made.
    """

    name: str
    args: str
    continues: str | None = None
    handed_over: tuple[Mapping[str, str | None], ...] = ()
    scheduled_for: int | None = None
    seed: str | None = None
    renamed: Mapping[str, str] | None = None


@define_event(EventKind.RUN_STARTED)
class RunStarted(Event):
    """
    The first turn of the run began; the run's clock starts at ``at``.

    ``public_url`` is recorded so that a webhook's URL is the same on every replay, even after the setting changes.
    So is ``continue_at``, the ``seq`` from which ``should_continue_as_new`` is true.
    """

    public_url: str | None = None
    continue_at: int | None = None


@define_event(EventKind.RUN_COMPLETED, Phase.ENDED, value="result")
class RunCompleted(Event):
    """The workflow returned."""

    result: str


@define_event(EventKind.RUN_FAILED, Phase.ENDED, value="error")
class RunFailedEvent(Event):
    """The workflow raised."""

    error: str


@define_event(EventKind.RUN_CONTINUED, Phase.ENDED, value="args")
class RunContinued(Event):
    """The workflow continued as new: ``run_id`` is the next generation, with the arguments ``args``."""

    args: str
    run_id: str


@define_event(EventKind.RUN_CANCEL_REQUESTED)
class RunCancelRequested(Event):
    """``cancel`` was called: the workflow's next await raises CancelledError."""

    reason: str | None = None


@define_event(EventKind.RUN_CANCELLED, Phase.ENDED, value="error")
class RunCancelledEvent(Event):
    """The run ended after a cancel.  ``error`` is what the workflow raised instead of CancelledError, if anything."""

    error: str | None = None
    reason: str | None = None


@define_event(EventKind.RUN_FORKED)
class RunForked(Event):
    """
    The run goes on from here by itself: what comes before is the log of the run ``run_id``, up to its event ``until``.

    ``step`` is the call of a step that the fork makes again.
    """

    run_id: str
    until: int
    step: str | None = None


@define_event(EventKind.RUN_PAUSED)
class RunPaused(Event):
    """The run was paused at ``at``: by itself, or because its workflow or queue was (``by``: ``workflow checkout``)."""

    by: str | None = None
    reason: str | None = None


@define_event(EventKind.RUN_RESUMED)
class RunResumed(Event):
    """The run goes on since ``at``."""


@define_event(EventKind.MARKER_RECORDED, Phase.CREATED)
class MarkerRecorded(Event):
    """The workflow called ``patched(name)`` and takes the new way."""

    name: str


@define_event(EventKind.ATTRIBUTES_SET)
class AttributesSet(Event):
    """The run's attributes changed; None removes one."""

    attributes: Mapping[str, str | None] = field(default_factory=dict)


@define_event(EventKind.VALUE_PUBLISHED, value="value")
class ValuePublished(Event):
    """The workflow or one of its steps published a value."""

    name: str
    value: str


@define_event(EventKind.REPLY_SENT)
class ReplySent(Event):
    """The workflow replied to a question; the row of the request ``request_id`` has the reply."""

    request_id: str


@define_event(EventKind.EVENT_OMITTED)
class EventOmitted(Event):
    """The log that this one was forked from has an event of the kind ``was`` here: the call is made again."""

    was: str
