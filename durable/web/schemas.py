"""
Models of the bodies of control requests and answers, of runs and hooks.

Pydantic checks requests; OpenAPI describes both.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)

from .. import duration
from ..attributes import COUNT_LIMIT, NAME_LIMIT, VALUE_LIMIT

#: A run's id in a path.  An id with a slash cannot be used there, because paths are split at slashes.
RUN_ID = r"^[!-.0-~]{1,64}$"
#: A schedule's name in a path.  As with ids, one with a slash cannot be used there.
SCHEDULE = r"^[A-Za-z0-9][A-Za-z0-9._:@+-]{0,199}$"
#: A limit's name in a path.
LIMIT = r"^[!-.0-~]{1,100}$"
#: The name of a workflow or a queue in a path.
LISTED_NAME = r"^[!-.0-~]{1,255}$"
#: The name of a receiver in a path.
RECEIVER = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
#: A request's id in a path.
REQUEST_ID = r"^[A-Za-z0-9_-]{20,64}$"
#: An ``Idempotency-Key``.
KEY = r"^[!-~]{1,255}$"

#: Databases do not accept NUL.
NO_NUL = r"^[^\x00]+$"
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


Status = Literal["pending", "running", "completed", "failed", "cancelled", "blocked", "continued"]


def _in_digits(text: object) -> object:
    """Refuse what pydantic also takes for an integer, such as ``1_0`` and ``5.0``."""
    if isinstance(text, str) and not (text.isascii() and text.isdigit()):
        raise ValueError("it must be written in digits")
    return text


def _whole(number: object) -> object:
    """JSON has one kind of number: 15.0 is an integer, too."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


#: For an integer in a body, after its limits.
WHOLE = BeforeValidator(_whole)

#: For a number in a query, after its limits.
DIGITS = BeforeValidator(_in_digits)


#: A duration with its units, in numbers that cannot add up to more than the calendar has.
_AGO = r"([0-9]{1,9}(\.[0-9]{1,3})?(ms|s)|[0-9]{1,5}(\.[0-9]{1,3})?[mhdw]){1,4}"
#: The beginning of a date and time; ``datetime.fromisoformat`` takes other forms too.
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:")


def _moment_or_ago(text: object) -> datetime | timedelta:
    """A parameter that is a time with a UTC offset, or how long ago."""
    if isinstance(text, str) and re.fullmatch(_AGO, text):
        return timedelta(microseconds=duration.to_micros(text))
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) and _ISO.match(text) else None
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() is None:
        raise ValueError(
            "it is neither how long ago, such as 1h30m, nor a time with a UTC offset, such as 2026-01-31T12:00:00Z;"
            " the + of an offset is %2B in a URL"
        )
    return moment


#: A time with a UTC offset, or how long ago, as ``list_runs`` takes it.
MomentOrAgo = Annotated[
    datetime | timedelta,
    PlainValidator(_moment_or_ago),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "pattern": f"^{_AGO}$"}]}),
]


class Strict(BaseModel):
    """Refuses unknown fields, and texts in the place of numbers."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Start(Strict):
    """A run to start."""

    workflow: Annotated[str, Field(min_length=1, max_length=255, description="The workflow's name.")]
    args: Annotated[
        list[Any] | dict[str, Any],
        Field(description="Its arguments, in order or by parameter name; checked against the workflow's annotations."),
    ] = []
    countdown: Annotated[float, Field(ge=0, le=_TEN_YEARS_SECS, description="Start after so many seconds.")] = 0.0
    #: ``durable.attributes`` checks them.
    attributes: Annotated[dict[str, str], WithJsonSchema(_ATTRIBUTES)] = {}


class Cancel(Strict):
    """Why a run is to stop."""

    reason: Annotated[str | None, Field(max_length=255, description="Recorded in the log.")] = None


class Fork(Strict):
    """Where to fork a run; without a step and an event, where it has failed."""

    from_step: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=NO_NUL)] | None,
        Field(description="Call this step again: its name, or the id of one call."),
    ] = None
    from_event: Annotated[
        int | None, Field(ge=1, le=2**53, description="Go on behind this event of the log, by its `seq`."), WHOLE
    ] = None
    reapply_payloads: Annotated[
        bool, Field(description="Whether the fork gets what came to the open hooks after that.")
    ] = True


class Resolve(Strict):
    """What has become of a step in doubt: its result, or why it has failed."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["result"]}, {"required": ["fail"]}]})

    step: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=NO_NUL)] | None,
        Field(description="The id of the step; needed only if several are in doubt."),
    ] = None
    result: Annotated[Any, Field(description="Checked against the step's type.")] = None
    fail: Annotated[
        str,
        StringConstraints(min_length=1, max_length=1000, pattern=NO_NUL),
        Field(description="It has failed, with this message."),
    ] = ""


