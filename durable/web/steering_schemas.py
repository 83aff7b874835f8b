"""Models of the bodies of control requests and answers, of schedules, receivers and limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator

from .schemas import NO_NUL, Query, Strict

#: As ``RequestOutcome``.
Outcome = Literal["started", "resumed", "waiting", "missed", "accepted", "rejected", "ignored", "unroutable"]
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

    limit: Annotated[int, Field(ge=1, le=1000, description="The most to list.")] = 50
    after: Annotated[
        Annotated[str, StringConstraints(max_length=200, pattern=r"^[!-~]+$")] | None,
        Field(description="The `next` of the page before."),
    ] = None

    @field_validator("limit", mode="before")
    @classmethod
    def limit_is_digits(cls, text: object) -> object:
        """As ``Query``."""
        return Query.limit_is_digits(text)


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


class ReceivedQuery(BaseModel):
    """Which requests to receivers to list; each condition has to match."""

    model_config = ConfigDict(extra="forbid")

    receiver: Annotated[
        Annotated[str, StringConstraints(max_length=64, pattern=r"^[!-~]+$")] | None,
        Field(description="Only requests to this receiver."),
    ] = None
    outcome: Annotated[
        list[Outcome],
        Field(max_length=8, description="Only requests with one of these outcomes."),
    ] = []
    limit: Annotated[int, Field(ge=1, le=1000, description="The most to list.")] = 50

    @field_validator("limit", mode="before")
    @classmethod
    def limit_is_digits(cls, text: object) -> object:
        """As ``Query``."""
        return Query.limit_is_digits(text)


class ReceiverSummary(BaseModel):
    """A receiver, and how many requests it has by outcome."""

    name: str
    url: str | None
    place: str | None
    rules: list[str]
    requests: dict[str, int]
    refused: int


class Receivers(BaseModel):
    """The receivers by name."""

    receivers: list[ReceiverSummary]


class ReceivedRequest(BaseModel):
    """A request to a receiver, and what became of it; times in ISO 8601."""

    id: str
    receiver: str
    received_at: str
    outcome: Outcome
    rule: str | None
    run_id: str | None
    token: str | None
    waits_until: str | None
    detail: str | None


class ReceivedRequests(BaseModel):
    """Requests to receivers, newest first."""

    requests: list[ReceivedRequest]


class Routed(BaseModel):
    """What became of a request that was routed again."""

    id: str
    outcome: Outcome
    run_id: str | None


class RoutedRequests(BaseModel):
    """What became of the request, or of each event if it is a batch."""

    requests: list[Routed]


def _as_whole(given: object) -> object:
    """JSON has one kind of number: 6.0 is the whole number 6."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


_Whole = Annotated[int, Field(ge=1, le=2**31 - 1), BeforeValidator(_as_whole)]


class LimitNumber(Strict):
    """The number of a limit; null for the number in the code."""

    n: Annotated[_Whole | None, Field(description="How many at once or in a time.")]


class PausedKey(Strict):
    """The key to resume; without it, all keys."""

    key: Annotated[Annotated[str, StringConstraints(max_length=255, pattern=NO_NUL)] | None, Field()] = None


class ListedLimit(BaseModel):
    """A limit and one of its keys; times in ISO 8601."""

    limit: str
    key: str
    of: Literal["attempts", "runs", "debounce"]
    n: int | None
    per: str | None
    set: bool
    in_use: int
    waiting: int
    oldest: str | None
    paused_until: str | None


class Limits(BaseModel):
    """The limits, each with the keys that are in use or waited for."""

    limits: list[ListedLimit]


class LimitSet(BaseModel):
    """The number that is in force; null for the number in the code."""

    limit: str
    n: int | None


class LimitResumed(BaseModel):
    """How many keys were paused."""

    limit: str
    ended: int
