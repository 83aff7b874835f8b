"""How the benchmark sums figures up, and when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as command
from bench import scale
from bench.bench import Bench
from bench.figures import Sizes, Target, Workload, p95, summed_up
from bench.site import Setup
from bench.workloads import WORKLOADS


@dataclass(frozen=True, kw_only=True)
class Counts(Sizes):
    runs: int
    rest_secs: float | None = None


@dataclass(frozen=True, kw_only=True)
class Figures:
    ours_ms: float
    plain_ms: float
    huge_ms: float | None = None

    @property
    def by_plain(self) -> float:
        return self.ours_ms / self.plain_ms


TARGET = Target(name="ours by plain", figure="by_plain", at_most=1.5, gate=4)


def workload(*rounds: Figures, once: bool = False, targets: tuple[Target, ...] = (TARGET,)) -> Workload[Counts]:
    """One that gives these figures."""

    @contextmanager
    def opened(_bench: Any, _sizes: Counts) -> Iterator[Any]:
        yield iter(rounds).__next__

    sizes = Counts(runs=10)
    return Workload(name="T", title="a test", full=sizes, short=sizes, targets=targets, opened=opened, once=once)


def figures(*ours: float) -> list[Figures]:
    return [Figures(ours_ms=each, plain_ms=10) for each in ours]


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    """Each round's figures were measured side by side: they are divided first."""
    rounds = [Figures(ours_ms=1, plain_ms=1), Figures(ours_ms=90, plain_ms=30), Figures(ours_ms=8, plain_ms=4)]

    spread = summed_up(workload(), Counts(runs=1), rounds).spreads["by_plain"]

    assert (spread.median, spread.min, spread.max) == (2, 1, 3)


def test_what_was_not_measured_is_left_out():
    """A figure that is None in every round has no spread, and its target is not judged."""
    missing = Target(name="huge", figure="huge_ms", at_most=1, gate=1)
    report = summed_up(workload(targets=(missing,)), Counts(runs=1), figures(1, 2))

    assert list(report.spreads) == ["ours_ms", "plain_ms", "by_plain"]
    assert report.judged == []


@pytest.mark.parametrize(
    ("ours", "reached", "passed"), [(15, True, True), (16, False, True), (40, False, True), (41, False, False)]
)
def test_a_target_is_missed_before_its_gate(ours: float, reached: bool, passed: bool):
    """Bounds count as within; between the two it is not reached, and does not fail."""
    (told,) = summed_up(workload(), Counts(runs=1), figures(ours)).to_json()["targets"]

    assert (reached, passed) == (told["reached"], told["passed"])


@pytest.mark.parametrize(("value", "reached", "passed"), [(1.4, True, True), (0.7, False, True), (0.6, False, False)])
def test_a_lower_bound_is_missed_from_below(value: float, reached: bool, passed: bool):
    """``at_least`` turns the target and its gate round."""
    target = Target(name="throughput", figure="by_plain", at_least=1.4, gate=0.7)

    assert (reached, passed) == (target.is_reached(value), target.is_passed(value))


def test_counts_are_scaled_and_seconds_are_not():
    """Whole numbers shrink, to 2 at least; a pause stays as it is."""
    assert Counts(runs=3, rest_secs=60.0) == Counts(runs=30, rest_secs=60.0).scaled(0.1)
    assert Counts(runs=2) == Counts(runs=10).scaled(0.01)


def test_the_p95_is_one_of_the_values():
    """Of a hundred the 95th; of few the greatest."""
    assert p95(range(1, 101)) == 95
    assert p95([3, 1, 2]) == 3


@pytest.mark.parametrize(("once", "rounds"), [(False, 3), (True, 1)])
def test_a_workload_is_measured_round_by_round(once: bool, rounds: int):
    """As often as asked for; one that looks at a long course of things, once."""
    with ExitStack() as stack:
        report = Bench(Setup(), stack, short=True, rounds=3, scale=1.0).measure(workload(*figures(1, 2, 3), once=once))

    assert rounds == report.rounds


@pytest.mark.parametrize(
    ("options", "ours", "status"),
    [([], 40, 0), ([], 41, 1), (["--continuation", "0"], 41, 0), (["--database", "sqlite"], 41, 0)],
)
def test_the_exit_status_tells_of_gates_where_the_targets_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], ours: float, status: int
):
    """Beyond a gate it is 1, with PostgreSQL, Redis and continuation; other setups have no targets of their own."""
    monkeypatch.setitem(WORKLOADS, "W1", replace(workload(*figures(ours)), name="W1"))

    assert status == command.main(["--only", "W1", "--rounds", "1", *options])
    assert '"by_plain"' in capsys.readouterr().out


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_target_names_a_figure_of_its_workload(name: str):
    """A target of a figure that is not there would never be judged."""
    figures = import_module(WORKLOADS[name].opened.__module__).Figures
    known = {*figures.__dataclass_fields__, *vars(figures)}

    assert {target.figure for target in WORKLOADS[name].targets} - known == set()


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_target_is_in_the_docs(name: str):
    """docs/explanation/performance.md tells each target's bound and gate as they are in the code."""
    told = (Path(__file__).parents[2] / "docs" / "explanation" / "performance.md").read_text()

    for target in WORKLOADS[name].targets:
        gate = "" if target.gate is None else f" {target.gate:g}"
        assert f"| {name} | {target.name} | {target.bound} |{gate} |" in told


def scaled(processes: int, *, beats: float, sweep: float, connections: int, cpu: float = 0.5) -> dict[str, Any]:
    """What a deployment of a size costs, as bench.scale counts it."""
    statements = {"all": beats + sweep, "beats": beats, "lease": 1.0, "sweep": sweep - 1.0}
    at_work = {"most_connections": {"database": connections, "broker": connections}, "statements_per_run": 24.0}
    return {
        "processes": processes,
        "idle": {"statements_per_sec": statements, "database_cpu_percent": cpu},
        "at_work": at_work,
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, []),
        ({"connections": 70}, ["database_connections_at_work", "broker_connections_at_work"]),
        ({"beats": 5.0, "sweep": 13.9}, ["idle_sweep_and_lease"]),
        ({"beats": 16.0}, ["idle_beats", "idle statements a second"]),
        ({"cpu": 1.2}, ["idle CPU time of the database"]),
    ],
)
def test_nothing_may_grow_faster_than_the_processes(change, named):
    """What does is named; so is an idle load over its target."""
    large = {"beats": 10.0, "sweep": 9.0, "connections": 50} | change

    compared = scale.compare(scaled(5, beats=2.5, sweep=2.0, connections=10), scaled(24, **large))

    assert compared["too_much"] == named
