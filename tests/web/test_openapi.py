"""The OpenAPI document is true to what the blueprint does: schemathesis calls everything in it, rightly and wrongly."""

from __future__ import annotations

import itertools
import json
import re
import threading
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
import schemathesis
from celery import Celery
from schemathesis.engine import from_schema
from schemathesis.engine.events import EngineEvent, NonFatalError, ScenarioFinished
from schemathesis.hooks import unregister
from servers import migrate
from werkzeug.serving import WSGIRequestHandler, make_server

from durable import Durable, Question, Request, Response, create_hook, create_schedule, create_webhook, step, workflow
from durable.context import receivers
from durable.recovery import housekeeping
from durable.web import bearer, create_blueprint
from durable.web.wsgi_request import ROOT

SECRET = "let-me-in"
HOOK = "openapi-hook"
SCHEDULE = "openapi-schedule"
#: Texts that a schedule can be made from and backfilled with.
SCHEDULED = {
    "cron": "0 3 * * *",
    "every": "1h",
    "tz": "UTC",
    "jitter": "1m",
    "until": "2099-01-01T00:00:00Z",
    "start": "2026-05-01T00:00:00Z",
    "end": "2026-05-02T00:00:00Z",
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

#: Deterministic, and bounded: about fifteen seconds.
CONFIG = {
    "seed": 20261125,
    "generation": {"deterministic": True, "max-examples": 5},
    "phases": {"stateful": {"max-steps": 5}},
}


@workflow(name="openapi.anything")
async def anything(*args: Any, **kwargs: Any) -> None:
    await create_hook()


@workflow(name="openapi.listener")
async def listener() -> None:
    async for payload in create_hook(token=HOOK):
        if isinstance(payload, Question):
            payload.reply(payload.payload)


@step(name="openapi.answer")
def answer(request: Request) -> None:
    if request.method != "DELETE":
        request.respond_with(Response.json({"method": request.method}, 203))


@workflow(name="openapi.receiver")
async def receiver() -> None:
    # What is deleted gets no answer: there the sender has to poll.
    async for request in create_webhook(methods=METHODS, respond_with="manual", timeout="10ms"):
        await answer(request)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Durable]:
    celery = Celery("openapi", broker="memory://")
    celery.conf.task_always_eager = True
    made = Durable(
        celery,
        database_url=f"sqlite:///{tmp_path}/durable.db",
        public_url="http://localhost",
        signing_key="signs the read tokens of the document",
    )
    migrate(made)
    yield made
    housekeeping.end(made)
    made.close()


@pytest.fixture
def base_url(engine: Durable, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serves the app; each request has its own network address, as requests of many senders do."""
    monkeypatch.setenv("OPENAPI_SECRET", SECRET)
    app = flask.Flask("openapi")
    app.register_blueprint(create_blueprint(engine, control=bearer("env:OPENAPI_SECRET")))
    count = itertools.count(1)

    def from_anywhere(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        number = next(count)
        environ["REMOTE_ADDR"] = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        return app.wsgi_app(environ, start_response)

    server = make_server("127.0.0.1", 0, from_anywhere, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


class Quiet(WSGIRequestHandler):
    """Thousands of lines would hide the one that matters."""

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@pytest.fixture
def _no_receivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests have some, which the list of receivers would lead to; each takes only some methods."""
    for name in list(receivers):
        monkeypatch.delitem(receivers, name)


@pytest.fixture
def schema(engine: Durable, base_url: str, _no_receivers: None) -> Iterator[Any]:
    """The served document; well-formed requests use ids that exist."""
    engine.start(listener)
    create_schedule(SCHEDULE, anything, cron="0 3 * * *")
    ended = engine.start(anything)
    ended.cancel()
    (webhook,) = engine.start(receiver).hooks()
    deleted = urllib.request.Request(f"{base_url}{ROOT}webhook/{webhook['token']}", method="DELETE")
    with urllib.request.urlopen(deleted) as answered:
        pending = json.load(answered)["request_id"]
    # Of each operation, so that a new operation changes nothing for the others.
    numbers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)
    config = schemathesis.Config.from_dict(CONFIG | {"base-url": base_url})
    loaded = schemathesis.openapi.from_url(f"{base_url}{ROOT}openapi.json", config=config)

    @loaded.auth()
    class Secret:
        def get(self, case: Any, context: Any) -> str:
            return SECRET

        def set(self, case: Any, data: str, context: Any) -> None:
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}

    @schemathesis.hook
    def before_call(context: Any, case: Any, kwargs: Any) -> None:
        number = next(numbers[case.operation.label])
        if number % 2:
            put(case.path_parameters, "token", webhook["token"])
            put(case.path_parameters, "schedule", SCHEDULE)
            put(case.body, "token", HOOK)
            for name, value in SCHEDULED.items():
                put(case.body, name, value)
            put(case.body, "workflow", "openapi.anything")
            if "webhook" in case.operation.label:
                put(case.path_parameters, "request_id", pending)
        if number % 4 == 1 and case.operation.label.endswith("{run_id}/pause"):
            put(case.path_parameters, "run_id", engine.start(anything).id)
        if number % 4 == 3:
            put(case.path_parameters, "run_id", ended.id)
        elif number % 2 and case.operation.label.endswith("/cancel"):
            put(case.path_parameters, "run_id", engine.start(anything).id)
        key = (case.headers or {}).get("Idempotency-Key")
        if isinstance(key, str) and re.fullmatch("[!-~]{1,240}", key):
            # The same key with other arguments is refused, which is correct.
            case.headers["Idempotency-Key"] = f"{key}{number}"

    yield loaded
    unregister(before_call)


