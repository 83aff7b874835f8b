"""
What the models of several control routes share: names in paths, numbers, and a few bodies.

Pydantic checks requests; OpenAPI describes requests and answers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

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


class Strict(BaseModel):
    """Refuses unknown fields, and texts in the place of numbers."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Nothing(Strict):
    """An empty object."""


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
