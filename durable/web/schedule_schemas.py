"""Models of the bodies of control requests and answers, of schedules."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from .schemas import DIGITS, Strict

Overlap = Literal["skip", "queue", "allow", "cancel"]


CatchUp = Literal["none", "last", "all"]


def _require_text(given: object) -> object:
    """Refuse numbers, which pydantic would take for seconds since 1970."""
    if not isinstance(given, str):
        raise ValueError("it must be text: ISO 8601 with a UTC offset")
    return given


#: ISO 8601 with a UTC offset.
Moment = Annotated[AwareDatetime, BeforeValidator(_require_text), Field(strict=False)]


#: A text of a few characters; "" stands for one that is not given.
_Word = Annotated[str, Field(min_length=1, max_length=200)]


class NewSchedule(Strict):
    """A schedule to make; `create_schedule` says what each field means."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["cron"]}, {"required": ["every"]}]})

    workflow: Annotated[str, Field(min_length=1, max_length=255, description="The workflow's name.")]
    args: Annotated[
        list[Any] | dict[str, Any],
        Field(
            default_factory=list,
            description="Its arguments, in order or by parameter name; checked against the workflow's annotations.",
        ),
    ]
    cron: Annotated[_Word, Field(description="Five fields.  Give either this or `every`.")] = ""
    every: Annotated[_Word, Field(description="An interval: `15m`.")] = ""
    tz: Annotated[_Word, Field(description="The time zone of `cron`, by its IANA name.")] = "UTC"
    overlap: Overlap = "skip"
    catch_up: CatchUp = "last"
    jitter: Annotated[_Word, Field(description="Starts each run up to so much later, by chance: `5m`.")] = ""
    until: Annotated[Moment | None, Field(description="No planned time is later.")] = None


class Range(Strict):
    """Planned times to start runs for, with a UTC offset."""

    start: Moment
    end: Moment


class ScheduleQuery(BaseModel):
    """Which schedules to list."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=1000, description="The most to list."), DIGITS] = 50
    after: Annotated[
        Annotated[str, StringConstraints(max_length=200, pattern=r"^[!-~]+$")] | None,
        Field(description="The `next` of the page before."),
    ] = None


class ScheduleState(BaseModel):
    """What a schedule does."""

    name: str
    status: Literal["active", "paused", "ended"]


class ScheduleDetails(ScheduleState):
    """A schedule, as `durable schedules show` shows it; times in ISO 8601."""

    workflow: str
    timing: str
    tz: str
    overlap: Overlap
    catch_up: CatchUp
    jitter: str | None
    until: str | None
    declared: bool
    next: list[str]
    waits_for: str | None
    skipped: int
    runs: list[dict[str, str]]


class Schedules(BaseModel):
    """Schedules by name; `next` is the parameter `after` of the next page."""

    schedules: list[ScheduleDetails]
    next: str | None


class Triggered(BaseModel):
    """The run that was started."""

    name: str
    run_id: str


class Backfilled(BaseModel):
    """The runs that were started, by their planned times."""

    name: str
    run_ids: list[str]


class Deleted(BaseModel):
    """What was deleted."""

    name: str
    deleted: Literal[True]
