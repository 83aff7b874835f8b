"""
``python -m chaos.clusters [NAME …] [--short] [--rate R] [--keep FOLDER]``: set-ups of several servers, hurt under load.

One set-up prints its report as JSON; several print one table, and the reports of those that went wrong.
Exit code 1: something went wrong.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from .. import folder as folders
from .galera import Galera, GaleraAll
from .play import play
from .postgresql import PostgreSQLAsynchronous
from .rabbitmq import RabbitMQCluster
from .redis_alone import RedisAlone
from .sentinel import RedisSentinel, RedisSentinelTLS
from .set_up import SetUp

_ALL = (RedisAlone, RedisSentinel, RedisSentinelTLS, RabbitMQCluster, PostgreSQLAsynchronous, Galera, GaleraAll)
SET_UPS: dict[str, type[SetUp]] = {each.name: each for each in _ALL}

_COUNTED = ("lost", "twice", "wrong", "stuck", "slots", "mismatched", "broken", "died")


def main() -> int:
    """Do what the command line says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos.clusters")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SET_UPS)}; all without one")
    parser.add_argument("--short", action="store_true", help="only what the tests do")
    parser.add_argument("--only", default="", metavar="WORDS", help="only hurts with these words in their names")
    parser.add_argument("--rate", type=float, help="runs started a second")
    folders.add_option(parser)
    given = parser.parse_args()
    if unknown := set(given.names) - set(SET_UPS):
        parser.error(f"no such set-up: {', '.join(sorted(unknown))}")
    names = given.names or list(SET_UPS)
    if len(names) > 1:
        return _several(
            names, [*(["--short"] if given.short else []), *(["--rate", str(given.rate)] if given.rate else [])]
        )
    if missing := SET_UPS[names[0]].missing():
        parser.error(f"{names[0]} needs {', '.join(missing)}; .ci/services installs what the set-ups need")
    with folders.opened(given.keep, "durable-clusters-") as folder:
        report = play(SET_UPS[names[0]](folder), folder, short=given.short, only=given.only, rate=given.rate)
    print(json.dumps(report, indent=2))
    return 0 if report["good"] else 1


def _several(names: Sequence[str], options: Sequence[str]) -> int:
    """One process for each, since each imports the application for its own servers; a table of their reports."""
    reports = []
    for name in names:
        done = subprocess.run(
            [sys.executable, "-m", "chaos.clusters", name, *options], stdout=subprocess.PIPE, text=True, check=False
        )
        reports.append(json.loads(done.stdout) if done.stdout else {"set_up": name, "good": False, "hurts": []})
    print(_table(reports))
    for report in reports:
        if not report["good"]:
            print(json.dumps(report, indent=2))
    return 0 if all(report["good"] for report in reports) else 1


def _table(reports: Sequence[dict[str, Any]]) -> str:
    lines = [
        f"| set-up | what is done | work goes on after (s) | runs | {', '.join(_COUNTED)} |",
        "|---|---|--:|--:|--:|",
    ]
    for report in reports:
        counts = ", ".join(str(report.get(name, "?")) for name in _COUNTED)
        for hurt in report["hurts"]:
            after = "never" if hurt["goes_on_secs"] is None else hurt["goes_on_secs"]
            lines.append(f"| {report['set_up']} | {hurt['hurt']} | {after} | {report['runs']} | {counts} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
