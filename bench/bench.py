"""What the workloads share: the setup, the size, and one site for those that need none of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property
from typing import Any

from . import site
from .figures import Report, Workload, summed_up
from .site import CHILDREN, Setup, Site


class Bench:
    """Workloads on one setup."""

    def __init__(self, setup: Setup, stack: ExitStack, *, short: bool, rounds: int, scale: float) -> None:
        self.setup = setup
        self.short = short
        self._rounds = rounds
        self._scale = scale
        self._stack = stack

    @cached_property
    def site(self) -> Site:
        """The site that workloads share; brought up when first used."""
        return self._stack.enter_context(site.opened(self.setup))

    def new_site(self, children: Sequence[int] = (CHILDREN,)) -> AbstractContextManager[Site]:
        """One for a workload that looks at its processes, fills its database, or needs workers of other sizes."""
        return site.opened(self.setup, children=children)

    def measure(self, workload: Workload[Any]) -> Report:
        """The workload's figures over its rounds."""
        sizes = (workload.short if self.short else workload.full).scaled(self._scale)
        with workload.opened(self, sizes) as measure_round:
            rounds = [measure_round() for _ in range(1 if workload.once else self._rounds)]
        return summed_up(workload, sizes, rounds)


@contextmanager
def opened(setup: Setup, *, short: bool, rounds: int, scale: float = 1.0) -> Iterator[Bench]:
    """A bench whose site is gone afterwards."""
    with ExitStack() as stack:
        yield Bench(setup, stack, short=short, rounds=rounds, scale=scale)
