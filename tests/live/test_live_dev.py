"""``durable dev`` as a user has it: real processes, stopped together."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from eventually import eventually

from durable.broker import embedded
from durable.cli import dev

pytestmark = pytest.mark.live

DURABLE = str(Path(sys.executable).with_name("durable"))
PROGRAM = dev.FIRST_STEPS[dev.FIRST_STEPS.index("# app.py") : dev.FIRST_STEPS.index("\nAnd in another")]


class Dev:
    """``durable dev`` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("DURABLE_", "CELERY_"))
        }
        self.log = folder / "dev.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [DURABLE, "--app", "app", "dev"],
                cwd=folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        eventually(lambda: "ready; Ctrl-C" in self.log.read_text() or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.log.read_text()

    @property
    def address(self) -> str:
        (line,) = [line for line in self.log.read_text().splitlines() if "| web " in line and "http://" in line]
        return line.split()[-1]

    def durable(self, *args: str) -> str:
        return subprocess.run(
            [DURABLE, "--app", "app", *args],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout

    def children(self) -> dict[int, str]:
        """Every process below dev: pid and command line."""
        found: dict[int, str] = {}
        parents = {self.process.pid}
        while parents:
            parents = {pid for pid in _pids() if _parent(pid) in parents}
            found |= {pid: Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in parents}
        return found


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _parent(pid: int) -> int | None:
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state in "ZX" else int(parent)


def is_running(pid: int) -> bool:
    return _parent(pid) is not None


@contextmanager
def beginners(folder):
    """``durable dev`` with the program that it shows to beginners."""
    (folder / "app.py").write_text(PROGRAM)
    dev = Dev(folder)
    try:
        yield dev
    finally:
        if dev.process.poll() is None:
            dev.process.send_signal(signal.SIGTERM)
            dev.process.wait(timeout=30)


@pytest.fixture
def running(tmp_path):
    """One that the test may change and end."""
    with beginners(tmp_path) as dev:
        yield dev


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """One for all tests that only use it."""
    with beginners(tmp_path_factory.mktemp("dev")) as dev:
        yield dev


def test_the_program_shown_has_fifteen_lines():
    """It is what the message promises."""
    assert len(PROGRAM.strip().splitlines()) == 15


def test_the_program_shown_runs(lasting):
    """What a beginner copies works: a run started by the command that stands below it completes."""
    run_id = json.loads(lasting.durable("start", "app:hello", '["world"]', "--json"))["id"]
    shown = {}

    def completed() -> bool:
        shown.update(json.loads(lasting.durable("runs", "show", run_id, "--json")))
        return shown["status"] == "completed"

    eventually(completed)
    assert shown["result"] == "Hello, world!"
    assert json.loads(lasting.durable("doctor", "--json"))["ok"]


def test_an_application_without_a_web_app_gets_a_bare_one(lasting):
    """The blueprint answers, also to a token that nobody knows."""
    url = f"{lasting.address}/.well-known/workflow/v1/webhook/{'x' * 43}"

    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(url, b"{}"), timeout=10)
    with caught.value as answer:
        assert (answer.code, answer.headers["Content-Type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(running, signum):
    """Ctrl-C leaves no process and no socket behind, and is no failure."""
    pids = running.children()
    running.process.send_signal(signum)

    assert running.process.wait(timeout=30) == 0
    assert len(pids) >= 6
    assert not any(is_running(pid) for pid in pids)
    assert not embedded.answers(embedded.socket_path(running.folder))


def test_a_child_that_dies_stops_all(running):
    """The exit code says that it was no ordinary end."""
    pids = running.children()
    (gunicorn,) = [pid for pid, command in pids.items() if "gunicorn" in command and _is_leader(pid)]
    os.kill(gunicorn, signal.SIGKILL)

    assert running.process.wait(timeout=30) == 128 + signal.SIGKILL
    assert not any(is_running(pid) for pid in pids)


def test_nobody_outlives_a_killed_dev(running):
    """SIGKILL of the supervisor ends the worker, the web app and the broker too."""
    pids = running.children()
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()

    eventually(lambda: not any(is_running(pid) for pid in pids), 30)


def started(running, argument: str = '["world"]') -> str:
    return json.loads(running.durable("start", "app:hello", argument, "--json"))["id"]


def status(running, run_id: str) -> str:
    """From the database: no command works while the program has an error."""
    with closing(sqlite3.connect(running.folder / ".durable" / "durable.db")) as database:
        (found,) = database.execute("SELECT status FROM durable_runs WHERE id = ?", [run_id]).fetchone()
    return str(found)


@pytest.mark.timeout(240)
def test_a_change_is_reloaded_and_an_error_in_it_waits_for_the_next(running):
    """A run goes on through both; the error is shown with its line, and the old code serves meanwhile."""
    program = running.folder / "app.py"
    asleep = started(running)
    program.write_text(PROGRAM.replace("Hello, {name}!", "Hello, {name"))
    eventually(lambda: "Waiting for the next change" in running.log.read_text(), 60)
    assert "SyntaxError" in running.log.read_text()
    assert running.process.poll() is None
    assert status(running, asleep) in ("running", "completed")

    program.write_text(PROGRAM.replace("Hello, {name}!", "Good day, {name}!"))
    eventually(lambda: _greets(running, "Good day"), 90)
    eventually(lambda: status(running, asleep) == "completed", 60)


def _greets(running, word: str) -> bool:
    run_id = started(running)
    eventually(lambda: status(running, run_id) == "completed", 60)
    return word in json.loads(running.durable("runs", "show", run_id, "--json"))["result"]


@pytest.mark.timeout(120)
def test_each_event_of_a_run_has_a_line(lasting):
    """In place of Celery's two lines for each task, with their ids."""
    run_id = started(lasting)
    begins = f"run     | hello {run_id[:12]}… "
    eventually(lambda: f"{begins}completed in " in lasting.log.read_text(), 60)

    lines = [line.removeprefix(begins) for line in lasting.log.read_text().splitlines() if line.startswith(begins)]
    assert [re.sub(r"[\d.]+ s", "_ s", line) for line in lines] == [
        "started",
        "sleeps for _ s",
        "greet completed in _ s",
        "completed in _ s",
    ]
    assert "durable.drive" not in lasting.log.read_text()
    assert "/durable/" in lasting.log.read_text()


def _is_leader(pid: int) -> bool:
    """Return whether a process leads its group but not its session: a command, not its supervisor or its child."""
    return os.getpgid(pid) == pid and os.getsid(pid) != pid
