"""``durable runs show``: the table of steps, why a run has failed, and the log with its values."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest
from click.testing import CliRunner
from driving import settle, settle_family

from durable.cli import main

SAFE = """
from celery import Celery
from durable import Durable, step, workflow

celery = Celery("safe", broker="memory://")
engine = Durable(celery, cipher="aes-gcm:env:SAFE_KEYS")

@step(name="safe.open", max_retries=0)
def open_safe(code: str) -> str:
    raise ValueError(f"wrong code {code}")

@workflow(name="safe.opening")
async def opening(code: str) -> str:
    return await open_safe(code)
"""


def show(*args: str) -> str:
    """What ``durable runs show`` prints, run in this process."""
    done = CliRunner().invoke(main, ["runs", "show", *args], prog_name="durable")

    assert done.exit_code == 0, done.output
    return done.stdout


def section(shown: str, title: str) -> list[str]:
    """The lines below a title, to the next empty line."""
    return shown.partition(f"\n{title}\n")[2].partition("\n\n")[0].splitlines()


@pytest.fixture
def loaded(yard):
    """A run with steps that have completed, one of them at its third attempt, and a webhook that is open."""
    yard.module.tries.clear()
    run = yard.engine.start(yard.module.loading, f"crate-{secrets.token_hex(4)}")
    settle_family(yard.engine, run)
    return run


@pytest.fixture
def failed(yard):
    """A run whose step has failed for good, with a webhook's URL in the error."""
    url = f"https://yard.example/.well-known/workflow/v1/webhook/{'t' * 43}"
    run = yard.engine.start(yard.module.dropping, url)
    settle(yard.engine, run)
    return run


def test_the_steps_of_a_run_are_a_table(loaded):
    """Name, attempts, worker and duration of each step; no error where an attempt has succeeded in the end."""
    header, *rows = (re.split(r" {2,}", line.rstrip()) for line in section(show(loaded.id), "steps"))

    assert header == ["step", "operation", "state", "attempts", "worker", "took", "error"]
    assert [row[:4] for row in rows] == [
        ["yard.lift", "r#1", "completed", "3"],
        ["yard.weigh", "r#2", "completed", "1"],
    ]
    assert all(re.fullmatch(r".+:\d+", row[4]) and re.fullmatch(r"[\d.]+ m?s", row[5]) for row in rows)
    assert all(len(row) == 6 for row in rows)


def test_a_failed_run_names_the_step_the_line_and_the_traceback(yard, failed):
    """As Python prints it, with the frames of durable folded; whole with --full."""
    shown, whole = show(failed.id), show(failed.id, "--full")
    lines = section(shown, "failed")
    traceback = shown.partition("\nfailed\n")[2]

    assert lines[0] == "step  yard.drop (r#1), after 2 attempts"
    assert re.fullmatch(rf"line  {re.escape(str(yard.folder))}/yard\.py:\d+ in drop", lines[1])
    assert re.search(
        r"^  Traceback .*\n    \[\d+ frames of durable\]\n    File .*yard\.py.*\n      raise Broken", traceback, re.M
    )
    assert "durable/attempts" not in shown
    assert "durable/attempts" in whole
    assert re.search(r"  Broken: dropped https://yard\.example/\S+…$", section(shown, "steps")[1].rstrip())


def test_a_run_that_fails_in_its_own_code_names_the_line(yard):
    """No step is named."""
    run = yard.engine.start(yard.module.broken, "no crane")
    settle(yard.engine, run)
    shown = json.loads(show(run.id, "--json"))

    assert shown["failure"]["step"] is None
    assert (shown["failure"]["function"], shown["failure"]["message"]) == ("broken", "no crane")
    assert shown["failure"]["file"] == f"{yard.folder}/yard.py"


def test_a_run_that_has_not_failed_has_no_failure(loaded):
    """Neither the section nor a value in JSON."""
    assert json.loads(show(loaded.id, "--json"))["failure"] is None
    assert "\nfailed\n" not in show(loaded.id)


def test_events_have_their_values(yard, failed):
    """Arguments, results and errors, decoded: the beginning on the event's line, and the whole with --full."""
    run = yard.engine.start(yard.module.nap, "n" * 200)
    settle(yard.engine, run)
    created = section(show(run.id, "--events"), "events")[1]
    errors = section(show(failed.id, "--events"), "events")

    assert re.search(r'run_created +r +yard\.nap +args \{"note": "n+…$', created.rstrip())
    assert "n" * 200 not in created
    assert "n" * 200 in show(run.id, "--events", "--full").partition("\nevents\n")[2]
    assert any(re.search("step_retrying .* Broken: dropped", line) for line in errors)


def test_json_has_the_same(failed):
    """Steps, failure and events, none of them shortened."""
    shown = json.loads(show(failed.id, "--events", "--json"))
    (step,) = shown["steps"]
    by_kind = {event["kind"]: event for event in shown["events"]}

    assert (step["name"], step["attempts"], step["state"]) == ("yard.drop", 2, "failed")
    assert step["error"].startswith("Broken: dropped https://yard.example/")
    assert step["started_at"] <= step["ended_at"]
    assert shown["failure"]["step"] == {"operation": "r#1", "name": "yard.drop", "attempts": 2}
    assert shown["failure"]["type"] == "Broken"
    assert "durable/attempts" in shown["failure"]["traceback"]
    assert by_kind["run_created"]["carries"] == "args"
    assert by_kind["run_started"]["carries"] is None
    assert by_kind["step_failed"]["value"]["type"] == "Broken"


@pytest.mark.parametrize("args", [(), ("--full",), ("--events",), ("--events", "--full")])
def test_tokens_are_masked_in_all_of_it(failed, args):
    """A webhook's URL in an argument, in an error and in its traceback has no token."""
    shown = show(failed.id, *args)

    assert "webhook/..." in shown
    assert "t" * 43 not in shown


def test_tokens_are_masked_in_the_json_of_steps_failure_and_events(failed):
    """``args`` and ``error`` of the run itself are exact in JSON, as before."""
    shown = json.loads(show(failed.id, "--events", "--json"))

    assert "t" * 43 not in json.dumps({name: shown[name] for name in ("steps", "failure", "events")})


def test_values_are_shown_only_where_the_process_has_the_key(tmp_path, monkeypatch):
    """Without the key the run, its steps and its log are shown, and each value says which key is missing."""
    (tmp_path / "safe.py").write_text(SAFE)
    (tmp_path / "drive.py").write_text(
        "import sys\nimport safe\nfrom driving import settle\nsafe.engine.migrate()\n"
        "run = safe.engine.start(safe.opening, 'swordfish')\nsettle(safe.engine, run)\nprint(run.id)\n"
    )
    flows = Path(__file__).parents[1] / "flows"
    base = {**os.environ, "DURABLE_DATABASE_URL": f"sqlite:///{tmp_path}/durable.db", "PYTHONPATH": str(flows)}
    keys = [f"{name}:{b64encode(name.encode() * 32).decode()}" for name in "ab"]

    def run(key: str, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**base, "SAFE_KEYS": key, "DURABLE_APP": "safe"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def shown(key: str) -> str:
        cli = "from durable.cli import main; main(prog_name='durable')"
        return run(key, "-c", cli, "runs", "show", run_id, "--events")

    run_id = run(keys[0], "drive.py").split()[-1]
    with_key, without = shown(keys[0]), shown(keys[1])

    assert "wrong code swordfish" in with_key
    assert "in open_safe" in with_key
    assert "swordfish" not in without
    assert "safe.open" in without
    assert "'a'" in section(without, "failed")[0]
