"""``durable runs show`` and ``durable runs watch`` on terminals and on pipes."""

from __future__ import annotations

import json
import re
import signal

import pytest
import sqlalchemy as sa
from driving import settle, settle_family

from durable.store import schema

#: Each test starts processes, some of them on pseudo-terminals.
pytestmark = pytest.mark.slow


@pytest.fixture
def napping(yard):
    """A run that sleeps."""
    run = yard.engine.start(yard.module.nap, "a note")
    settle(yard.engine, run)
    return run


def test_show_draws_the_timeline(yard):
    """A row for each operation with its attempts; a table of what it waits for; plain text on a pipe."""
    run = yard.engine.start(yard.module.loading, "crate-1")
    settle_family(yard.engine, run)
    shown = yard.durable("runs", "show", run.id, COLUMNS="100")
    drawn = shown.stdout.partition("\ntimeline\n")[2].partition("\n\nsteps\n")[0].splitlines()

    assert shown.returncode == 0
    assert "\x1b" not in shown.stdout
    assert drawn[0].endswith("now")
    names = [line.split()[:2] for line in drawn[1:-1]]
    assert names[0] == ["r#1", "yard.lift"]
    assert sorted(name for _, name in names[1:]) == ["hook", "sleep", "webhook", "yard.weigh", "yard.weighing"]
    assert drawn[1].endswith("3 attempts")
    assert max(map(len, drawn)) <= 100
    assert re.search(r"^webhook .*/webhook/\.\.\. ", shown.stdout, re.MULTILINE)


def test_show_has_the_timeline_as_json(yard):
    """``timeline`` is the same rows: an operation, its attempts, and their times."""
    run = yard.engine.start(yard.module.weighing, "crate-2")
    settle(yard.engine, run)
    (row,) = yard.json("runs", "show", run.id)["timeline"]

    assert (row["operation"], row["kind"], row["name"], row["state"], row["attempts"]) == (
        "r#1",
        "step",
        "yard.weigh",
        "completed",
        1,
    )
    assert row["bars"][-1].keys() == {"kind", "state", "start", "end", "attempt", "worker"}
    assert row["start"] <= row["bars"][-1]["start"] <= row["end"]


def test_show_bounds_the_timeline(yard):
    """``--limit`` keeps the last operations."""
    run = yard.engine.start(yard.module.loading, "crate-3")
    settle_family(yard.engine, run)
    shown = yard.durable("runs", "show", run.id, "--limit", "2").stdout

    assert "yard.lift" not in shown.partition("\ntimeline\n")[2]
    assert "Earlier operations are not shown." in shown


def test_a_payload_cannot_write_on_the_terminal(yard):
    """Escapes in arguments and errors are shown as text, and a line of a value is not taken for a field."""
    text = "\x1b]0;title\x07\nstatus        completed\u202e"
    run = yard.engine.start(yard.module.broken, text)
    settle(yard.engine, run)

    with yard.on_terminal("runs", "show", run.id) as shown:
        assert shown.end() == 0
    for printed in (shown.text, yard.durable("runs", "show", run.id).stdout):
        assert "\\x1b]0;title\\x07" in printed
        assert "\x1b]" not in printed
        assert "\u202e" not in printed
        assert not re.search("^status +completed", printed, re.MULTILINE)


def test_an_ascii_stdout_gets_ascii(yard, napping):
    """Without UTF-8 the timeline has ASCII characters, and no text raises an error."""
    run = yard.engine.start(yard.module.nap, "é 日本")
    settle(yard.engine, run)
    shown = yard.durable("runs", "show", run.id, PYTHONIOENCODING="ascii")

    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.isascii()
    assert "-----" in shown.stdout
    assert "\\xe9" in shown.stdout


def test_a_terminal_has_colours(yard, napping):
    """On a terminal, the status and the bars have colours; `--no-color` turns them off."""
    texts = []
    for args in ((), ("--no-color",)):
        with yard.on_terminal("runs", "show", napping.id, *args) as shown:
            assert shown.end() == 0
            texts.append(shown.text)

    assert "\x1b[36mrunning\x1b[0m" in texts[0]
    assert "\x1b[34m───" in texts[0]
    assert "\x1b" not in texts[1]
    assert "───" in texts[1]


