"""Models of the bodies of control requests and answers, of limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from .schemas import NO_NUL, WHOLE, Strict

_Whole = Annotated[int, Field(ge=1, le=2**31 - 1), WHOLE]


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
