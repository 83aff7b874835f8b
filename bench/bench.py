"""What the workloads share: the setup, the size, and one site for those that need none of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

from . import site
from .figures import Report, Workload, spreads_of, summed_up
from .peers import beside
from .peers.beside import PeerProgram
from .site import CHILDREN, Setup, Site


class Bench:
    """Workloads on one setup."""

    def __init__(
        self, setup: Setup, stack: ExitStack, *, short: bool, rounds: int, scale: float, with_peers: bool = False
    ) -> None:
        self.setup = setup
        self.short = short
        self._rounds = rounds
        self._scale = scale
        self._stack = stack
        self._with_peers = with_peers

    @cached_property
    def site(self) -> Site:
        """The site that workloads share; brought up when first used."""
        return self._stack.enter_context(site.opened(self.setup))

    def new_site(self, children: Sequence[int] = (CHILDREN,)) -> AbstractContextManager[Site]:
        """One for a workload that looks at its processes, fills its database, or needs workers of other sizes."""
        return site.opened(self.setup, children=children)

    @cached_property
    def peers(self) -> list[PeerProgram]:
        """The other systems, if they are measured too; those that cannot be are left out."""
        opened = [self._stack.enter_context(beside.opened(name)) for name in beside.NAMES if self._with_peers]
        return [peer for peer in opened if peer is not None]

    def measure(self, workload: Workload[Any]) -> Report:
        """The workload's figures over its rounds, and in the same rounds those of the peers."""
        sizes = (workload.short if self.short else workload.full).scaled(self._scale)
        peers = self.peers if workload.name in beside.WORKLOADS else []
        rounds = []
        theirs: dict[str, list[dict[str, float]]] = {peer.name: [] for peer in peers}
        with workload.opened(self, sizes) as measure_round:
            for _ in range(1 if workload.once else self._rounds):
                rounds.append(measure_round())
                for peer in peers:
                    figures = peer.measure(workload.name, sizes)
                    theirs[peer.name] += [] if figures is None else [figures]
        report = summed_up(workload, sizes, rounds)
        return replace(report, peers={name: spreads_of(each) for name, each in theirs.items() if each})


@contextmanager
def opened(setup: Setup, *, short: bool, rounds: int, scale: float = 1.0, with_peers: bool = False) -> Iterator[Bench]:
    """A bench whose site is gone afterwards."""
    with ExitStack() as stack:
        yield Bench(setup, stack, short=short, rounds=rounds, scale=scale, with_peers=with_peers)