def test_watch_redraws_a_terminal_until_the_run_ends(yard, napping):
    """The second screen shows the timeline; at the end the first one is back, with the run as `show` prints it."""
    with yard.on_terminal("runs", "watch", napping.id, "--interval", "0.1") as watched:
        before = watched.read_until("yard.nap", "───", "until ")
        assert before.count("\x1b[?1049h") == 1
        assert "\x1b[?1049l" not in before
        napping.wake_up()
        settle(yard.engine, napping)
        assert watched.end() == 0

    left = watched.text.partition("\x1b[?1049l")[2]
    assert "completed" in left
    assert "a note" in left
    assert "\x1b[?25h" in watched.text


def test_ctrl_c_ends_watch_quietly(yard, napping):
    """Exit code 130, nothing on stderr, the screen and the cursor are back, and the run continues."""
    with yard.on_terminal("runs", "watch", napping.id) as watched:
        watched.read_until("yard.nap")
        watched.press(b"\x03")
        assert watched.end() == 130

    assert watched.text.rstrip().removesuffix("^C").endswith("\x1b[?25h\x1b[?1049l")
    assert napping.status == "running"

    with yard.started("runs", "watch", napping.id) as process:
        assert process.stdout is not None
        assert "run_created" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")


def test_watch_prints_a_line_for_each_event_on_a_pipe(yard, napping):
    """From the first event to the last, as they come; the exit code is 0 for a run that completes."""
    with yard.started("runs", "watch", napping.id, "--interval", "0.1") as process:
        assert process.stdout is not None
        first = [process.stdout.readline().split()[1] for _ in range(3)]
        napping.wake_up()
        settle(yard.engine, napping)
        rest, err = process.communicate(timeout=60)

    assert first == ["run_created", "run_started", "wait_created"]
    assert [line.split()[1] for line in rest.splitlines()] == ["wait_completed", "run_completed"]
    assert (process.returncode, err) == (0, "")


def test_the_exit_code_of_watch_is_the_outcome(yard, napping):
    """3 for a failed run, 4 for a cancelled one, 1 for one that does not exist."""
    failed = yard.engine.start(yard.module.broken, "no")
    settle(yard.engine, failed)
    napping.cancel("not needed")
    settle(yard.engine, napping)
    outcomes = [yard.durable("runs", "watch", run_id) for run_id in (failed.id, napping.id, "nobody")]

    assert [outcome.returncode for outcome in outcomes] == [3, 4, 1]
    assert "not needed" in outcomes[1].stdout
    assert (outcomes[2].stdout, "There is no run 'nobody'" in outcomes[2].stderr) == ("", True)


def test_watch_has_json(yard):
    """Each event is an object on a line of its own, also on a terminal."""
    run = yard.engine.start(yard.module.weighing, "crate-4")
    settle(yard.engine, run)
    with yard.on_terminal("runs", "watch", run.id, "--json") as watched:
        assert watched.end() == 0
    found = [json.loads(line) for line in watched.text.splitlines()]

    assert [event["kind"] for event in found][::3] == ["run_created", "step_completed"]
    assert found[0].keys() == {"seq", "at", "kind", "operation", "name"}


def test_watch_shows_that_a_run_is_blocked_and_goes_on(yard, napping):
    """A blocked run is a line without a number, since the log has no event for it; the watch does not end."""
    with yard.started("runs", "watch", napping.id, "--json", "--interval", "0.1") as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        with yard.engine.store.begin() as tx:
            mine = sa.update(schema.runs).where(schema.runs.c.id == napping.id)
            tx.execute(mine.values(status="blocked", blocked="(a diff)", blocked_version="old"))
        line = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)

    assert (line["kind"], line["seq"], process.returncode) == ("run_blocked", None, 130)


def test_generations_are_linked_and_watched_one_after_the_other(yard):
    """``runs show`` names the generation before and after; ``runs watch`` ends with the last one."""
    run = yard.engine.start(yard.module.hauling, 2)
    for number in range(3):
        settle(yard.engine, run.generations()[number])
    first, second, third = (each.id for each in run.generations())
    watched = yard.durable("runs", "watch", first)

    shown = yard.json("runs", "show", second)
    assert (shown["status"], shown["generation"]) == ("continued", 2)
    assert (shown["previous_generation"], shown["next_generation"]) == (first, third)
    assert watched.returncode == 0
    assert [line.split()[1] for line in watched.stdout.splitlines()] == [
        *["run_created", "run_started", "run_continued"] * 2,
        *["run_created", "run_started", "run_completed"],
    ]
