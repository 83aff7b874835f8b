"""
Run all tests in two processes, side by side: those that start processes of their own, and the others.

``python tests/side_by_side.py [pytest's options]``.  What the others say is shown as it comes, what the live ones say
once they have ended; the last line sums all up.  The exit code is that of whichever failed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import IO

_COUNTED = re.compile(r"(\d+) (passed|failed|error|skipped|xfailed)s?\b")


def main() -> int:
    """Run both; the exit code."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        live = _begin("live", said)
        others = _begin("not live", subprocess.PIPE)
        assert others.stdout is not None
        last = ""
        for line in others.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
        codes = [others.wait(), live.wait()]
        said.seek(0)
        text = said.read()
    print(text, flush=True)
    summaries = (last, text.strip().rpartition("\n")[2])
    print(_sum_up(summaries, time.monotonic() - began))
    return max(codes)


def _begin(mark: str, output: int | IO[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pytest", "-m", mark, "-o", f"cache_dir=.pytest_cache/{mark.replace(' ', '-')}"]
    return subprocess.Popen(
        [*command, *sys.argv[1:]],
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parent.parent,
    )


def _sum_up(summaries: tuple[str, ...], secs: float) -> str:
    counts: Counter[str] = Counter()
    for summary in summaries:
        for number, what in _COUNTED.findall(summary):
            counts[what] += int(number)
    told = ", ".join(f"{counts[what]} {what}" for what in ("failed", "passed", "skipped", "error") if counts[what])
    return f"{'=' * 20} {told or 'no tests ran'} in {secs:.2f}s {'=' * 20}"


if __name__ == "__main__":
    sys.exit(main())
