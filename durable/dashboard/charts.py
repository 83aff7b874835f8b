"""Geometry of small plots.  The templates write the SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..display import WIDTH


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a small plot."""

    x: float
    y: float
    height: float
    failed: float


def columns(totals: Sequence[int], failed: Sequence[int], height: int) -> list[Column]:
    """The columns of a plot of runs: their heights, and how much of each has failed."""
    most = max(totals, default=0)
    if not most:
        return []
    each = WIDTH / len(totals)
    found = []
    for number, (total, bad) in enumerate(zip(totals, failed, strict=True)):
        tall = round(max(1.0, total * height / most), 1) if total else 0.0
        found.append(Column(round(number * each, 2), round(height - tall, 1), tall, round(bad * height / most, 1)))
    return found
