"""Models of the bodies of control requests and answers, of runs."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StringConstraints, WithJsonSchema

from .. import duration
from ..attributes import COUNT_LIMIT, NAME_LIMIT, VALUE_LIMIT
from .schemas import DIGITS, NO_NUL, Status, Strict

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


class Start(Strict):
    """A run to start."""

    workflow: Annotated[str, Field(min_length=1, max_length=255, description="The workflow's name.")]
    args: list[Any] | dict[str, Any] = Field(
        [], description="Its arguments, in order or by parameter name; checked against the workflow's annotations."
    )
    countdown: Annotated[float, Field(ge=0, le=_TEN_YEARS_SECS, description="Start after so many seconds.")] = 0.0
    #: ``durable.attributes`` checks them.
    attributes: Annotated[dict[str, str], WithJsonSchema(_ATTRIBUTES)] = Field({})


class Cancel(Strict):
    """Why a run is to stop."""

    reason: Annotated[str | None, Field(max_length=255, description="Recorded in the log.")] = None


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
