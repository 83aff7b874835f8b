"""
The workloads W1 to W6 on a peer: a program of the peer's own environment, ``python -m program PEER``.

It reads lines ``{"workload": "W1", "sizes": {…}}`` from its standard input, measures one round of each, and writes the
figures as a line of JSON.  It needs nothing but the standard library and the module of the peer, which defines::

    open(environment) -> Peer      a context manager

A ``Peer`` starts the same workflows as ours (bench/workflows.py) and waits for them.  The figures have the names of our
own, so that both can be compared.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Any, Protocol

_IDLE_SECS = (0.02, 0.27)
_SLEEP_SECS = 1.0
_STEPS = 5

_draw = random.Random("peers")


class Peer(Protocol):
    """What a peer can do, in the words of our workloads."""

    def start(self, workflow: str, argument: float = 0) -> Any:
        """Start ``sequence``, ``fan_out``, ``sleeper`` or ``one_request``; return something to wait with."""

    def result(self, started: Any) -> Any:
        """Wait until it has ended; return its result."""

    def waits(self, started: Any) -> None:
        """Return once a ``one_request`` waits for its request."""

    def request(self, started: Any) -> Any:
        """Send a request to a ``one_request``, and wait for the answer of its step."""


def sequences(peer: Peer, sizes: dict[str, Any]) -> dict[str, float]:
    """W1: milliseconds from step to step, in runs of two lengths."""
    found = {}
    for name in ("short", "long"):
        first, last = peer.result(peer.start("sequence", sizes[name]))
        found[f"{name}_ms"] = (last - first) / (sizes[name] - 1) * 1000
    return found


def many_runs(peer: Peer, sizes: dict[str, Any]) -> dict[str, float]:
    """W2: steps a second, and the CPU time of all processes but the database, in milliseconds a step."""
    began, used = time.time(), cpu_secs()
    started = [peer.start("sequence", _STEPS) for _ in range(sizes["runs"])]
    ended = max(peer.result(each)[-1] for each in started)
    steps = sizes["runs"] * _STEPS
    return {"steps_per_sec": steps / (ended - began), "cpu_ms_a_step": (cpu_secs() - used) / steps * 1000}


def fan_out(peer: Peer, sizes: dict[str, Any]) -> dict[str, float]:
    """W3: seconds at the client."""
    began = time.perf_counter()
    if peer.result(peer.start("fan_out", sizes["wide"])) != sizes["wide"]:
        raise RuntimeError("the run has not gathered all results")
    return {"wide_secs": time.perf_counter() - began}


def sleeps(peer: Peer, sizes: dict[str, Any]) -> dict[str, float]:
    """W4: milliseconds late."""
    started = [peer.start("sleeper", _SLEEP_SECS) for _ in range(sizes["sleepers"])]
    stamps = [peer.result(each) for each in started]
    late = [(after - before - _SLEEP_SECS) * 1000 for before, after in stamps]
    return {"late_p50_ms": median(late), "late_p95_ms": p95(late)}


def requests(peer: Peer, sizes: dict[str, Any]) -> dict[str, float]:
    """W5: milliseconds from a request to its answer."""

    def once(pause: Callable[[], None]) -> float:
        started = peer.start("one_request")
        peer.waits(started)
        pause()
        began = time.perf_counter()
        peer.request(started)
        took = (time.perf_counter() - began) * 1000
        peer.result(started)
        return took

    busy = [once(_no_pause) for _ in range(sizes["busy"])]
    idle = [once(_pause) for _ in range(sizes["idle"])]
    return {
        "busy_p50_ms": median(busy),
        "busy_p95_ms": p95(busy),
        "idle_p50_ms": median(idle),
        "idle_p95_ms": p95(idle),
    }


def first_steps(peer: Peer, sizes: dict[str, Any]) -> dict[str, float]:
    """W6: milliseconds from the start call to the first line of the first step."""

    def once(pause: Callable[[], None]) -> float:
        pause()
        began = time.time()
        return float(peer.result(peer.start("sequence", 1))[0] - began) * 1000

    busy = [once(_no_pause) for _ in range(sizes["busy"])]
    idle = [once(_pause) for _ in range(sizes["idle"])]
    return {"busy_ms": median(busy), "idle_ms": median(idle)}


ROUNDS = {
    "W1": sequences,
    "W2": many_runs,
    "W3": fan_out,
    "W4": sleeps,
    "W5": requests,
    "W6": first_steps,
}


def p95(values: list[float]) -> float:
    """What 95 % of the values are not above."""
    return sorted(values)[-(-len(values) * 95 // 100) - 1]


def cpu_secs() -> float:
    """The CPU time that this program and the processes it has started have used."""
    group, total = os.getpgrp(), 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            if int(fields[2]) == group:
                total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def _pause() -> None:
    time.sleep(_draw.uniform(*_IDLE_SECS))


def _no_pause() -> None:
    pass


def main() -> None:
    """Answer one line after the other, until there are no more."""
    # The peers' libraries may print: the answers have a stream of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    opened: AbstractContextManager[Peer] = importlib.import_module(sys.argv[1]).open(os.environ)
    with opened as peer:
        peer.result(peer.start("sequence", 2))
        print(json.dumps({"ready": True}), file=answers, flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            print(json.dumps(ROUNDS[asked["workload"]](peer, asked["sizes"])), file=answers, flush=True)


if __name__ == "__main__":
    main()
