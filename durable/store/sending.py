"""What work lists have in common: when a row's message is sent again."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, case


def growing(sends: ColumnElement[int], delay: int) -> Any:
    """*delay* microseconds, doubled with each time that the message was sent, up to 64 times."""
    return delay * case({0: 1, 1: 2, 2: 4, 3: 8, 4: 16, 5: 32}, value=sends, else_=64)
