"""
Run all tests in two processes, side by side: those that start processes of their own and the short ones, and the flows.

``python tests/side_by_side.py [pytest's options]``.  What the flows say is shown as it comes, what the others say
once they have ended; the last line sums all up.  The exit code is that of whichever failed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_COUNTED = re.compile(r"(\d+) (passed|failed|error|skipped|xfailed)s?\b")


#: Each process's share, one after the other: marks, and what pytest is to look at.
SHARES = {
    "flows": [["-m", "not live", "tests/flows"]],
    "others": [["-m", "live"], ["-m", "not live", "--ignore=tests/flows"]],
}


def main() -> int:
    """Run both; the exit code."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as said, ThreadPoolExecutor() as threads:
        others = threads.submit(_run, "others", said)
        flows = _run("flows", sys.stdout)
        code = max(flows.code, others.result().code)
        said.seek(0)
        print(said.read(), flush=True)
        print(_sum_up([*flows.summaries, *others.result().summaries], time.monotonic() - began))
    return code


@dataclass
class Outcome:
    """What became of a share: the greatest exit code, and pytest's last lines."""

    code: int = 0
    summaries: list[str] = field(default_factory=list)


def _run(share: str, to: IO[str]) -> Outcome:
    """Run a share, and copy what it says."""
    outcome = Outcome()
    for number, arguments in enumerate(SHARES[share]):
        command = [sys.executable, "-m", "pytest", "-o", f"cache_dir=.pytest_cache/{share}-{number}", *arguments]
        process = subprocess.Popen(
            [*command, *sys.argv[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).parent.parent,
        )
        last = ""
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=to, flush=True)
            last = line.strip() or last
        outcome.code = max(outcome.code, process.wait())
        outcome.summaries.append(last)
    return outcome


def _sum_up(summaries: Sequence[str], secs: float) -> str:
    counts: Counter[str] = Counter()
    for summary in summaries:
        for number, what in _COUNTED.findall(summary):
            counts[what] += int(number)
    told = ", ".join(f"{counts[what]} {what}" for what in ("failed", "passed", "skipped", "error") if counts[what])
    return f"{'=' * 20} {told or 'no tests ran'} in {secs:.2f}s {'=' * 20}"


if __name__ == "__main__":
    sys.exit(main())
