"""
``python -m bench``: every workload, or some, against their baselines, in the same run.

JSON, a line per workload, goes to standard output; the table to standard error.
Exit status 1: a ratio is beyond its gate.  Targets and gates are meant for
PostgreSQL and Redis with continuation on; with another setup the status is 0.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict

from . import bench, servers
from .figures import Report
from .site import Setup
from .workloads import WORKLOADS

ROUNDS = 5
SHORT_ROUNDS = 3


def main(arguments: Sequence[str]) -> int:
    """Measure what the command line asks for; the exit status."""
    options = _options(arguments)
    setup = Setup(
        database=options.database,
        broker=options.broker,
        continuation=options.continuation,
        first_turn=options.first_turn,
        prefetch=options.prefetch,
    )
    rounds = options.rounds or (SHORT_ROUNDS if options.short else ROUNDS)
    passed = True
    with bench.opened(
        setup, short=options.short, rounds=rounds, scale=options.scale, with_peers=options.peers
    ) as opened:
        for name in options.only:
            report = opened.measure(WORKLOADS[name])
            _show(report, setup, options.short)
            passed &= report.passed
    return 0 if passed or not setup.is_reference else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure durable against plain Celery.")
    parser.add_argument("--only", type=_names, default=list(WORKLOADS), metavar="W1,W2,…")
    parser.add_argument("--rounds", type=int, help=f"by default {ROUNDS}, or {SHORT_ROUNDS} with --short")
    parser.add_argument("--database", choices=servers.DATABASES, default=Setup.database)
    parser.add_argument("--broker", choices=servers.BROKERS, default=Setup.broker)
    parser.add_argument("--continuation", default=Setup.continuation, metavar="100ms|0")
    parser.add_argument("--first-turn", default=Setup.first_turn, metavar="0|20ms", help="first_turn_budget")
    parser.add_argument("--prefetch", type=int, default=Setup.prefetch, help="Celery's worker_prefetch_multiplier")
    parser.add_argument("--short", action="store_true", help="small sizes, for CI")
    parser.add_argument("--scale", type=float, default=1.0, help="that part of each count, e.g. 0.1")
    parser.add_argument("--peers", action="store_true", help="also DBOS, absurd and Restate, in W1 to W6 (PostgreSQL)")
    return parser.parse_args(arguments)


def _names(given: str) -> list[str]:
    names = [name.strip().upper() for name in given.split(",")]
    unknown = sorted(set(names) - set(WORKLOADS))
    if unknown:
        raise argparse.ArgumentTypeError(f"no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    return names


def _show(report: Report, setup: Setup, short: bool) -> None:
    print(json.dumps({**report.to_json(), **asdict(setup), "short": short}, ensure_ascii=False), flush=True)
    print("\n".join(report.lines()), file=sys.stderr, flush=True)


if __name__ == "__main__":
    # A time limit of CI's ends us so: what we have made goes all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