def put(part: object, name: str, value: str) -> None:
    """Replace a random id by one that exists."""
    if isinstance(part, dict) and isinstance(part.get(name), str) and 1 <= len(part[name]) <= 128:
        part[name] = value


def failures_of(events: Iterable[EngineEvent]) -> tuple[Counter[tuple[str, int]], list[str]]:
    """How often each operation was answered by each status, and what was found wrong."""
    answered: Counter[tuple[str, int]] = Counter()
    wrong: list[str] = []
    for event in events:
        if isinstance(event, NonFatalError):
            wrong.append(str(event.info))
        if not isinstance(event, ScenarioFinished):
            continue
        for case_id, exchange in event.recorder.interactions.items():
            operation = event.recorder.cases[case_id].value.operation.label
            answered[operation, exchange.response.status_code if exchange.response else 0] += 1
        for check in itertools.chain.from_iterable(event.recorder.checks.values()):
            if check.failure_info is not None:
                failed = check.failure_info
                wrong.append(f"{check.name}: {failed.failure.title}\n{failed.failure.message}\n{failed.code_sample}")
    return answered, wrong


#: What each operation was answered, at least.
REACHED = {
    f"POST {ROOT}runs": {201, 401, 404, 415, 422},
    f"GET {ROOT}runs": {200, 401, 422},
    f"GET {ROOT}runs/{{run_id}}": {200, 401, 404},
    f"GET {ROOT}runs/{{run_id}}/values": {200, 401, 404},
    f"GET {ROOT}runs/{{run_id}}/events": {200, 401, 404, 422},
    f"GET {ROOT}runs/{{run_id}}/streams": {200, 401, 404},
    f"GET {ROOT}runs/{{run_id}}/streams/{{stream}}": {200, 401, 404, 422},
    f"GET {ROOT}streams/{{run_id}}/{{stream}}": {401},
    f"GET {ROOT}values/{{run_id}}/{{value}}": {401},
    f"POST {ROOT}runs/{{run_id}}/wake": {200, 401, 404, 422},
    f"POST {ROOT}runs/{{run_id}}/resolve": {401, 404, 409, 422},
    f"POST {ROOT}runs/{{run_id}}/cancel": {202, 401, 404, 409, 422},
    f"POST {ROOT}runs/{{run_id}}/pause": {200, 401, 404, 409, 422},
    f"POST {ROOT}runs/{{run_id}}/resume": {401, 404, 409, 422},
    f"POST {ROOT}bulk": {200, 401, 422},
    f"GET {ROOT}pauses": {200, 401},
    f"POST {ROOT}workflows/{{workflow}}/pause": {401, 404, 422},
    f"POST {ROOT}queues/{{queue}}/pause": {200, 401, 422},
    f"POST {ROOT}queues/{{queue}}/resume": {200, 401, 422},
    f"POST {ROOT}runs/{{run_id}}/fork": {401, 404, 422},
    f"POST {ROOT}runs/{{run_id}}/retry": {401, 404, 422},
    f"POST {ROOT}hooks/resume": {202, 401, 404, 422},
    f"POST {ROOT}hooks/ask": {200, 401, 404, 422},
    f"GET {ROOT}hooks/replies/{{request_id}}": {401, 404},
    f"GET {ROOT}schedules": {200, 401, 422},
    f"GET {ROOT}schedules/{{schedule}}": {200, 401, 404},
    f"POST {ROOT}schedules/{{schedule}}/pause": {200, 401, 404, 422},
    f"POST {ROOT}schedules/{{schedule}}/resume": {200, 401, 404, 422},
    f"POST {ROOT}schedules/{{schedule}}/trigger": {201, 401, 404, 422},
    f"PUT {ROOT}schedules/{{schedule}}": {200, 401, 404, 422},
    f"DELETE {ROOT}schedules/{{schedule}}": {200, 401, 404},
    f"POST {ROOT}schedules/{{schedule}}/backfill": {201, 401, 404, 422},
    f"GET {ROOT}limits": {200, 401},
    f"PUT {ROOT}limits/{{limit}}": {401, 404, 422},
    f"POST {ROOT}limits/{{limit}}/resume": {200, 401, 422},
    f"GET {ROOT}receivers": {200, 401},
    f"GET {ROOT}receivers/requests": {200, 401, 422},
    f"POST {ROOT}receivers/requests/{{request_id}}/retry": {401, 404, 422},
    f"POST {ROOT}webhook/{{token}}": {203, 404},
    f"DELETE {ROOT}webhook/{{token}}": {202, 404},
    f"GET {ROOT}webhook/{{token}}/requests/{{request_id}}": {202, 404},
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_document_is_true(schema: Any) -> None:
    """Examples, edge cases, random and wrong requests, and sequences of them: every check of schemathesis passes."""
    answered, wrong = failures_of(from_schema(schema).execute())

    assert not wrong, "\n\n".join(wrong)
    # The calls have reached what this test is for.
    for operation, statuses in REACHED.items():
        assert statuses <= {status for called, status in answered if called == operation}, operation
