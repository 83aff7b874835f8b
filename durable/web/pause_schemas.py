"""Models of the bodies of control requests and answers, of pauses and of actions on many runs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

from .schedule_schemas import Moment
from .schemas import NO_NUL, WHOLE, Status, Strict

Kind = Literal["workflow", "queue", "receiver"]

#: What chooses runs; at least one of these is given.
_CONDITIONS = ("status", "name", "attributes", "since", "until")

_SOME_ATTRIBUTES = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": 64,
    "propertyNames": {"pattern": r"^[^\x00]+$", "maxLength": 256},
    "additionalProperties": {"type": "string", "pattern": r"^[^\x00]*$", "maxLength": 256},
    "description": "Only runs with all of these attributes.",
}


class Why(Strict):
    """Why something is paused."""

    reason: Annotated[
        Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00]*$")] | None,
        Field(description="For the people who find it paused."),
    ] = None


_CHILDREN = Field(description="Whether to do it to the child runs too, and to theirs.")


class PauseRun(Why):
    """Why a run is paused, and whether its child runs are."""

    children: Annotated[bool, _CHILDREN] = False


class ResumeRun(Strict):
    """Whether the child runs are resumed too."""

    children: Annotated[bool, _CHILDREN] = False


class Bulk(Strict):
    """What is to be done to which runs; at least one condition is given."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": [name]} for name in _CONDITIONS]})

    action: Literal["cancel", "retry", "fork", "pause", "resume"]
    status: Annotated[Status, Field(description="Only runs of this status.")] = None  # type: ignore[assignment]
    name: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=NO_NUL)],
        Field(description="Only runs of this workflow."),
    ] = None  # type: ignore[assignment]
    attributes: Annotated[dict[str, str], WithJsonSchema(_SOME_ATTRIBUTES)] = None  # type: ignore[assignment]
    since: Annotated[Moment, Field(description="Only runs that were created then or later.")] = None  # type: ignore[assignment]
    until: Annotated[Moment, Field(description="Only runs that were created before.")] = None  # type: ignore[assignment]
    reason: Annotated[
        Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00]*$")] | None,
        Field(description="Why they are cancelled or paused."),
    ] = None
    from_step: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=NO_NUL)] | None,
        Field(description="Of a fork: the step to call again; without it and `from_event`, that which has failed."),
    ] = None
    from_event: Annotated[
        int | None,
        Field(ge=1, le=2**53, description="Of a fork: go on behind this event of each log, by its `seq`."),
        WHOLE,
    ] = None
    reapply_payloads: Annotated[
        bool, Field(description="Of a fork: whether it gets what came to the open hooks after that.")
    ] = True
    children: Annotated[
        bool, Field(description="Of a pause or a resume: whether to do it to the child runs too, which do not count.")
    ] = False
    dry_run: Annotated[bool, Field(description="Only say which runs it would be.")] = False
    limit: Annotated[int, Field(ge=1, le=1000, description="The most runs of this batch."), WHOLE] = 100
    after: Annotated[
        Annotated[str, StringConstraints(pattern=r"^[0-9]\.[0-9]{1,18}\.[0-9]{1,18}\.[!-~]{0,64}$")] | None,
        Field(description="The `next` of the batch before."),
    ] = None

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        given = {name for name in _CONDITIONS if getattr(self, name) is not None}
        if not given:
            raise ValueError(f"give at least one of {', '.join(_CONDITIONS)}")
        if self.from_step is not None and self.from_event is not None:
            raise ValueError("give from_step or from_event, not both")
        if self.attributes is not None and not 1 <= len(self.attributes) <= 64:
            raise ValueError("give 1 to 64 attributes")
        for text in (item for pair in (self.attributes or {}).items() for item in pair):
            if "\0" in text or len(text) > 256:
                raise ValueError("a name or value of an attribute is longer than 256 characters, or has a NUL")
        if "" in (self.attributes or {}):
            raise ValueError("a name of an attribute is empty")
        return self


class PauseCause(BaseModel):
    """Why something is paused; times in ISO 8601."""

    kind: Literal["run", "workflow", "queue", "receiver"]
    name: str | None
    paused_at: str
    reason: str | None


class ListedPause(PauseCause):
    """A paused workflow, queue or receiver, and how many runs it holds, counted up to 10,000."""

    runs: int
    resuming: bool


class ListedPauses(BaseModel):
    """What is paused by name, the oldest first."""

    pauses: list[ListedPause]


class PausedRun(BaseModel):
    """Whether the run is paused now: by itself, or because its workflow or its queue is."""

    id: str
    paused: bool


class PausedByName(BaseModel):
    """Whether it is paused now."""

    kind: Kind
    name: str
    paused: bool


class BulkDone(BaseModel):
    """A run to which it was done; for a fork also the new run."""

    id: str
    fork: str | None


class BulkRefused(BaseModel):
    """A run to which it was not done, and why."""

    id: str
    detail: str


class BulkResult(BaseModel):
    """
    What came of a batch; `next` is the `after` of the next one, null when all is done.

    A dry run has changed nothing: `count` is how many runs it would be, counted up to 10,000, and `runs` are the first.
    """

    count: int
    runs: list[BulkDone]
    refused: list[BulkRefused]
    dry_run: bool
    next: Annotated[str | None, Field()]
