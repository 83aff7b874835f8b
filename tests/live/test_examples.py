"""``make demo`` is what the README says it is."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from eventually import eventually

pytestmark = pytest.mark.live

EXAMPLES = Path(__file__).parents[2] / "examples"


class Demo:
    """The demo as a process, with a temporary folder of its own; ``silence_secs`` is the longest."""

    def __init__(self, folder: Path, examples: Path = EXAMPLES) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.output = ""
        self.silence_secs = 0.0
        self._begun = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "demo"],
            cwd=examples,
            env={**os.environ, "TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def read(self, until: str | None = None) -> None:
        """Read on, to a text or to the end."""
        last = time.monotonic()
        while until is None or until not in self.output:
            chunk = os.read(self.process.stdout.fileno(), 65536)
            now = time.monotonic()
            self.silence_secs = max(self.silence_secs, now - last)
            last = now
            if not chunk:
                assert until is None, f"{until!r} is not in:\n{self.output}"
                break
            self.output += chunk.decode()
        self.secs = last - self._begun

    def processes(self) -> list[int]:
        """All that have its temporary folder in their environment, itself included."""
        mark = str(self.temporary).encode()
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if mark in _bytes_of(path)]

    def left(self) -> list[object]:
        return [*self.processes(), *self.temporary.iterdir()]


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture
def start(tmp_path):
    """Starts a demo; its process is gone afterwards."""
    started = []

    def start(*args):
        started.append(Demo(tmp_path, *args))
        return started[-1]

    yield start
    for demo in started:
        demo.process.kill()
        demo.process.communicate()


def test_the_demo_shows_three_faults_and_the_timeline(start):
    """
    It is never silent for more than 5 s, and takes less than a minute, also on a machine that does other things.

    On an idle one with two cores it takes 25 s, and is silent for 2 s.
    """
    demo = start()
    demo.read()

    assert demo.process.wait() == 0, demo.output
    passed = re.findall(r"^ +[\d.]+ s  ✓ (.*)$", demo.output, re.MULTILINE)
    assert [re.sub(r"process \d+", "process N", line) for line in passed[:-1]] == [
        "process N runs attempt: 2",
        "attempts that came to the end of the step: [2]",
        "the provider's connection broke: true",
        'answer of the step: [200, {"booked": "payment-7"}]',
        "how often the step ran: 1",
        "messages were lost: true",
        'the order waits for: ["sleep"]',
        "runs with the right result: 20",
        'status: "completed"',
        'result: {"paid": "payment-7", "label": "label of order-1 in a box"}',
    ]
    assert passed[-1].startswith("Everything was as promised")
    assert re.search(r"^r#1 +demo\.shop\.pack +✗+█+ .*, 2 attempts$", demo.output, re.MULTILINE)
    assert "\x1b" not in demo.output
    assert demo.left() == []
    assert demo.silence_secs < 5
    assert demo.secs < 60


def test_the_demo_fails_where_something_is_not_as_promised(start, tmp_path):
    """Here the program has no key by which the webhook knows the request that is sent again."""
    shutil.copytree(EXAMPLES / "demo", tmp_path / "demo")
    shop = tmp_path / "demo" / "shop.py"
    program = shop.read_text()
    assert ', dedupe="Idempotency-Key"' in program
    shop.write_text(program.replace(', dedupe="Idempotency-Key"', ""))
    demo = start(tmp_path)
    demo.read()

    assert demo.process.wait() == 1
    (failed,) = re.findall(r"^ +[\d.]+ s  ✗ (.*)$", demo.output, re.MULTILINE)
    assert failed.startswith('answer of the step: should be [200, {"booked": "payment-7"}], but is [410, ')
    assert "worker-1 | " in demo.output
    assert demo.left() == []


def test_ctrl_c_leaves_nothing(start):
    """All processes and files of the demo are gone when it has ended."""
    demo = start()
    demo.read("up: http://")
    assert len(demo.processes()) > 8
    demo.process.send_signal(signal.SIGINT)
    demo.read()

    assert demo.process.wait() == 130
    assert demo.left() == []


def test_a_demo_that_is_killed_leaves_nothing(start):
    """All processes and files of the demo are gone some seconds later."""
    demo = start()
    demo.read("up: http://")
    demo.process.kill()
    demo.process.wait()

    eventually(lambda: not demo.left(), within_secs=40)
    assert demo.left() == []
