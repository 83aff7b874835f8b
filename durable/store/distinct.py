"""The values that a column has, found by an index that begins with it."""

from __future__ import annotations

from sqlalchemy import Column, Connection, func, select

#: How many values ``distinct`` returns at most.
MOST_VALUES = 200


def distinct(tx: Connection, column: Column[str]) -> list[str]:
    """The texts in a column, in order: one probe of the index for each, in one statement."""
    probe = select(func.min(column).label("value")).cte("probe", recursive=True)
    following = select(func.min(column)).where(column > probe.c.value).scalar_subquery()
    every = probe.union_all(select(following).where(probe.c.value.is_not(None)))
    found = tx.execute(select(every.c.value).limit(MOST_VALUES)).scalars()
    return [value for value in found if value is not None]
