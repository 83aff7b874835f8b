"""Follow docs/tutorial.md and the README word for word: write the files, run the commands, compare the output."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from eventually import eventually

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"

pytestmark = pytest.mark.live


@dataclass
class Command:
    """A line to type, and what it prints; ``…`` in that stands for anything."""

    line: str
    expected: str


def blocks() -> Iterator[tuple[str, str]]:
    """Language and text of each block of the page."""
    yield from re.findall(r"^```(\w+)\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)


def commands(console: str) -> Iterator[Command]:
    """What is typed in a block: lines that begin with ``$``, and ``^C``."""
    for part in re.split(r"^(?=\$ |\^C)", console, flags=re.MULTILINE):
        if part.strip():
            line, _, expected = part.partition("\n")
            yield Command(line.removeprefix("$ "), expected)


class Reader:
    """A reader of the tutorial, with a shell in an empty folder and ``durable dev`` in another terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables: dict[str, str] = {}
        self.dev: subprocess.Popen[bytes] | None = None
        own = {name: value for name, value in os.environ.items() if not name.startswith(("DURABLE_", "CELERY_"))}
        self.environment = own | {"PATH": f"{Path(sys.executable).parent}:{own['PATH']}"}

    def type(self, command: Command) -> None:
        if command.line == "^C":
            self.stop()
        elif command.line.endswith(" dev"):
            self.start(command.line)
        elif "=$(" in command.line:
            name, _, value = command.line.partition("=")
            self.variables[name] = self.said(f"echo {value}")
        else:
            self.compare(command)

    def compare(self, command: Command) -> None:
        """The command prints what the page says, if need be after a while."""
        written = "".join(".*" if part == "…" else re.escape(part) for part in _parts(command.expected.rstrip()))
        pattern = re.compile(written, re.DOTALL)
        printed = ""

        def as_shown() -> bool:
            nonlocal printed
            printed = self.said(command.line)
            return pattern.fullmatch(printed) is not None

        with suppress(pytest.fail.Exception):
            eventually(as_shown, 30)
        assert pattern.fullmatch(printed), (
            f"`{command.line}` is shown to print\n{command.expected}\nand prints\n{printed}"
        )

    def said(self, line: str) -> str:
        """What a command prints."""
        environment = self.environment | self.variables
        done = subprocess.run(["bash", "-c", line], cwd=self.folder, env=environment, capture_output=True, text=True)
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout.rstrip()

    def start(self, line: str) -> None:
        log = self.folder / "dev.log"
        with log.open("wb") as output:
            self.dev = subprocess.Popen(
                shlex.split(line), cwd=self.folder, env=self.environment, stdout=output, stderr=output
            )
        eventually(lambda: "ready; Ctrl-C" in log.read_text(), 60, "dev is ready")

    def stop(self) -> None:
        if self.dev is not None:
            self.dev.send_signal(signal.SIGINT)
            self.dev.wait(30)
            self.dev = None


def _parts(expected: str) -> list[str]:
    """The text and its ellipses; an ellipsis alone on its line stands for any number of lines."""
    return re.split(r"(…)", expected.replace("…\n", "…"))


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    reader.stop()


def test_the_tutorial_is_true(reader: Reader) -> None:
    """Every command prints what the page says."""
    typed = 0
    for language, text in blocks():
        if language == "python":
            (reader.folder / text.partition("\n")[0].removeprefix("# ")).write_text(text)
        elif language == "console":
            for command in commands(text):
                reader.type(command)
                typed += 1

    assert typed > 20


def test_the_first_program_of_the_readme_runs_as_it_stands(reader: Reader) -> None:
    """Its commands start everything, start a run, and show its result."""
    readme = (TUTORIAL.parents[1] / "README.md").read_text()
    program, shell = (
        re.findall(rf"^```{language}\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)[0] for language in ("python", "sh")
    )
    install, dev, start, show = (line.partition("  ")[0] for line in shell.splitlines())
    (reader.folder / "app.py").write_text(program)

    assert install == "pip install 'durable-celery[dev]'"
    reader.start(dev)
    run_id = reader.said(start)
    shown = eventually(
        lambda: (text := reader.said(show.replace("ID", run_id))) and "status        completed" in text and text, 60
    )
    assert "Hello, world!" in shown
