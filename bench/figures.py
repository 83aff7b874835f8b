"""What a workload measures, what it must reach, and how the rounds' figures become a line of JSON and of a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class Target:
    """
    What the median of one figure must reach.

    Attributes:
        name: For the table.
        figure: A field or property of the workload's figures.
        at_most, at_least: The bound; one of the two.
        gate: Beyond this the exit status is 1.  Room for noise is in it; figures that are times have none.
    """

    name: str
    figure: str
    at_most: float | None = None
    at_least: float | None = None
    gate: float | None = None

    def is_reached(self, value: float) -> bool:
        """Whether *value* is within the bound."""
        return self._is_within(value, self.at_most if self.at_least is None else self.at_least)

    def is_passed(self, value: float) -> bool:
        """Whether *value* is within the gate."""
        return self.gate is None or self._is_within(value, self.gate)

    def _is_within(self, value: float, bound: float | None) -> bool:
        assert bound is not None, f"{self.name} has no bound"
        return value <= bound if self.at_least is None else value >= bound

    @property
    def bound(self) -> str:
        """The bound, to be read."""
        return f"≤ {self.at_most:g}" if self.at_least is None else f"≥ {self.at_least:g}"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The counts of a workload: its own are fields."""

    def scaled(self: S, factor: float) -> S:
        """The same with that part of each whole number, 2 at least; what is no whole number stays."""
        counts = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return type(self)(**{name: _part(count, factor) for name, count in counts.items()})


def _part(count: Any, factor: float) -> Any:
    if not isinstance(count, int):
        return count
    return count if count <= 2 else max(2, round(count * factor))


@dataclass(frozen=True, kw_only=True)
class Workload(Generic[S]):
    """
    One workload.

    Attributes:
        name: ``W1`` … ``W12``, ``F``.
        opened: Brings up what the rounds need, and gives the function that measures one round.  Its figures
            are a dataclass of numbers, None for what this form does not measure; ratios are properties.
        once: Measured in a single round, however many are asked for: it looks at a long course of things.
    """

    name: str
    title: str
    full: S
    short: S
    targets: Sequence[Target]
    opened: Callable[[Any, S], AbstractContextManager[Callable[[], object]]]
    once: bool = False


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over the rounds."""

    median: float
    min: float
    max: float

    def __str__(self) -> str:
        return f"{self.median:>10.4g} {self.min:>10.4g} {self.max:>10.4g}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """A workload's figures over its rounds, and those of the peers that were measured in the same rounds, by name."""

    workload: Workload[Any]
    sizes: Any
    rounds: int
    spreads: Mapping[str, Spread]
    peers: Mapping[str, Mapping[str, Spread]] = field(default_factory=dict)

    @property
    def judged(self) -> list[tuple[Target, float]]:
        """The targets whose figure was measured, with its median."""
        known = self.spreads
        return [(each, known[each.figure].median) for each in self.workload.targets if each.figure in known]

    @property
    def passed(self) -> bool:
        """Whether every figure is within its gate."""
        return all(target.is_passed(value) for target, value in self.judged)

    @property
    def _counts(self) -> dict[str, Any]:
        return {each.name: getattr(self.sizes, each.name) for each in fields(self.sizes)}

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "workload": self.workload.name,
            "title": self.workload.title,
            "rounds": self.rounds,
            "sizes": self._counts,
            "figures": {name: _rounded(spread) for name, spread in self.spreads.items()},
            "targets": [_told(target, value) for target, value in self.judged],
            "peers": {
                peer: {name: _rounded(spread) for name, spread in spreads.items()}
                for peer, spreads in self.peers.items()
            },
        }

    def lines(self) -> list[str]:
        """The report as lines of a table."""
        sizes = ", ".join(f"{name} {count}" for name, count in self._counts.items() if count is not None)
        head = f"{self.workload.name}  {self.workload.title} ({sizes}; rounds {self.rounds})"
        figures = [f"    {name:<32} {spread}" for name, spread in self.spreads.items()]
        beside = [
            f"    {f'{peer}: {name}':<32} {spread}"
            for peer, spreads in self.peers.items()
            for name, spread in spreads.items()
        ]
        columns = f"    {'':<32} {'median':>10} {'min':>10} {'max':>10}"
        return [head, columns, *figures, *beside, *map(_line, self.judged)]


def summed_up(workload: Workload[S], sizes: S, rounds: Sequence[object]) -> Report:
    """The medians and spreads of what each round measured."""
    names = _names(rounds[0])
    spreads = spreads_of([{name: getattr(each, name) for name in names} for each in rounds])
    return Report(workload=workload, sizes=sizes, rounds=len(rounds), spreads=spreads)


def spreads_of(rounds: Sequence[Mapping[str, float | None]]) -> dict[str, Spread]:
    """Each figure over the rounds; without those that no round has measured."""
    spreads = {}
    for name in rounds[0]:
        values = [value for each in rounds if (value := each[name]) is not None]
        if values:
            spreads[name] = Spread(median=statistics.median(values), min=min(values), max=max(values))
    return spreads


def _names(figures: Any) -> list[str]:
    ratios = [name for name, value in vars(type(figures)).items() if isinstance(value, property)]
    return [field.name for field in fields(figures)] + ratios


def _line(judged: tuple[Target, float]) -> str:
    target, value = judged
    verdict = "reached" if target.is_reached(value) else "not reached"
    gate = "" if target.is_passed(value) else f", and beyond the gate of {target.gate:g}"
    return f"    → {target.name}: {value:.3g}, must be {target.bound}: {verdict}{gate}"


def _told(target: Target, value: float) -> dict[str, Any]:
    return {
        "name": target.name,
        "figure": target.figure,
        "value": _significant(value),
        "at_most": target.at_most,
        "at_least": target.at_least,
        "gate": target.gate,
        "reached": target.is_reached(value),
        "passed": target.is_passed(value),
    }


def _rounded(spread: Spread) -> dict[str, float]:
    return {name: _significant(getattr(spread, name)) for name in ("median", "min", "max")}


def _significant(value: float) -> float:
    return float(f"{value:.4g}") if math.isfinite(value) else value


def ms(seconds: float) -> float:
    """Milliseconds."""
    return seconds * 1000


def p95(values: Sequence[float]) -> float:
    """What 95 % of the values are not above."""
    return sorted(values)[math.ceil(len(values) * 0.95) - 1]


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """*ours* by *theirs*; None when one of them was not measured."""
    return None if ours is None or theirs is None else ours / theirs
