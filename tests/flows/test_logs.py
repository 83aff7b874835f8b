"""What a run logs, and what a run keeps of the settings that it began with."""

from __future__ import annotations

import asyncio
import logging

import pytest
from celery import Celery
from driving import drive, settle

from durable import Durable, HookPayloadError, Request, create_webhook, sleep, step, workflow

log = logging.getLogger("tests.logs")


@step(name="logs.work")
def work() -> None:
    log.warning("in the step")


@workflow(name="logs.talk")
async def talk() -> None:
    log.warning("before")
    await work()
    log.warning("between")
    await work()
    log.warning("after")


@step(name="logs.send")
def send(url: str) -> str:
    return url


@workflow(name="logs.hand_out")
async def hand_out() -> str:
    webhook = create_webhook()
    await send(webhook.url)
    await webhook
    return webhook.url


@workflow(name="logs.patient")
async def patient() -> str:
    try:
        async with asyncio.timeout(3600):
            await sleep("1h")
            await sleep("30d")
    except TimeoutError:
        return "timed out"
    return "woken twice"


def test_each_line_of_a_workflow_appears_once_and_names_its_run(engine, caplog):
    """Three turns replay the body from its start; its lines are logged once."""
    run = talk.start()
    settle(engine, run)

    lines = [(r.message, r.run_id) for r in caplog.records if r.name == "tests.logs" and not hasattr(r, "step")]
    assert lines == [("before", run.id), ("between", run.id), ("after", run.id)]


class Kept(logging.Handler):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def test_a_handler_that_is_added_later_gets_each_line_once(engine):
    """Between two turns, to the logger itself; no method of logging.Logger is replaced."""
    handler = Kept()
    run = talk.start()
    drive(engine, run.id)
    log.addHandler(handler)
    try:
        settle(engine, run)
    finally:
        log.removeHandler(handler)

    assert [each for each in handler.messages if each != "in the step"] == ["between", "after"]
    assert logging.Logger.handle.__module__ == "logging"


def test_a_record_factory_that_an_application_sets_later_is_kept(engine, caplog):
    """Its fields are on each record, and lines still appear once."""
    before = logging.getLogRecordFactory()

    def factory(*args, **kwargs):
        record = logging.LogRecord(*args, **kwargs)
        record.shop = "north"
        return record

    logging.setLogRecordFactory(factory)
    try:
        run = talk.start()
        settle(engine, run)
    finally:
        logging.setLogRecordFactory(before)

    lines = [r for r in caplog.records if r.name == "tests.logs" and not hasattr(r, "step")]
    assert [(r.message, r.run_id, r.shop) for r in lines] == [
        (message, run.id, "north") for message in ("before", "between", "after")
    ]


def test_without_handlers_repeated_lines_are_not_printed(engine, capsys):
    """Python's handler of last resort takes each line once."""
    log.propagate = False
    try:
        settle(engine, talk.start())
    finally:
        log.propagate = True

    assert [line for line in capsys.readouterr().err.splitlines() if line != "in the step"] == [
        "before",
        "between",
        "after",
    ]


def test_lines_of_a_step_name_step_and_attempt(engine, caplog):
    """Also those of a library that knows nothing of durable."""
    run = talk.start()
    settle(engine, run)

    lines = [(r.run_id, r.step, r.attempt) for r in caplog.records if r.message == "in the step"]
    assert lines == [(run.id, "logs.work", 1)] * 2


def test_other_lines_are_left_alone(engine, caplog):
    """A record made outside a run carries nothing of ours."""
    log.warning("outside")

    assert not hasattr(caplog.records[-1], "run_id")


@pytest.mark.parametrize("elsewhere", ["https://moved.test"])
def test_c60_a_waiting_run_keeps_its_url_when_the_setting_changes(engine, database, elsewhere):
    """A webhook's URL is equal on every replay, also after a move to another host."""
    run = hand_out.start()
    settle(engine, run)
    moved = Durable(Celery("moved", broker="memory://"), database_url=database, public_url=elsewhere)
    token = run.hooks()[0]["token"]

    with pytest.raises(HookPayloadError, match=r"durable\.Request"):
        moved.resume_hook(token, None)
    moved.resume_hook(token, Request(method="POST", url="https://moved.test/"))
    settle(moved, run)

    assert run.status == "completed"
    assert run.result(timeout=1).startswith("https://hooks.test/")
    moved.close()


def test_wake_up_ends_sleeps_and_leaves_timeouts(engine):
    """c40: the sleep ends, and tells how many there were; the deadline around it stays."""
    run = patient.start()
    settle(engine, run)

    assert run.wake_up() == 1
    settle(engine, run)
    assert run.status == "running"

    assert run.wake_up() == 1
    settle(engine, run)
    assert run.result(timeout=1) == "woken twice"
    assert run.wake_up() == 0
