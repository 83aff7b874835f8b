"""Models of the bodies of control requests and answers.  Pydantic checks requests; OpenAPI describes both."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
)

from ..attributes import COUNT_LIMIT, NAME_LIMIT, VALUE_LIMIT

#: A run's id in a path.  An id with a slash cannot be used there, because paths are split at slashes.
RUN_ID = r"^[!-.0-~]{1,64}$"
#: A schedule's name in a path.  As with ids, one with a slash cannot be used there.
SCHEDULE = r"^[A-Za-z0-9][A-Za-z0-9._:@+-]{0,199}$"
#: A limit's name in a path.
LIMIT = r"^[!-.0-~]{1,100}$"
#: A request's id in a path.
REQUEST_ID = r"^[A-Za-z0-9_-]{20,64}$"
#: An ``Idempotency-Key``.
KEY = r"^[!-~]{1,255}$"

#: Databases do not accept NUL.
_NO_NUL = r"^[^\x00]+$"
_TEN_YEARS_SECS = 10 * 365 * 86_400

#: What Python counts as space, and control characters.
_SPACE = r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_ATTRIBUTES = {
    "type": "object",
    "maxProperties": COUNT_LIMIT,
    "propertyNames": {"pattern": rf"^[^{_SPACE}]([^\x00]*[^{_SPACE}])?$", "maxLength": NAME_LIMIT},
    "additionalProperties": {
        "anyOf": [
            # The limit is in bytes, which a JSON schema cannot say.
            {"type": "string", "pattern": r"^[\x01-\x7f]*$", "maxLength": VALUE_LIMIT},
            {"type": "string", "pattern": r"^[^\x00]*$", "maxLength": VALUE_LIMIT // 4},
        ]
    },
    "description": "Attributes that the run has from the start: texts by name.",
    "default": {},
}

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

Status = Literal["pending", "running", "completed", "failed", "cancelled", "blocked", "continued"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Start(_Strict):
    """A run to start."""

    workflow: Annotated[str, Field(min_length=1, max_length=255, description="The workflow's name.")]
    args: Annotated[
        list[Any] | dict[str, Any],
        Field(description="Its arguments, in order or by parameter name; checked against the workflow's annotations."),
    ] = []
    countdown: Annotated[float, Field(ge=0, le=_TEN_YEARS_SECS, description="Start after so many seconds.")] = 0.0
    #: ``durable.attributes`` checks them.
    attributes: Annotated[dict[str, str], WithJsonSchema(_ATTRIBUTES)] = {}


class Cancel(_Strict):
    """Why a run is to stop."""

    reason: Annotated[str | None, Field(max_length=255, description="Recorded in the log.")] = None


class Resume(_Strict):
    """A payload for the open hook of a token."""

    token: Annotated[str, Field(min_length=1, max_length=255)]
    payload: Annotated[Any, Field(description="Checked against the hook's type, if this process has imported it.")]


class Nothing(_Strict):
    """An empty object."""


#: A text of a few characters; "" stands for one that is not given.
_Word = Annotated[str, Field(min_length=1, max_length=200)]


class NewSchedule(_Strict):
    """A schedule to make; `create_schedule` says what each field means."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["cron"]}, {"required": ["every"]}]})

    workflow: Annotated[str, Field(min_length=1, max_length=255, description="The workflow's name.")]
    args: Annotated[
        list[Any] | dict[str, Any],
        Field(description="Its arguments, in order or by parameter name; checked against the workflow's annotations."),
    ] = []
    cron: Annotated[_Word, Field(description="Five fields.  Give either this or `every`.")] = ""
    every: Annotated[_Word, Field(description="An interval: `15m`.")] = ""
    tz: Annotated[_Word, Field(description="The time zone of `cron`, by its IANA name.")] = "UTC"
    overlap: Overlap = "skip"
    catch_up: CatchUp = "last"
    jitter: Annotated[_Word, Field(description="Starts each run up to so much later, by chance: `5m`.")] = ""
    until: Annotated[Moment | None, Field(description="No planned time is later.")] = None


class Range(_Strict):
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


class Query(BaseModel):
    """Which runs to list; each condition has to match."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[Status | None, Field(description="Only runs of this status.")] = None
    name: Annotated[
        Annotated[str, StringConstraints(max_length=255, pattern=_NO_NUL)] | None,
        Field(description="Only runs of this workflow."),
    ] = None
    attribute: Annotated[
        list[Annotated[str, StringConstraints(max_length=513, pattern=r"^[^\x00=]+=[^\x00]*$")]],
        Field(max_length=64, description="`NAME=VALUE`, any number of times: only runs with these attributes."),
    ] = []
    limit: Annotated[int, Field(ge=1, le=1000, description="The most to list.")] = 50
    after: Annotated[
        Annotated[str, StringConstraints(max_length=83, pattern=r"^[0-9]{1,18}\.[!-~]{1,64}$")] | None,
        Field(description="The `next` of the page before."),
    ] = None

    @field_validator("limit", mode="before")
    @classmethod
    def limit_is_digits(cls, text: object) -> object:
        """Refuse what pydantic also takes for an integer, such as ``1_0`` and ``5.0``."""
        if isinstance(text, str) and not (text.isascii() and text.isdigit()):
            raise ValueError("it must be written in digits")
        return text


class Started(BaseModel):
    """The run that was started."""

    id: str
    name: str
    status: Status


class Summary(Started):
    """A run, as `durable runs list` shows it; times in ISO 8601."""

    created_at: str
    started_at: str | None
    completed_at: str | None
    code_version: str | None


class Listed(Summary):
    """A run in a list."""

    attributes: dict[str, str]


class Runs(BaseModel):
    """Runs, newest first; `next` is the parameter `after` of the next page."""

    runs: list[Listed]
    next: str | None


class Details(Listed):
    """A run, as `durable runs show` shows it."""

    args: Any
    result: Any
    error: str | None
    parent: str | None
    scheduled_for: str | None
    generation: int | None
    previous_generation: str | None
    next_generation: str | None
    waiting_for: list[dict[str, Any]]


class ListedValue(BaseModel):
    """The latest value of a name; the time in ISO 8601."""

    name: str
    published_at: str
    value: Any


class Values(BaseModel):
    """The values that a run has published, by name."""

    values: list[ListedValue]


class Cancelling(BaseModel):
    """The run has been asked to stop."""

    id: str
    cancelled: Literal[True]


class Resumed(BaseModel):
    """The run has the payload in its inbox."""

    run_id: str


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


class LimitNumber(_Strict):
    """The number of a limit; null for the number in the code."""

    n: Annotated[_Whole | None, Field(description="How many at once or in a time.")]


class PausedKey(_Strict):
    """The key to resume; without it, all keys."""

    key: Annotated[Annotated[str, StringConstraints(max_length=255, pattern=_NO_NUL)] | None, Field()] = None


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


class Pending(BaseModel):
    """A request is recorded, and has no answer yet."""

    request_id: str
    status: Literal["pending"]


class Problem(BaseModel):
    """Problem details (RFC 9457); `code` is a stable word for programs."""

    type: str
    title: str
    status: int
    detail: str
    code: str
