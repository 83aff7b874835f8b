"""The short form of each set-up of several servers; ``make clusters`` does the long ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from servers import absent

from chaos.clusters.__main__ import SET_UPS

ROOT = Path(__file__).parents[2]
#: Those that take longest come first.
SHORT = ("galera", "rabbitmq", "postgresql", "sentinel", "redis")
#: So many are played at once: most of their time is waiting.
AT_ONCE = 3
#: Within this, one ends by itself, also on a busy machine.
LONGEST_SECS = 240

pytestmark = pytest.mark.live


def play(name: str) -> subprocess.CompletedProcess[str]:
    """Play one in a process of its own, which ends its servers if it is ended."""
    command = [sys.executable, "-m", "chaos.clusters", name, "--short"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            said = process.communicate(timeout=LONGEST_SECS)
        except subprocess.TimeoutExpired:
            process.terminate()
            said = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, *said)


@pytest.fixture(scope="module")
def playing(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """What the tests of this session play, side by side."""
    asked = {item.callspec.params["set_up"] for item in request.session.items if item.path == request.path}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        yield {name: threads.submit(play, name) for name in SHORT if name in asked and not SET_UPS[name].missing()}


def is_hurt_twice(report: dict[str, Any]) -> bool:
    cut, evicted = report["hurts"]
    return cut["connections_cut"] >= 100 and evicted["keys_evicted"] > 0


def lost_commits(report: dict[str, Any]) -> bool:
    """What an asynchronous standby lacks is counted, and nothing is lost of what began after its promotion."""
    found = report["of_earlier_runs"]
    return found["runs_lost"] + found["requests_lost"] + found["runs_waiting"] > 0


#: What else has to be so.
PROOFS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "redis": is_hurt_twice,
    "sentinel": lambda report: report["hurts"][0]["bytes_lost"] > 0,
    "postgresql": lost_commits,
    "rabbitmq": lambda report: report["hurts"][0]["node"].startswith("rabbitmq-"),
    "galera": lambda report: len(report["hurts"]) == 1,
}


@pytest.mark.timeout(2 * LONGEST_SECS)
@pytest.mark.parametrize("set_up", SHORT)
def test_nothing_is_lost_and_work_goes_on_after_each_hurt(set_up, playing):
    """Lost 0, recorded twice 0, wrong 0, stuck 0, ended processes 0, by a ledger outside the system."""
    if missing := SET_UPS[set_up].missing():
        absent(set_up, f"not installed: {', '.join(missing)}")
    done = playing[set_up].result()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

    report = json.loads(done.stdout)
    assert report["runs"] >= 8
    assert report["requests_answered"] > 0
    assert PROOFS[set_up](report)
