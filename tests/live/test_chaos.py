"""A short soak on Redis; ``make chaos`` does a long one, and one of RabbitMQ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.live


@pytest.mark.timeout(400)
def test_nothing_is_lost_while_everything_is_killed():
    """Lost 0, recorded twice 0, wrong 0, stuck 0, other answers 0, broken logs 0, by a ledger outside the system."""
    command = [sys.executable, "-m", "chaos", "--minutes", "0.5", "--seed", "11", "--broker", "redis"]
    done = subprocess.run(
        [*command, "--rate", "2"], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

    report = json.loads(done.stdout)
    assert sum(report["runs"].values()) >= 50
    assert report["requests_answered"] > 0
    assert sum(report["faults"].values()) >= 8
    assert report["acknowledgements_swallowed"] + sum(report["messages"].values()) > 0
