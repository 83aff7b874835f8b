"""The benchmark in its short form, made very small: that it measures, not how fast we are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.live


def test_two_workloads_are_measured_beside_their_baselines():
    """A line of JSON each, every figure more than 0; the status is 1 if a ratio is beyond its gate, and only then."""
    command = [sys.executable, "-m", "bench", "--short", "--only", "W1,W6", "--rounds", "2", "--scale", "0.1"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["workload"] for line in lines] == ["W1", "W6"], done.stderr[-4000:]
    for line in lines:
        assert tuple(line[k] for k in ("rounds", "database", "broker", "short")) == (2, "postgresql", "redis", True)
        for spread in line["figures"].values():
            assert 0 < spread["min"] <= spread["median"] <= spread["max"]
        assert line["targets"]
    passed = all(target["passed"] for line in lines for target in line["targets"])
    assert (0 if passed else 1) == done.returncode, done.stderr[-4000:]
    assert "must be ≤ 1.5" in done.stderr
