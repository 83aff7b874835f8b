"""``durable hooks resume --reply``: the reply of the workflow, printed."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner, Result
from driving import settle

from durable.cli import main


def resume(*args: str) -> Result:
    return CliRunner().invoke(main, ["hooks", "resume", *args], prog_name="durable")


@pytest.fixture
def scales(yard, request):
    """The token of a run that replies; another thread does the work of its worker."""
    token = request.node.name
    run = yard.engine.start(yard.module.scales, token)
    settle(yard.engine, run)
    over, pause = threading.Event(), 0.01

    def work() -> None:
        while not over.wait(pause):
            settle(yard.engine, run)

    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(work)
        yield token
        over.set()
        working.result(20)
    run.cancel()
    settle(yard.engine, run)


def test_the_reply_is_printed(scales):
    """As text, and as JSON for programs."""
    printed = resume(scales, '"crate"', "--reply", "--timeout", "20s")
    assert (printed.exit_code, json.loads(printed.stdout)) == (0, {"kg": 5})
    as_json = resume(scales, '"crates"', "--reply", "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (0, {"reply": {"kg": 6}})


def test_a_run_that_ends_without_a_reply_is_told(scales):
    """The exit code is 1, and the message says what the run has done."""
    done = resume(scales, '"close"', "--reply")
    assert done.exit_code == 1
    assert "it took the payload, and ended without a reply" in done.output


def test_what_there_is_not_is_told(yard):
    """A reply in time, a hook, and --reply itself."""
    run = yard.engine.start(yard.module.scales, "nobody works")
    settle(yard.engine, run)
    late = resume("nobody works", '"crate"', "--reply", "--timeout", "10ms")
    assert (late.exit_code, "has not replied after" in late.output) == (1, True)
    (request_id,) = re.findall(r"durable hooks reply ([\w-]+)", late.output)
    still = CliRunner().invoke(main, ["hooks", "reply", request_id, "--timeout", "0"])
    assert (still.exit_code, request_id in still.output) == (1, True)
    settle(yard.engine, run)
    picked = CliRunner().invoke(main, ["hooks", "reply", request_id, "--json"])
    assert (picked.exit_code, json.loads(picked.stdout)) == (0, {"reply": {"kg": 5}})
    unknown = CliRunner().invoke(main, ["hooks", "reply", "nothing"])
    assert (unknown.exit_code, "No question has the id" in unknown.output) == (1, True)
    assert "No open hook has the token" in resume("no token", "1", "--reply").output
    misused = resume("nobody works", "1", "--timeout", "1s")
    assert (misused.exit_code, "--timeout needs --reply" in misused.output) == (2, True)
    run.cancel()
    settle(yard.engine, run)
