"""Whole small programs: what is registered, called, told and recorded."""

from __future__ import annotations

import json
import secrets
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from celery import Celery
from driving import all_databases, kinds, settle

from durable import Durable, get_step_metadata, get_workflow_metadata, registry, step, workflow
from durable.client import describe
from durable.turns.drive import drive


@step
def add(a: int, b: int) -> int:
    return a + b


@workflow
async def adds(number: int) -> int:
    for more in (2, 3, 5):
        number = await add(number, more)
    return number


@all_databases()
def test_c1_three_adding_steps_and_what_the_inspector_shows(engine):
    """Input, output, status, and a name that holds the module."""
    run = engine.start(adds, 123)
    settle(engine, run)
    shown = describe.describe(engine, run.id)

    assert run.result() == 133
    assert {key: shown[key] for key in ("name", "status", "args", "result", "error")} == {
        "name": f"{__name__}.adds",
        "status": "completed",
        "args": {"number": 123},
        "result": 133,
        "error": None,
    }


SAME_NAME = """
from durable import step, workflow
@step
def who() -> str:
    return __name__
@workflow
async def asks() -> str:
    return await who()
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for modules, importable while the test runs; what they define is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules), dict(registry.steps), dict(registry.workflows)
    yield tmp_path
    for name in set(sys.modules) - known[0]:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    for table, before in ((registry.steps, known[1]), (registry.workflows, known[2])):
        table.clear()
        table.update(before)  # type: ignore[arg-type]


def test_c2_functions_of_one_name_in_two_modules_are_two(engine, modules):
    """Each workflow calls the step of its own module."""
    names = [f"same_{secrets.token_hex(4)}" for _ in range(2)]
    for name in names:
        (modules / f"{name}.py").write_text(SAME_NAME)
    started = [engine.start(__import__(name).asks) for name in names]
    settle(engine, *started)

    assert [run.result() for run in started] == names


def test_c3_a_step_reached_only_by_an_import_is_registered_in_the_worker(database, modules):
    """`include=` names the workflow's module; what that imports is a task of the worker's app too."""
    first, second = (f"reached_{secrets.token_hex(4)}" for _ in range(2))
    (modules / f"{second}.py").write_text(SAME_NAME)
    (modules / f"{first}.py").write_text(f"from {second} import asks\n")
    celery = Celery("worker", broker="memory://", include=[first])
    engine = Durable(celery, database_url=database)

    celery.loader.import_default_modules()

    assert f"{second}.who" in celery.tasks
    engine.close()


def test_c4_a_step_called_in_a_script_or_a_step_is_the_plain_function(engine):
    """It returns its value, and records nothing."""
    assert add(1, 2) == 3
    run = engine.start(calls_in_a_step)
    settle(engine, run)

    assert run.result() == 7
    assert kinds(run).count("step_created") == 1


@step
def adds_by_another_step() -> int:
    return add(3, 4)  # type: ignore[return-value]


@workflow
async def calls_in_a_step() -> int:
    return await adds_by_another_step()


# Metadata.


def told() -> tuple[Any, ...]:
    """A module-level function, which a workflow or a step may call."""
    metadata = get_workflow_metadata()
    return metadata.run_id, metadata.name, metadata.started_at, metadata.public_url


@step(max_retries=2, retry_backoff=0)
def tells(attempts: int) -> tuple[Any, ...]:
    metadata = get_step_metadata()
    if metadata.attempt < attempts:
        raise ConnectionError(f"{metadata.started_at.isoformat()} {metadata.idempotency_key}")
    return told(), metadata


@workflow
async def asks_for_metadata() -> Any:
    mine = get_workflow_metadata()
    return (mine.run_id, mine.name, mine.started_at, mine.public_url), told(), await tells(3), await tells(1)


@all_databases()
def test_c7_c22_metadata_is_the_same_wherever_it_is_asked_for(engine):
    """In the workflow, in a function it calls, in a step; a step's key and first start are those of every attempt."""
    run = engine.start(asks_for_metadata)
    settle(engine, run)

    here, called, (in_step, third), (_, other) = run.result()
    assert here == called == in_step == (run.id, f"{__name__}.asks_for_metadata", run.started_at, "https://hooks.test")
    assert (third.attempt, other.attempt) == (3, 1)
    assert third.idempotency_key != other.idempotency_key
    retried = [event.error for event in run.events() if event.kind == "step_retrying"]
    assert len(retried) == 2
    for error in retried:
        assert f"{third.started_at.isoformat()} {third.idempotency_key}" in error


def test_c10_a_module_that_fails_to_import_is_told(database, modules):
    """The worker's own import raises the author's error, which names file and line: nothing waits for it."""
    name = f"broken_{secrets.token_hex(4)}"
    (modules / f"{name}.py").write_text("import no_such_library\n")
    celery = Celery("worker", broker="memory://", include=[name])
    engine = Durable(celery, database_url=database)

    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        celery.loader.import_default_modules()

    engine.close()


# HTTP by a step.


class Shop(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/price" else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"price": 7}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def shop() -> Iterator[str]:
    """A web service; its URL."""
    with HTTPServer(("127.0.0.1", 0), Shop) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@step(max_retries=0)
def get_json(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url) as response:
        return json.load(response)  # type: ignore[no-any-return]


@workflow
async def asks_the_shop(url: str) -> Any:
    try:
        return await get_json(f"{url}/price"), await get_json(f"{url}/gone")
    except HTTPError as error:
        return error.code, error.msg


def test_c12_a_call_over_http_is_a_step(engine, shop):
    """Its JSON is the result; its failure is caught in the workflow by its own class."""
    run = engine.start(asks_the_shop, shop)
    settle(engine, run)

    assert run.result() == (404, "Not Found")
    (completed,) = [event for event in run.events() if event.kind == "step_completed"]
    assert completed.result == '{"price":7}'


# Calls that nobody awaits.


@workflow
async def leaves_calls_behind(how: str) -> str:
    add(1, 2)
    add(3, 4)
    if how == "fails":
        raise LookupError("enough")
    return how


@all_databases()
@pytest.mark.parametrize(("how", "end"), [("returns", "run_completed"), ("fails", "run_failed")])
def test_c13_steps_that_were_called_but_not_awaited_are_not_lost(engine, how, end):
    """They are recorded before the end of the run, and run all the same; their results are recorded after it."""
    run = engine.start(leaves_calls_behind, how)
    drive(engine, run.id)
    assert kinds(run)[-3:] == ["step_created", "step_created", end]

    settle(engine, run)

    assert kinds(run)[-3:] == [end, "step_completed", "step_completed"]
