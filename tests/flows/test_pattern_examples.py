"""The programs of docs/how-to/patterns.md: each does what the page says of it."""

from __future__ import annotations

import importlib.util
import re
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from driving import kinds, settle, work

from durable import Durable, HookNotFound, Run, RunCancelled, RunFailed, duration, get_hook, resume_hook
from durable.turns.drive import drive

ROOT = Path(__file__).parents[2]
PATTERNS = ROOT / "examples" / "patterns"


def program(name: str) -> ModuleType:
    """The module of a pattern, imported once."""
    full = f"patterns_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, PATTERNS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


def steps_of(run: Run[Any]) -> list[str]:
    """The short names of the steps that the run called, in order."""
    return [event.name.rpartition(".")[2] for event in run.events() if event.kind == "step_created"]  # type: ignore[attr-defined]


def test_the_page_shows_the_programs_as_they_are() -> None:
    """docs/how-to/patterns.md holds each file of examples/patterns, word for word, and no other program."""
    shown = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs" / "how-to" / "patterns.md").read_text(), re.DOTALL | re.MULTILINE
    )

    assert sorted(shown) == sorted(path.read_text() for path in PATTERNS.glob("*.py"))


def test_a_saga_that_succeeds_undoes_nothing(engine: Durable) -> None:
    """Both bookings stay."""
    run = program("saga").book_trip.start("Rome", 900)
    settle(engine, run)

    assert run.result(timeout=0) == ["flight for Rome", "hotel for Rome"]
    assert "cancel_booking" not in steps_of(run)


def test_a_saga_that_fails_undoes_in_reverse(engine: Durable) -> None:
    """The hotel is cancelled before the flight, and the run fails with the error that began it."""
    run = program("saga").book_trip.start("Rome", 100)
    settle(engine, run)

    with pytest.raises(RunFailed, match="Rome costs 500"):
        run.result(timeout=0)
    undone = [event.result for event in run.events() if event.kind == "step_completed"][2:]  # type: ignore[attr-defined]
    assert undone == ['"cancelled: hotel for Rome"', '"cancelled: flight for Rome"']


def test_a_saga_that_is_cancelled_undoes_too(engine: Durable) -> None:
    """Cancelled while the charge is tried again, it takes back both bookings and ends cancelled."""
    saga = program("saga")
    run = saga.book_trip.start("Oslo", 100)
    settle_until_step(engine, run, "charge")
    run.cancel("the customer called")
    settle(engine, run)

    with pytest.raises(RunCancelled):
        run.result(timeout=0)
    assert steps_of(run)[-2:] == ["cancel_booking", "cancel_booking"]


def settle_until_step(engine: Durable, run: Run[Any], name: str) -> None:
    """Play turns and attempts one by one, up to the call of a step."""
    drive(engine, run.id)
    while name not in steps_of(run):
        assert work(engine, run)
        drive(engine, run.id)


def test_an_approval_waits_reminds_and_is_given(engine: Durable) -> None:
    """A day without an answer asks again; the answer ends the run, and the token is free."""
    approval = program("approval")
    run = approval.approve_expense.start("r-1", "kim")
    settle(engine, run)
    assert get_hook("expense:r-1").metadata == {"manager": "kim"}
    run.wake_up()
    settle(engine, run)

    resume_hook("expense:r-1", {"approved": True, "by": "kim"})
    settle(engine, run)

    assert run.result(timeout=0) == "approved by kim"
    assert steps_of(run) == ["ask", "ask"]
    with pytest.raises(HookNotFound):
        get_hook("expense:r-1")


def test_an_approval_gives_up_after_three_days(engine: Durable) -> None:
    """Three reminders, no answer."""
    run = program("approval").approve_expense.start("r-2", "kim")
    settle(engine, run)
    for _ in range(3):
        run.wake_up()
        settle(engine, run)

    assert run.result(timeout=0) == "nobody decided"
    assert steps_of(run) == ["ask"] * 3


def test_polling_asks_until_it_is_done(engine: Durable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time the export is still running, the workflow sleeps twice as long."""
    polling = program("polling")
    states = ["s3://exports/done.csv", "running", "running"]
    monkeypatch.setattr(polling.get_state, "body", lambda export: states.pop())
    run = polling.export.start("orders")
    settle(engine, run)
    for _ in range(2):
        run.wake_up()
        settle(engine, run)

    assert run.result(timeout=0) == "s3://exports/done.csv"
    waits = [event for event in run.events() if event.kind == "wait_created"]
    assert [round((w.due_at - w.at) / 1e6) for w in waits] == [3600, 5, 10]  # type: ignore[attr-defined]


def test_a_batch_goes_on_past_one_that_fails(engine: Durable) -> None:
    """All images but the broken one are done, in order, and no more than four at a time were asked for."""
    images = [f"{n}.png" for n in range(9)] + ["notes.txt"]
    run = program("batch").resize_all.start(images)
    settle(engine, run)

    assert run.result(timeout=0) == {"done": [f"small-{n}.png" for n in range(9)], "failed": ["notes.txt"]}
    open_calls = most = 0
    for kind in kinds(run):
        open_calls += (kind == "step_created") - (kind in ("step_completed", "step_failed"))
        most = max(most, open_calls)
    assert most == 4


def test_a_reminder_is_sent_when_it_is_time(engine: Durable) -> None:
    """Thirty days before, a mail; then the customer pays, and no further one goes out."""
    renew_by = duration.to_datetime(engine.now()) + timedelta(days=90)
    run = program("reminder").remind.start("acme", renew_by)
    settle(engine, run)
    run.wake_up()
    settle(engine, run)

    resume_hook("renewed:acme", True)
    settle(engine, run)

    assert run.result(timeout=0) == "renewed"
    assert steps_of(run) == ["send_mail"]


def test_a_fan_out_puts_the_parts_together(engine: Durable) -> None:
    """One child run for each shop; the parent has each one's total."""
    run = program("fan_out").region_report.start("north", ["may", "june"])
    everything = [run]
    settle(engine, run)
    everything += [Run(event.run_id, engine) for event in run.events() if event.kind == "child_created"]  # type: ignore[attr-defined]
    settle(engine, *everything)
    settle(engine, run)

    assert run.result(timeout=0) == {"north-0": 1400, "north-1": 1400, "north-2": 1400}
    assert len(everything) == 4


def test_a_claim_check_keeps_the_file_out_of_the_log(engine: Durable) -> None:
    """The log has the file's path and the index's name, and the upload is reported by the view."""
    claim_check = program("claim_check")
    run = claim_check.import_file.start("i-1")
    settle(engine, run)

    claim_check.upload_complete("i-1", "s3://up/1", 9_000_000_000)
    settle(engine, run)

    assert run.result(timeout=0) == "index of s3://up/1"


def test_a_bounded_map_resizes_ten_images_at_a_time(engine: Durable) -> None:
    """The results are in the order of the images."""
    images = [str(n) for n in range(12)]
    run = program("bounded_map").resize_all.start(images)
    drive(engine, run.id)
    assert len(steps_of(run)) == 10
    settle(engine, run)

    assert run.result(timeout=0) == [f"small {n}" for n in range(12)]
