"""Models of the bodies of control requests and answers: streams."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from .schemas import DIGITS

#: The name of a stream in a path.
STREAM = r"^[^\x00-\x1f\x7f]{1,255}$"


class ListedStream(BaseModel):
    """A stream; `items` is how many were ever emitted.  Times in ISO 8601."""

    name: str
    items: int
    keep: int | None
    created_at: str
    closed_at: str | None
    is_over: bool


class Streams(BaseModel):
    """The streams of a run, by name."""

    streams: list[ListedStream]


class ItemsQuery(BaseModel):
    """Which part of a stream to list."""

    model_config = ConfigDict(extra="forbid")

    start: Annotated[int, Field(ge=0, le=2**53, description="The number of the first item."), DIGITS] = 0
    limit: Annotated[int, Field(ge=1, le=500, description="The most to list."), DIGITS] = 100


class ListedItem(BaseModel):
    """An item of a stream; the time in ISO 8601."""

    number: int
    at: str
    item: Any
    step: str | None
    attempt: int | None
    discards: bool


class Items(BaseModel):
    """A part of a stream; `next` is the `start` of the next one."""

    items: list[ListedItem]
    next: int
    is_over: bool
