"""An upgrade of durable under load; by hand, ``python -m chaos.upgrade`` begins with other revisions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.live


@pytest.mark.timeout(300)
def test_old_and_new_processes_work_side_by_side():
    """Lost 0, done twice 0, wrong 0, stuck 0, and no attempt is repeated, while the database is migrated and after."""
    is_shallow = subprocess.run(
        ["git", "rev-parse", "--is-shallow-repository"], cwd=ROOT, capture_output=True, text=True
    )
    if is_shallow.stdout.strip() != "false":
        pytest.skip("The code of the revision before is in the history of the repository, which is not here.")
    done = subprocess.run(
        [sys.executable, "-m", "chaos.upgrade"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

    report = json.loads(done.stdout)
    assert report["attempts_again"] == 0
    assert min(report["started"].values()) > 0
    assert report["runs"] > report["started"]["before worker-1 was new"]
