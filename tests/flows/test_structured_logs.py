"""The fields of log records made in workflows and steps, as structlog and python-json-logger write them."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog
from driving import settle
from pythonjsonlogger.json import JsonFormatter

from durable import current, sleep, step, workflow

plain = logging.getLogger("tests.structured")
library = logging.getLogger("tests.structured.library")
structured = structlog.stdlib.get_logger("tests.structured.structlog")

FIELDS = ("run_id", "workflow", "step", "attempt")


@step(name="structured.charge", retry_backoff=0)
def charge(amount: int) -> None:
    metadata = current.running_step.get().metadata
    plain.info("charging", extra={"amount": amount})
    structured.info("charging too", amount=amount)
    library.info("connected")
    if metadata.attempt == 1:
        raise ConnectionError("busy")


@workflow(name="structured.order")
async def order() -> None:
    plain.info("ordered")
    structured.info("ordered too", customer="c1")
    await charge(5)
    await sleep("1ms")
    plain.info("done")


@step(name="structured.own")
def names_its_own() -> None:
    plain.info("mine", extra={"attempt": "third", "workflow": "mill"})


@workflow(name="structured.mill")
async def mill() -> None:
    plain.info("ours", extra={"run_id": 7})
    await names_its_own()


@pytest.fixture
def written():
    """Everything that is logged, by the given formatter: the parsed lines."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    plain.addHandler(handler)
    plain.setLevel(logging.INFO)
    plain.propagate = False

    def lines(formatter=None):
        if formatter is not None:
            handler.setFormatter(formatter)
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield lines
    plain.removeHandler(handler)
    plain.setLevel(logging.NOTSET)
    plain.propagate = True


@pytest.fixture
def configured_structlog():
    """structlog hands its events to the standard library, as its documentation recommends."""
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    yield
    structlog.reset_defaults()


def seen(lines, run):
    """Each line's message and its fields; the id of the run as its place in the list."""
    return [
        (line.get("message") or line.get("event"), *(line.get(name) for name in FIELDS if line.get(name) != run.id))
        for line in lines
        if line.get("run_id") == run.id
    ]


STEP = ("structured.order", "structured.charge")
EXPECTED = [
    ("ordered", "structured.order", None, None),
    ("ordered too", "structured.order", None, None),
    ("charging", *STEP, 1),
    ("charging too", *STEP, 1),
    ("connected", *STEP, 1),
    ("charging", *STEP, 2),
    ("charging too", *STEP, 2),
    ("connected", *STEP, 2),
    ("done", "structured.order", None, None),
]


@pytest.mark.usefixtures("configured_structlog")
def test_python_json_logger_writes_the_fields(engine, written):
    """Without a setting: its formatter writes every field that a record has beyond Python's own."""
    written(JsonFormatter())
    run = order.start()
    settle(engine, run)
    lines = written()

    assert seen(lines, run) == EXPECTED
    assert [line["amount"] for line in lines if "amount" in line] == [5] * 4


@pytest.mark.usefixtures("configured_structlog")
def test_structlog_writes_the_fields(engine, written):
    """Of its own events, and of those of the standard library's loggers; repeated lines are dropped there too."""
    processors = [
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.JSONRenderer(),
    ]
    written(structlog.stdlib.ProcessorFormatter(processors=processors))
    run = order.start()
    settle(engine, run)
    lines = written()

    assert seen(lines, run) == EXPECTED
    assert [line["customer"] for line in lines if line["event"] == "ordered too"] == ["c1"]


def test_the_applications_own_fields_win(engine, written):
    """A step that logs an ``attempt`` of its own neither fails nor loses it: logging refuses a name that is taken."""
    written(JsonFormatter())
    run = mill.start()
    settle(engine, run)
    ours, mine = written()

    assert run.status == "completed"
    assert (ours["run_id"], ours["workflow"]) == (7, "structured.mill")
    assert (mine["attempt"], mine["workflow"]) == ("third", "mill")
    assert (mine["run_id"], mine["step"]) == (run.id, "structured.own")


def test_a_record_outside_of_runs_has_no_fields(engine, written):
    """A web request's line, say, stays as it is."""
    written(JsonFormatter())
    plain.info("outside")

    assert [set(line) & set(FIELDS) for line in written()] == [set()]
