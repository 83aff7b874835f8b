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


def measured(*command: str) -> dict[str, object]:
    """The JSON that one of the small programs prints."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_held_requests_are_measured_under_asgi():
    """Five hundred are held by one uvicorn; what durable adds to the server's own memory stays below 20 KiB each."""
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    found = measured("bench.asgi_held", "--held", "500", "--database", "sqlite")

    assert found["held"] == 500
    assert 0 < found["kib_each"] - found["bare_kib_each"] < 20
    assert found["answer_p95_ms"] > 0


def test_calls_for_asyncio_are_measured():
    """Both forms of a read and of a start, and a hundred waiters."""
    found = measured("bench.async_calls", "--waiters", "100", "--database", "sqlite")

    calls = ("status in_thread_of_caller", "start in_thread_of_caller", "astatus in_threads", "astart in_threads")
    assert all(found[name]["ms"] > 0 and found[name]["cpu_ms"] > 0 for name in calls)
    assert found["reads_per_sec in_threads"] > 0
    assert found["waiters"] == 100
