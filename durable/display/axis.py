"""An axis of time: where a time is on it, and its ticks."""

from __future__ import annotations

from dataclasses import dataclass

#: The width of an axis, in percent: an SVG without a view box does not distort text and patterns.
WIDTH = 100

#: Distances between the ticks of an axis, in microseconds.
_STEPS = [
    unit * factor
    for unit, factors in (
        (1_000, (1, 2, 5, 10, 20, 50, 100, 200, 500)),
        (1_000_000, (1, 2, 5, 10, 15, 30)),
        (60_000_000, (1, 2, 5, 10, 15, 30)),
        (3_600_000_000, (1, 2, 3, 6, 12)),
        (86_400_000_000, (1, 2, 5, 7, 14, 30, 90, 365)),
    )
    for factor in factors
]


@dataclass(frozen=True, slots=True)
class Axis:
    """A span of time as a horizontal axis."""

    start: int
    end: int

    @property
    def span(self) -> int:
        """Its length in microseconds, at least 1."""
        return max(1, self.end - self.start)

    def x(self, at: int) -> float:
        """Where a time is, from 0 to ``WIDTH``; times beyond an end are at the end."""
        return round(min(WIDTH, max(0.0, (at - self.start) * WIDTH / self.span)), 2)

    def width(self, start: int, end: int) -> float:
        """How wide a bar is."""
        return round(max(0.1, self.x(end) - self.x(start)), 2)

    def shows(self, start: int, end: int) -> bool:
        """Whether a bar is on the axis."""
        return start <= self.end and end >= self.start

    def ticks(self, most: int = 6) -> list[int]:
        """Round times on the axis, at most *most*."""
        step = next((step for step in _STEPS if self.span / step <= most), _STEPS[-1])
        first = -(-self.start // step) * step
        return list(range(first, self.end + 1, step))[: most + 1]

    def zoomed(self, factor: float) -> Axis:
        """The axis around the same middle, *factor* as long."""
        middle, half = (self.start + self.end) // 2, max(500, int(self.span * factor / 2))
        return Axis(middle - half, middle + half)

    def moved(self, share: float) -> Axis:
        """The axis moved by a share of its length."""
        by = int(self.span * share)
        return Axis(self.start + by, self.end + by)