class Resume(Strict):
    """A payload for the open hook of a token."""

    token: Annotated[str, Field(min_length=1, max_length=255)]
    payload: Annotated[Any, Field(description="Checked against the hook's type, if this process has imported it.")]


class Ask(Resume):
    """A payload for the open hook of a token, whose sender waits for the reply."""

    timeout: Annotated[
        Annotated[float, Field(ge=0, le=55)] | None,
        Field(description="How many seconds to wait for the reply; by default the setting `hold_timeout`."),
    ] = None


class Nothing(Strict):
    """An empty object."""


class Query(BaseModel):
    """Which runs to list; each condition has to match."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[Status | None, Field(description="Only runs of this status.")] = None
    name: Annotated[
        Annotated[str, StringConstraints(max_length=255, pattern=NO_NUL)] | None,
        Field(description="Only runs of this workflow."),
    ] = None
    attribute: Annotated[
        list[Annotated[str, StringConstraints(max_length=513, pattern=r"^[^\x00=]+=[^\x00]*$")]],
        Field(max_length=64, description="`NAME=VALUE`, any number of times: only runs with these attributes."),
    ] = []
    since: Annotated[
        MomentOrAgo | None,
        Field(description="Only runs that were created then or later: a time with a UTC offset, or how long ago."),
    ] = None
    until: Annotated[
        MomentOrAgo | None, Field(description="Only runs that were created before: given as `since` is.")
    ] = None
    paused: Annotated[Literal["true", "false"] | None, Field(description="`true`: only runs that are paused.")] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="The most to list."), DIGITS] = 50
    after: Annotated[
        Annotated[str, StringConstraints(max_length=83, pattern=r"^[0-9]{1,18}\.[!-~]{1,64}$")] | None,
        Field(description="The `next` of the page before."),
    ] = None


class Started(BaseModel):
    """The run that was started."""

    id: str
    name: str
    status: Status


class Summary(Started):
    """A run, as `durable runs list` shows it; times in ISO 8601."""

    paused_at: str | None
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
    forked_from: str | None
    forks: list[str]
    paused_by: list[dict[str, Any]]
    waiting_for: list[dict[str, Any]]


class Forked(Started):
    """A run that goes on where the run `forked_from` has stood."""

    forked_from: str


class Retried(Started):
    """The run that goes on: the run itself if it was blocked, its fork if it has failed."""

    forked_from: str | None


class Woken(BaseModel):
    """How many sleeps of a run were ended."""

    id: str
    ended: int


class Resolved(BaseModel):
    """The step whose outcome was recorded."""

    id: str
    step: str


class EventsQuery(BaseModel):
    """Which part of a log to list."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[int, Field(ge=0, le=2**53, description="Only events with a greater `seq`."), DIGITS] = 0
    limit: Annotated[int, Field(ge=1, le=1000, description="The most to list."), DIGITS] = 100


class LoggedEvent(BaseModel):
    """An event of a log without what it carries; the time in ISO 8601."""

    seq: int
    at: str
    kind: str
    operation: str
    name: str | None


class Events(BaseModel):
    """A part of a log; `next` is the `after` of the next one."""

    events: list[LoggedEvent]
    next: int | None


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


class Replied(BaseModel):
    """What the workflow has replied, as plain JSON."""

    request_id: str
    reply: Any


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
