"""How long the tests of each file took, so that a slow one is seen in CI."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

#: Shorter runs need no table.
_LONG_SECS = 60.0
_FILES = 40


def table(reports: Iterable[Any]) -> list[str]:
    """Lines with seconds: by process of xdist, live tests and others, and the slowest files."""
    by_process, by_kind, by_file = Counter[str](), Counter[str](), Counter[str]()
    tests: dict[str, set[str]] = {}
    for report in reports:
        file = report.nodeid.partition("::")[0]
        by_process[getattr(report, "worker_id", "main")] += report.duration
        by_kind["live" if "live" in report.keywords else "others"] += report.duration
        by_file[file] += report.duration
        tests.setdefault(file, set()).add(report.nodeid)
    if by_kind.total() < _LONG_SECS:
        return []
    return [
        *(f"{secs:8.1f} s  {name}" for counter in (by_process, by_kind) for name, secs in sorted(counter.items())),
        *(f"{secs:8.1f} s  {name}, {len(tests[name])} tests" for name, secs in by_file.most_common(_FILES)),
    ]
