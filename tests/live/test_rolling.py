"""A rolling restart, as a deploy does it: on Redis here, on RabbitMQ by hand (``python -m chaos.rolling``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.live


@pytest.mark.timeout(120)
def test_nobody_notices_a_rolling_restart_under_load():
    """Nothing is lost or done twice, no attempt is done again, no sender sees an error or a connection that breaks."""
    done = subprocess.run(
        [sys.executable, "-m", "chaos.rolling"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

    report = json.loads(done.stdout)
    assert report["runs"] >= 30
    assert report["requests_answered"] > 0
