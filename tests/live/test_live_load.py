"""A short load; ``make load`` does the long one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.live


def test_held_connections_and_traffic_of_all_sorts_leave_nothing_behind() -> None:
    """No 5xx, nothing lost, nothing recorded that was refused, own answers only; memory and threads come back."""
    command = [sys.executable, "-m", "load", "--secs", "3", "--held", "50", "--hold-secs", "2", "--rate", "40"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    report = json.loads(done.stdout)
    assert [report[name] for name in ("server_errors", "lost", "recorded_though_refused", "wrong")] == [0] * 4
    assert report["statuses"]["held"].get("200", 0) >= 50
    assert {"good", "repeated", "key reused", "forged", "oversized", "unknown", "other method", "malformed"} <= set(
        report["statuses"]
    )
    assert report["accepted"] > 100
