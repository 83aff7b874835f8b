"""
``python -m chaos [--minutes M] [--seed N] [--broker redis|rabbitmq] [--keep FOLDER]``: one soak.

Prints a report as JSON.  Nothing else stays; ``--keep`` has logs and data stay in a folder.
Exit code 1: something went wrong.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys

from . import folder
from .soak import Plan, say, soak


def main() -> int:
    """Run one soak; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--broker", choices=["redis", "rabbitmq"], default="redis")
    parser.add_argument("--rate", type=float, default=3.0, help="runs started a second")
    parser.add_argument("--pause", type=float, default=3.0, help="seconds from one fault to the next on average")
    parser.add_argument("--spoilt", type=float, default=0.15, help="share of messages lost or repeated")
    parser.add_argument("--only", nargs="*", default=[], help="only these faults")
    folder.add_option(parser)
    given = parser.parse_args()
    plan = Plan(
        seed=secrets.randbelow(10**6) if given.seed is None else given.seed,
        secs=given.minutes * 60,
        broker=given.broker,
        rate=given.rate,
        pause_secs=given.pause,
        spoilt=given.spoilt,
        only=tuple(given.only),
    )
    with folder.opened(given.keep, "durable-chaos-") as path:
        say(f"Seed {plan.seed}; logs in {path}")
        report = soak(plan, path)
    print(json.dumps(report, indent=2))
    return 0 if report["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
