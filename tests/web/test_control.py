"""The control routes, on SQLite with Celery in eager mode: permission, results, refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import asgi_client
import flask
import pytest
import sqlalchemy as sa
from celery import Celery
from servers import migrate
from werkzeug.test import Client, TestResponse

from durable import (
    Durable,
    Request,
    concurrency,
    create_hook,
    create_schedule,
    create_webhook,
    define_hook,
    duration,
    emit,
    get_run,
    get_schedule,
    publish,
    receiver,
    schedule,
    sleep,
    step,
    workflow,
)
from durable.attempts.outcome import give_up
from durable.client import describe
from durable.context import receivers
from durable.recovery import housekeeping
from durable.schedules import Schedule
from durable.schedules.declared import definitions
from durable.store import claimed_attempts, run_log, schema
from durable.turns.drive import drive
from durable.web import bearer, create_asgi_app, create_blueprint
from durable.web.operations import OPERATIONS
from durable.web.wsgi_request import ROOT

RUNS = ROOT + "runs"
RESUME = ROOT + "hooks/resume"
#: What serves the current test.
SERVED_BY: list[str] = []
ASK = ROOT + "hooks/ask"


@dataclass
class Item:
    name: str
    count: int = 1


@workflow(name="control.order")
async def order(item: Item, day: date, *notes: str) -> list[Any]:
    return [type(item).__name__, item.count, day, list(notes)]


@workflow(name="control.approval")
async def approval(token: str) -> Any:
    return await create_hook(token=token)


approved = define_hook(Item, name="control.approved")


@workflow(name="control.typed")
async def typed(token: str) -> Any:
    return (await approved.create(token=token)).count


counts = define_hook(Item, name="control.counts", reply=Item)


@workflow(name="control.counting")
async def counting(token: str, replies: int) -> int:
    hook = counts.create(token=token)
    for _ in range(replies):
        question = await hook
        question.reply(Item(question.payload.name, question.payload.count + 1))
    await hook
    return replies


@workflow(name="control.listening")
async def listening() -> None:
    await create_webhook()


#: What the rule below reads; a test corrects it.
KNOWN_KINDS: dict[str, bool] = {}

events = receiver("control.events")


@events.start(when=lambda request: KNOWN_KINDS[request.json()["kind"]])
@workflow(name="control.event")
async def event(request: Request) -> Any:
    return request.json()["kind"]


@workflow(name="control.publishing")
async def publishing() -> None:
    publish("count", 1)
    publish("item", Item("pen"))
    publish("count", 2)


@workflow(name="control.emitting")
async def emitting() -> None:
    for number in range(5):
        emit("rows", Item("pen", number))


@workflow(name="control.sleeping")
async def sleeping() -> str:
    await sleep("1h")
    return "awake"


@step(name="control.pays", semantics="at_most_once")
def pays() -> int:
    return 5


@workflow(name="control.paying")
async def paying() -> int:
    return await pays()


@workflow(name="control.one_at_a_time", limits=[concurrency("control.one", 1)])
async def one_at_a_time() -> None:
    await create_hook()


@pytest.fixture
def declared() -> Iterator[Schedule]:
    """A schedule that the code declares, for one test."""
    yield schedule("control-declared", listening, every="1h")
    definitions.pop("control-declared")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Durable]:
    celery = Celery("control", broker="memory://")
    celery.conf.task_always_eager = True
    made = Durable(
        celery, database_url=f"sqlite:///{tmp_path}/durable.db", public_url="https://h.test/base", max_body=2000
    )
    migrate(made)
    yield made
    housekeeping.end(made)
    made.close()


@pytest.fixture(autouse=True, params=["wsgi", "asgi"])
def server(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test runs on the blueprint and on the ASGI application."""
    SERVED_BY.append(request.param)
    yield
    SERVED_BY.pop()


def client_of(engine: Durable, control: Any) -> Client:
    if SERVED_BY == ["asgi"]:
        return asgi_client.client_of(create_asgi_app(engine, control=control))
    app = flask.Flask("control")
    app.register_blueprint(create_blueprint(engine, control=control))
    return app.test_client()


@pytest.fixture
def client(engine: Durable) -> Client:
    """A client that is allowed."""
    return client_of(engine, lambda _request: True)


def start(client: Client, workflow: str, *args: object, **headers: str) -> TestResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(RUNS, json={"workflow": workflow, "args": args}, headers=named)


def problem_of(answer: TestResponse) -> tuple[int, str]:
    """The status and code of an answer, which has to be a complete problem."""
    assert answer.mimetype == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    document = answer.get_json()
    assert document["status"] == answer.status_code
    assert document["type"] == f"urn:durable:problem:{document['code']}"
    return answer.status_code, document["code"]


# Permission


def test_control_may_read_the_body(engine):
    """If the function reads the body to check a signature, the operation still gets it."""

    def signed(request: flask.Request) -> bool:
        return b"control.order" in request.get_data(cache=False)

    answer = start(client_of(engine, signed), "control.order", {"name": "pen"}, "2026-01-31")

    assert answer.status_code == 201


def test_without_an_auth_callable_there_are_no_control_routes(engine):
    """Their URLs are 404, and the document does not list them."""
    client = client_of(engine, None)

    assert [client.get(RUNS).status_code, client.post(RESUME, json={}).status_code] == [404, 404]
    documented = client.get(ROOT + "openapi.json").json["paths"]
    others = [path for path in documented if not path.startswith((f"{ROOT}webhook/", f"{ROOT}receive/"))]
    assert others == [f"{ROOT}openapi.json", f"{ROOT}health"]


def _abort(status: int) -> Callable[[flask.Request], bool]:
    return lambda _request: flask.abort(status)


async def _coroutine(_request: flask.Request) -> bool:
    return True


def _broken(_request: flask.Request) -> bool:
    raise LookupError("no such user")


@pytest.mark.parametrize(
    ("control", "wanted"),
    [
        (lambda _request: None, (401, "unauthorized")),
        (lambda _request: False, (403, "forbidden")),
        (lambda _request: 1, (403, "forbidden")),
        (lambda _request: "a user", (403, "forbidden")),
        (lambda _request: {}, (403, "forbidden")),
        (_abort(401), (401, "unauthorized")),
        (_abort(403), (403, "not-authorized")),
        (_abort(429), (429, "not-authorized")),
        (_broken, (500, "internal-error")),
    ],
)
def test_only_true_lets_in(engine, control, wanted):
    """Anything else that the function returns or raises refuses the request before anything is done."""
    client = client_of(engine, control)
    run = engine.start(approval, "t")
    for answer in (
        start(client, "control.approval", "u"),
        client.get(RUNS),
        client.get(f"{RUNS}/{run.id}"),
        client.post(f"{RUNS}/{run.id}/cancel", json={}),
        client.post(RESUME, json={"token": "t", "payload": 1}),
        client.get(f"{RUNS}/no/such/route"),
        client.put(RUNS, data=b"not even JSON"),
    ):
        assert problem_of(answer) == wanted
        assert answer.status_code != 401 or answer.headers["WWW-Authenticate"] == "Bearer"

    assert [row["id"] for row in describe.list_runs(engine)] == [run.id]
    assert run.status == "running"


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_coroutine_lets_nobody_in(engine):
    """An `async def` returns a coroutine, which is truthy before it has checked anything."""
    assert problem_of(client_of(engine, _coroutine).get(RUNS)) == (403, "forbidden")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("Bearer new-secret", 200),
        ("bearer old-secret", 200),
        ("Bearer new-secre", 401),
        ("Bearer new-secret2", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("Bearer \xe9", 401),
        ("Basic bmV3LXNlY3JldDo=", 401),
        ("new-secret", 401),
        (None, 401),
    ],
)
def test_a_bearer_sends_one_of_the_secrets(engine, monkeypatch, sent, status):
    """The whole secret with the scheme Bearer; each of several secrets while one is being changed."""
    monkeypatch.setenv("CONTROL_NEW", "new-secret")
    monkeypatch.setenv("CONTROL_OLD", "old-secret")
    client = client_of(engine, bearer(["env:CONTROL_NEW", "env:CONTROL_OLD"]))

    assert client.get(RUNS, headers={} if sent is None else {"Authorization": sent}).status_code == status


@pytest.mark.parametrize("value", [None, ""])
def test_a_secret_that_is_missing_is_our_trouble(engine, monkeypatch, value):
    """503 for every caller; an empty secret allows nobody."""
    monkeypatch.delenv("CONTROL_NEW", raising=False)
    if value is not None:
        monkeypatch.setenv("CONTROL_NEW", value)
    client = client_of(engine, bearer("env:CONTROL_NEW"))

    assert problem_of(client.get(RUNS, headers={"Authorization": "Bearer "})) == (503, "store-unreachable")


def test_a_secret_itself_is_no_name():
    """It is refused when the blueprint is made, and the message does not repeat it."""
    with pytest.raises(ValueError, match="env:NAME") as caught:
        bearer("s3cret")
    assert "s3cret" not in str(caught.value)


# Starting


def test_a_run_is_started_with_plain_json(engine, client):
    """In order or by name; annotations convert the arguments, and Location is the run's URL."""
    by_order = start(client, "control.order", {"name": "tea", "count": 2}, "2026-01-02", "a", "b")
    by_name = client.post(
        RUNS, json={"workflow": "control.order", "args": {"day": "2026-01-02", "item": {"name": "x"}}}
    )

    assert by_order.status_code == by_name.status_code == 201
    run = engine.get_run(by_order.json["id"])
    assert by_order.json == {"id": run.id, "name": "control.order", "status": "completed"}
    assert by_order.headers["Location"] == f"https://h.test/base{RUNS}/{run.id}"
    assert run.result(0) == ["Item", 2, date(2026, 1, 2), ["a", "b"]]
    assert engine.get_run(by_name.json["id"]).result(0)[:2] == ["Item", 1]


@pytest.mark.parametrize(
    "args",
    [
        [],
        [{"name": "tea"}],
        [{"name": "tea"}, "no day"],
        [{"count": 1}, "2026-01-02"],
        [{"name": "tea"}, "2026-01-02", 5],
        {"item": {"name": "tea"}, "day": "2026-01-02", "more": 1},
        "tea",
        5,
        None,
    ],
)
def test_arguments_that_do_not_fit_start_nothing(engine, client, args):
    """422 says what is wrong; no run starts that would fail at its first turn."""
    answer = client.post(RUNS, json={"workflow": "control.order", "args": args})

    assert problem_of(answer) == (422, "bad-arguments")
    assert describe.list_runs(engine) == []


def test_a_key_starts_one_run(engine, client):
    """The same call gets the same run, with the key in quotes or not; another call with the key is refused."""
    first = start(client, "control.approval", "t", Idempotency_Key='"key-1"')
    again = start(client, "control.approval", "t", Idempotency_Key="key-1")
    other = start(client, "control.approval", "u", Idempotency_Key="key-1")
    another = start(client, "control.approval", "u", Idempotency_Key="key-2")

    assert [first.status_code, again.status_code, another.status_code] == [201, 200, 201]
    assert first.json == again.json != another.json
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert problem_of(other) == (422, "idempotency-key-reused")
    assert len(describe.list_runs(engine)) == 2


@pytest.mark.parametrize("key", ["", "a b", "a" * 256, '""', "\xe9"])
def test_a_key_that_no_database_keeps_is_refused(engine, client, key):
    """400, and nothing is started."""
    if key == '""':  # two quotes are a key like any other
        assert start(client, "control.approval", "t", Idempotency_Key=key).status_code == 201
        return
    assert problem_of(start(client, "control.approval", "t", Idempotency_Key=key)) == (400, "bad-request")
    assert describe.list_runs(engine) == []


def test_a_workflow_that_is_not_known_is_404(engine, client):
    """Also with a strange name."""
    assert problem_of(start(client, "control.nothing")) == (404, "workflow-not-found")
    assert problem_of(start(client, "nothing\0")) == (404, "workflow-not-found")


# Show, cancel, resume


def test_runs_are_listed_and_shown_as_the_command_line_has_them(engine, client):
    """Newest first, by status, name and attribute; one with its arguments and what it waits for."""
    done = start(client, "control.order", {"name": "tea"}, "2026-01-02").json["id"]
    waits = start(client, "control.approval", "t").json["id"]

    def listed(query: str = "") -> list[str]:
        return [run["id"] for run in client.get(f"{RUNS}?{query}").json["runs"]]

    assert listed() == [waits, done]
    assert listed("status=completed") == listed("name=control.order") == [done]
    assert listed("limit=1") == [waits]
    assert listed("attribute=a=b") == listed("attribute=a=b&attribute=a=c") == []
    assert client.get(f"{RUNS}/{waits}").json == describe.describe(engine, waits)
    assert client.get(f"{RUNS}/{done}").json["args"] == {"item": {"name": "tea"}, "day": "2026-01-02"}


@pytest.mark.parametrize("how", ["a moment", "how long ago"])
def test_runs_are_listed_by_when_they_were_created(engine, client, how):
    """From *since* on and before *until*, as ``list_runs`` does it; also on a later page."""
    ids = [start(client, "control.approval", str(number)).json["id"] for number in range(4)]
    now = engine.now()
    with engine.store.begin() as tx:
        for hours, run_id in enumerate(reversed(ids)):
            at = now - hours * 3_600_000_000 - 60_000_000
            tx.execute(sa.update(schema.runs).where(schema.runs.c.id == run_id).values(created_at=at))

    def given(hours: int) -> str:
        moment = duration.to_datetime(now - hours * 3_600_000_000)
        return moment.isoformat() if how == "a moment" else f"{hours}h0.5s"

    def listed(**query: str) -> list[str]:
        return [run["id"] for run in client.get(RUNS, query_string=query).json["runs"]]

    assert listed(since=given(2)) == [ids[3], ids[2]]
    assert listed(until=given(2)) == [ids[1], ids[0]]
    assert listed(since=given(3), until=given(1)) == [ids[2], ids[1]]
    page = client.get(RUNS, query_string={"since": given(3), "limit": 2}).json
    assert listed(since=given(3), after=page["next"]) == [ids[1]]


def test_a_time_that_is_none_is_refused_with_what_it_can_be(client):
    """The + of an offset, which a URL takes for a blank, is the usual mistake."""
    detail = client.get(f"{RUNS}?since=2026-01-31T12:00:00+01:00").json["detail"]

    assert detail.startswith("since: ")
    assert "such as 1h30m, nor a time with a UTC offset" in detail
    assert "%2B" in detail


def test_runs_are_started_with_attributes_and_found_by_them(client):
    """The list shows them, and so does the run."""
    body = {"workflow": "control.order", "args": [{"name": "tea"}, "2026-01-02"]}
    for customer in ("acme", "umbrella"):
        client.post(RUNS, json=body | {"attributes": {"customer": customer, "note": ""}})

    (found,) = client.get(f"{RUNS}?attribute=customer=acme").json["runs"]

    assert found["attributes"] == {"customer": "acme", "note": ""}
    assert client.get(f"{RUNS}/{found['id']}").json["attributes"] == found["attributes"]


@pytest.mark.parametrize(
    "attributes",
    [{"": "a"}, {" a": "b"}, {"a": 1}, {"a": "\0"}, {"a": "é" * 200}, {str(n): "" for n in range(65)}, ["a"]],
)
def test_attributes_that_no_run_can_have_are_422(client, attributes):
    """Nothing is started."""
    body = {"workflow": "control.approval", "args": ["t"], "attributes": attributes}

    assert problem_of(client.post(RUNS, json=body)) == (422, "bad-arguments")
    assert client.get(RUNS).json["runs"] == []


def test_pages_list_each_run_once(client):
    """Also while runs start; the last page has no next page."""
    ids = [start(client, "control.order", {"name": "tea"}, "2026-01-02").json["id"] for _ in range(5)]
    listed, after = [], ""
    while True:
        page = client.get(f"{RUNS}?limit=2{after}").json
        listed += [run["id"] for run in page["runs"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
        start(client, "control.order", {"name": "late"}, "2026-01-02")

    assert listed == ids[::-1]


@pytest.mark.parametrize(
    "query",
    [
        "after=nothing",
        "after=1.",
        "after=.a",
        "status=lost",
        "limit=0",
        "limit=x",
        "limit=%2B5",
        "limit=1001",
        "since=yesterday",
        "since=2026-01-31T12:00:00",
        "since=2026-01-31",
        "since=2026-01-31T12:00:00+01:00",
        "since=1700000000000",
        "since=-1h",
        "since=60",
        "until=99999999w",
        "until=",
        "since=1h&since=2h",
        "name=",
        "name=%00",
        "attribute=a",
        "attribute==b",
        "limit=1&limit=2",
    ],
)
def test_a_parameter_that_does_not_fit_is_422(client, query):
    """A misspelled condition must not list everything."""
    assert problem_of(client.get(f"{RUNS}?{query}")) == (422, "bad-arguments")


@pytest.mark.parametrize("run_id", ["nothing", "a" * 65, "%00", "%C3%A9", "a%20b"])
def test_a_run_that_is_not_there_is_404(client, run_id):
    """Shown or cancelled."""
    assert client.get(f"{RUNS}/{run_id}").status_code == 404
    assert client.post(f"{RUNS}/{run_id}/cancel", json={}).status_code == 404


@step(name="control.fails", max_retries=0)
def fails() -> str:
    if failing["is"]:
        raise LookupError("no address")
    return "sent"


#: Whether the step of ``going_on`` fails.
failing = {"is": False}


@workflow(name="control.going_on")
async def going_on() -> str:
    return await fails()


def test_a_failed_run_is_forked_and_retried(engine, client, monkeypatch):
    """The answer has the new run, and each of the two shows the other; what cannot be is refused with the reason."""
    monkeypatch.setitem(failing, "is", True)
    run_id = client.post(RUNS, json={"workflow": "control.going_on"}).json["id"]
    monkeypatch.setitem(failing, "is", False)

    forked = client.post(f"{RUNS}/{run_id}/fork", json={"from_step": "control.fails"})
    retried = client.post(f"{RUNS}/{run_id}/retry", json={})
    assert (forked.status_code, retried.status_code) == (201, 201)
    for answer in (forked, retried):
        fork = engine.get_run(answer.json["id"])
        assert fork.result(timeout=1) == "sent"
        assert answer.json["forked_from"] == client.get(f"{RUNS}/{fork.id}").json["forked_from"] == run_id
        assert answer.headers["Location"].endswith(fork.id)
    assert retried.json["id"] == forked.json["id"]
    assert client.get(f"{RUNS}/{run_id}").json["forks"] == [forked.json["id"]]

    done = forked.json["id"]
    assert problem_of(client.post(f"{RUNS}/{done}/retry", json={})) == (409, "run-not-retried")
    assert problem_of(client.post(f"{RUNS}/{done}/fork", json={"from_event": 99})) == (409, "run-not-forked")
    both = {"from_event": 1, "from_step": "control.fails"}
    assert problem_of(client.post(f"{RUNS}/{done}/fork", json=both)) == (422, "bad-arguments")
    for route in ("fork", "retry"):
        assert problem_of(client.post(f"{RUNS}/unknown/{route}", json={})) == (404, "run-not-found")


def test_the_events_of_a_run_are_listed_page_by_page(client):
    """In the order of the log and without values; the last page has no next one."""
    run_id = start(client, "control.publishing").json["id"]

    first = client.get(f"{RUNS}/{run_id}/events?limit=3").json
    second = client.get(f"{RUNS}/{run_id}/events?after={first['next']}").json

    assert [event["seq"] for event in first["events"]] == [1, 2, 3]
    assert first["next"] == 3
    assert [event["kind"] for event in second["events"]][-1] == "run_completed"
    assert second["next"] is None
    assert all(set(event) == {"seq", "at", "kind", "operation", "name"} for event in first["events"])
    assert problem_of(client.get(f"{RUNS}/unknown/events")) == (404, "run-not-found")
    for query in ("limit=0", "limit=1_0", "after=-1", "before=3"):
        assert problem_of(client.get(f"{RUNS}/{run_id}/events?{query}")) == (422, "bad-arguments"), query


def test_the_sleeps_of_a_run_are_ended(engine, client):
    """The answer says how many there were; a run that does not sleep has none."""
    run_id = start(client, "control.sleeping").json["id"]

    woken = client.post(f"{RUNS}/{run_id}/wake", json={})
    again = client.post(f"{RUNS}/{run_id}/wake", json={})

    assert (woken.status_code, woken.json) == (200, {"id": run_id, "ended": 1})
    assert engine.get_run(run_id).result(timeout=1) == "awake"
    assert again.json == {"id": run_id, "ended": 0}
    assert problem_of(client.post(f"{RUNS}/unknown/wake", json={})) == (404, "run-not-found")


def test_a_step_in_doubt_is_resolved(engine, client):
    """By its result or by why it has failed, of which a caller gives one; then nothing is in doubt."""
    run_id, other = (in_doubt(engine) for _ in range(2))
    url = f"{RUNS}/{run_id}/resolve"

    for body in ({}, {"step": "r#1"}, {"result": 1, "fail": "no"}, {"result": "much"}, {"fail": ""}):
        assert problem_of(client.post(url, json=body)) == (422, "bad-arguments"), body
    assert problem_of(client.post(url, json={"step": "r#2", "result": 1})) == (409, "step-not-in-doubt")
    resolved = client.post(url, json={"result": 5})
    failed = client.post(f"{RUNS}/{other}/resolve", json={"fail": "no money", "step": "r#1"})

    assert (resolved.status_code, resolved.json) == (200, {"id": run_id, "step": "r#1"})
    assert engine.get_run(run_id).result(timeout=1) == 5
    assert failed.status_code == 200
    assert engine.get_run(other).status == "failed"
    assert problem_of(client.post(url, json={"result": 5})) == (409, "step-not-in-doubt")
    assert problem_of(client.post(f"{RUNS}/unknown/resolve", json={"result": 5})) == (404, "run-not-found")


def in_doubt(engine: Durable) -> str:
    """The id of a run whose step was begun by a process that is gone."""
    engine.celery.conf.task_always_eager = False
    run = engine.start(paying)
    drive(engine, run.id)
    with engine.store.begin() as tx:
        claimed = {"status": "claimed", "claim": run.id, "worker_id": "gone", "claimed_at": 1}
        mine = sa.update(schema.steps).where(schema.steps.c.run_id == run.id)
        tx.execute(mine.values(semantics="at_most_once", **claimed))
    with engine.store.read() as tx:
        held = claimed_attempts.find(tx, run.id, "r#1")
    give_up(engine, held)
    engine.celery.conf.task_always_eager = True
    return run.id


def test_a_run_is_cancelled_once(engine, client):
    """202 for a run that runs, with the reason in its log; 409 for one that has ended."""
    run_id = start(client, "control.approval", "t").json["id"]
    first = client.post(f"{RUNS}/{run_id}/cancel", json={"reason": "too late"})
    second = client.post(f"{RUNS}/{run_id}/cancel", json={})

    assert (first.status_code, first.json) == (202, {"id": run_id, "cancelled": True})
    assert problem_of(second) == (409, "run-ended")
    assert engine.get_run(run_id).status == "cancelled"
    assert "too late" in [getattr(event, "reason", None) for event in engine.get_run(run_id).events()]


def test_a_hook_is_resumed(engine, client):
    """The payload is JSON, checked against the hook's type; the answer has the run's id."""
    plain, item = (start(client, f"control.{name}", name).json["id"] for name in ("approval", "typed"))
    answers = [
        client.post(RESUME, json={"token": "approval", "payload": {"ok": [1, None]}}),
        client.post(RESUME, json={"token": "typed", "payload": {"name": "tea", "count": 7}}),
    ]

    assert [(answer.status_code, answer.json) for answer in answers] == [(202, {"run_id": i}) for i in (plain, item)]
    assert engine.get_run(plain).result(0) == {"ok": [1, None]}
    assert engine.get_run(item).result(0) == 7


def test_a_payload_that_does_not_fit_is_not_delivered(engine, client):
    """422, and its text has no token; 404 for an unknown token, and for a webhook's."""
    start(client, "control.typed", "a-secret-token")
    run = engine.get_run(start(client, "control.listening").json["id"])
    misfit = client.post(RESUME, json={"token": "a-secret-token", "payload": {"count": "many"}})
    webhook = client.post(RESUME, json={"token": run.hooks()[0]["token"], "payload": 1})

    assert problem_of(misfit) == problem_of(webhook) == (422, "bad-arguments")
    assert "payload.name" in misfit.json["detail"]
    assert "a-secret-token" not in misfit.text
    assert problem_of(client.post(RESUME, json={"token": "b", "payload": 1})) == (404, "hook-not-found")


# Ask


def test_a_reply_is_the_answer(engine, client):
    """As plain JSON.  Celery runs the turn within the request, so the connection is not held."""
    start(client, "control.counting", "counted", 1)
    answer = client.post(ASK, json={"token": "counted", "payload": {"name": "tea", "count": 7}})
    assert (answer.status_code, answer.json["reply"]) == (200, {"name": "tea", "count": 8})
    polled = client.get(f"{ROOT}hooks/replies/{answer.json['request_id']}")
    assert (polled.status_code, polled.json) == (200, answer.json)


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_a_caller_polls_for_a_reply_that_is_late(engine, client, timeout):
    """202 with the URL, when its time is over; 409 once the run has ended without a reply."""
    run = engine.get_run(start(client, "control.counting", "late", 0).json["id"])
    engine.celery.conf.task_always_eager = False
    answer = client.post(ASK, json={"token": "late", "payload": {"name": "tea"}, "timeout": timeout})
    pending = {"request_id": answer.json["request_id"], "status": "pending"}
    location = answer.headers["Location"]
    assert (answer.status_code, answer.json) == (202, pending)
    assert location == f"https://h.test/base{ROOT}hooks/replies/{pending['request_id']}"
    path = location.removeprefix("https://h.test/base")
    assert (client.get(path).status_code, client.get(path).json) == (202, pending)
    drive(engine, run.id)
    assert run.status == "completed"
    assert problem_of(client.get(path)) == (409, "reply-not-sent")
    assert "ended without a reply" in client.get(path).json["detail"]


def test_a_held_caller_gets_the_reply_of_another_thread(engine, client):
    """The hub reads it, as it reads the answers to held webhook requests."""
    run = engine.get_run(start(client, "control.counting", "held", 1).json["id"])
    engine.celery.conf.task_always_eager = False
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(client.post, ASK, json={"token": "held", "payload": {"name": "tea"}})
        while not asking.done() and not has_news(engine, run.id):
            pass
        assert not asking.done()
        drive(engine, run.id)
        answer = asking.result(20)
    assert (answer.status_code, answer.json["reply"]) == (200, {"name": "tea", "count": 2})


def has_news(engine: Durable, run_id: str) -> bool:
    with engine.store.read() as tx:
        return run_log.first_inbox_item(tx, run_id) is not None


def test_what_is_refused_is_not_asked(engine, client):
    """With the same answers as for hooks/resume; a validator's refusal is 422, with its text."""
    start(client, "control.counting", "a-secret-token", 1)
    start(client, "control.typed", "typed")
    run = engine.get_run(start(client, "control.listening").json["id"])

    @counts.validator
    def positive(item: Item) -> None:
        if item.count <= 0:
            raise ValueError("count must be more than 0")

    try:
        refused = [client.post(url, json=unfit("a-secret-token", count=0)) for url in (ASK, RESUME)]
    finally:
        counts.validators.clear()
    assert [problem_of(each) for each in refused] == [(422, "bad-arguments")] * 2
    assert refused[0].json["detail"] == "payload: count must be more than 0"
    others = [unfit("a-secret-token", count="many"), unfit("typed"), unfit(run.hooks()[0]["token"])]
    for each in others:
        assert problem_of(client.post(ASK, json=each)) == (422, "bad-arguments")
    assert problem_of(client.post(ASK, json=unfit("nobody"))) == (404, "hook-not-found")
    assert problem_of(client.post(ASK, json={**unfit("typed"), "timeout": 56})) == (422, "bad-arguments")
    assert problem_of(client.get(f"{ROOT}hooks/replies/{'x' * 24}")) == (404, "question-not-found")


def unfit(token: str, **item: Any) -> dict[str, Any]:
    return {"token": token, "payload": {"name": "tea", **item}}


# Malformed requests


@pytest.mark.parametrize(
    ("body", "kind", "wanted"),
    [
        (b"{}", "text/plain", (415, "wrong-media-type")),
        (b"{}", "", (415, "wrong-media-type")),
        (b"a=b", "application/x-www-form-urlencoded", (415, "wrong-media-type")),
        (b"{", "application/json", (400, "bad-request")),
        (b"", "application/json", (400, "bad-request")),
        (b'{"workflow": "\xff"}', "application/json", (400, "bad-request")),
        (b'{"workflow": "control.approval", "args": [NaN]}', "application/json", (400, "bad-request")),
        (b"[" * 1900, "application/json", (400, "bad-request")),
        (b'{"workflow": ' + b"9" * 1900 + b"}", "application/json; charset=utf-8", (422, "bad-arguments")),
        (b"[]", "application/json", (422, "bad-arguments")),
        (b"null", "application/json", (422, "bad-arguments")),
        (b'{"workflow": 5}', "application/json", (422, "bad-arguments")),
        (b'{"workflow": "\\ud800"}', "application/json", (422, "bad-arguments")),
        (b'{"workflow": "control.approval", "args": ["t"], "queue": "q"}', "application/json", (422, "bad-arguments")),
        (
            b'{"workflow": "control.approval", "args": ["t"], "countdown": -1}',
            "application/json",
            (422, "bad-arguments"),
        ),
        (
            b'{"workflow": "control.approval", "args": ["t"], "countdown": "1"}',
            "application/json",
            (422, "bad-arguments"),
        ),
        (
            b'{"workflow": "control.approval", "args": ["t"], "countdown": 1e999}',
            "application/json",
            (422, "bad-arguments"),
        ),
        (b'"' + b"x" * 2000 + b'"', "application/json", (413, "too-large")),
    ],
)
def test_a_body_that_is_no_call_is_refused(engine, client, body, kind, wanted):
    """By its media type, size, syntax or fields; nothing is started."""
    assert problem_of(client.post(RUNS, data=body, content_type=kind)) == wanted
    assert describe.list_runs(engine) == []


@pytest.mark.parametrize("path", sorted({operation.path for operation in OPERATIONS}))
def test_other_methods_are_405(client, path):
    """Allow lists the methods; HEAD, OPTIONS and unknown methods get 405."""
    allowed = {operation.method for operation in OPERATIONS if operation.path == path}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "BREW"} - allowed:
        names = {
            "run_id": "r",
            "stream": "n",
            "schedule": "s",
            "limit": "l",
            "workflow": "w",
            "queue": "q",
            "receiver": "r",
        }
        answer = client.open(ROOT + path.format(request_id="q" * 20, **names), method=method)

        assert answer.status_code == 405
        assert set(answer.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize("path", ["runs/", "runs/a/", "runs/a/b", "runs//cancel", "runs/a/cancel/b", "hooks", "hooks/"])
def test_an_address_that_is_no_route_is_404(client, path):
    """A problem, and not a page."""
    assert problem_of(client.post(ROOT + path, json={})) == (404, "not-found")


def test_a_database_that_is_away_is_503():
    """With Retry-After."""
    made = Durable(Celery("away", broker="memory://"), database_url="postgresql://x@127.0.0.1:9/x")
    answer = client_of(made, lambda _request: True).get(RUNS)
    made.close()

    assert problem_of(answer) == (503, "store-unreachable")
    assert answer.headers["Retry-After"] == "2"


def test_the_document_says_who_may(engine):
    """The security scheme is the function's own, if it has one; the document needs no credentials."""
    document = client_of(engine, bearer("env:ANY")).get(ROOT + "openapi.json").json
    unknown = client_of(engine, lambda _request: False).get(ROOT + "openapi.json").json

    assert document["components"]["securitySchemes"] == {"control": {"type": "http", "scheme": "bearer"}}
    assert document["paths"][RUNS]["get"]["security"] == [{"control": []}]
    assert "security" not in unknown["paths"][RUNS]["get"]
    assert document["servers"] == [{"url": "https://h.test/base"}]


def test_the_document_takes_get_alone(client):
    """405 for all else."""
    assert problem_of(client.post(ROOT + "openapi.json")) == (405, "method-not-allowed")


def test_schedules_are_listed_paused_and_triggered(engine, client):
    """As the command line does it."""
    for name in ("a-hourly", "b-hourly"):
        create_schedule(name, listening, every="1h")
    page = client.get(ROOT + "schedules?limit=1").json
    assert [each["name"] for each in page["schedules"]] == ["a-hourly"]
    assert client.get(f"{ROOT}schedules?after={page['next']}").json["schedules"][0]["name"] == "b-hourly"
    assert len(client.get(ROOT + "schedules/a-hourly").json["next"]) == 10
    for action, status in (("pause", "paused"), ("pause", "paused"), ("resume", "active")):
        answer = client.post(f"{ROOT}schedules/a-hourly/{action}", json={})
        assert (answer.status_code, answer.json) == (200, {"name": "a-hourly", "status": status})
    answer = client.post(ROOT + "schedules/a-hourly/trigger", json={})
    assert answer.status_code == 201
    assert get_run(answer.json["run_id"]).exists
    assert problem_of(client.get(ROOT + "schedules/nothing")) == (404, "schedule-not-found")


def test_a_schedule_is_made_changed_and_deleted(engine, client):
    """PUT makes and changes one, with arguments by position or by name; DELETE deletes it."""
    url = ROOT + "schedules/orders"
    body = {"workflow": "control.order", "args": [{"name": "pen"}, "2026-01-31"], "cron": "0 3 * * *"}
    made = client.put(url, json={**body, "tz": "Europe/Vienna"})
    changed = client.put(
        url,
        json={
            "workflow": "control.order",
            "args": {"item": {"name": "pen"}, "day": "2026-01-31"},
            "every": "1h",
            "overlap": "queue",
            "catch_up": "none",
            "jitter": "5m",
            "until": "2099-01-01T00:00:00Z",
        },
    )
    assert (made.status_code, made.json["tz"], made.json["declared"]) == (200, "Europe/Vienna", False)
    assert changed.status_code == 200
    shown = {name: changed.json[name] for name in ("tz", "overlap", "catch_up", "jitter", "until")}
    assert shown == {
        "tz": "UTC",
        "overlap": "queue",
        "catch_up": "none",
        "jitter": "300s",
        "until": "2099-01-01T00:00:00+00:00",
    }
    started = client.post(url + "/trigger", json={}).json["run_id"]
    assert get_run(started).result(timeout=20) == ["Item", 1, date(2026, 1, 31), []]
    answer = client.delete(url)
    assert (answer.status_code, answer.json) == (200, {"name": "orders", "deleted": True})
    assert problem_of(client.delete(url)) == (404, "schedule-not-found")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"workflow": "control.unknown"}, (404, "workflow-not-found")),
        ({"args": ["no such argument"]}, (422, "bad-arguments")),
        ({"every": "1h"}, (422, "bad-arguments")),
        ({"cron": "0 0 30 2 *"}, (422, "bad-arguments")),
        ({"tz": "Europe/Wien"}, (422, "bad-arguments")),
        ({"until": "2099-01-01"}, (422, "bad-arguments")),
        ({"until": 4070908800}, (422, "bad-arguments")),
        ({"until": "9999-12-31T23:59:59-05:00"}, (422, "bad-arguments")),
        ({"overlap": "both"}, (422, "bad-arguments")),
        ({"often": True}, (422, "bad-arguments")),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(engine, client, change, wanted):
    """With the reason; nothing is written."""
    body = {"workflow": "control.listening", "cron": "0 3 * * *", **change}

    assert problem_of(client.put(ROOT + "schedules/wrong", json=body)) == wanted
    assert problem_of(client.get(ROOT + "schedules/wrong")) == (404, "schedule-not-found")
    assert client.get(ROOT + "schedules").status_code == 200


def test_a_declared_schedule_is_neither_changed_nor_deleted(engine, client, declared):
    """409: the next deploy would undo it."""
    url = f"{ROOT}schedules/{declared.name}"
    body = {"workflow": "control.listening", "every": "2h"}

    assert problem_of(client.put(url, json=body)) == (409, "schedule-declared")
    assert problem_of(client.delete(url)) == (409, "schedule-declared")
    assert client.get(url).json["timing"] == "every 1h"


def test_a_range_of_a_schedule_is_backfilled(engine, client):
    """Once for each planned time; a range that cannot be is refused."""
    create_schedule("hourly", listening, every="1h")
    url = ROOT + "schedules/hourly/backfill"
    day = {"start": "2026-05-01T00:00:00Z", "end": "2026-05-01T02:30:00+00:00"}
    first, second = client.post(url, json=day), client.post(url, json=day)

    assert first.status_code == second.status_code == 201
    assert len(first.json["run_ids"]) == 3
    assert second.json == {"name": "hourly", "run_ids": []}
    assert {run.id for run in get_schedule("hourly").runs()} == set(first.json["run_ids"])
    wrong_starts = [{**day, "start": start} for start in ("2026-05-01T00:00:00", "0001-01-01T00:00:00Z")]
    for wrong in ({**day, "end": "2099-01-01T00:00:00Z"}, *wrong_starts, {}):
        assert problem_of(client.post(url, json=wrong)) == (422, "bad-arguments")


def test_limits_are_listed_and_set(engine, client):
    """As the command line does it; the next run has room at once."""
    first, second = (start(client, "control.one_at_a_time").json["id"] for _ in range(2))

    def shown() -> dict[str, Any]:
        (found,) = [each for each in client.get(ROOT + "limits").json["limits"] if each["limit"] == "control.one"]
        return found

    assert [shown()[name] for name in ("of", "n", "set", "in_use", "waiting")] == ["runs", 1, False, 1, 1]
    answer = client.put(ROOT + "limits/control.one", json={"n": 2})
    assert (answer.status_code, answer.json) == (200, {"limit": "control.one", "n": 2})
    assert [shown()[name] for name in ("n", "set")] == [2, True]
    assert client.put(ROOT + "limits/control.one", json={"n": None}).json["n"] is None
    assert client.post(ROOT + "limits/control.one/resume", json={}).json == {"limit": "control.one", "ended": 0}
    assert problem_of(client.put(ROOT + "limits/nothing", json={"n": 2})) == (404, "limit-not-found")
    for wrong in ({"n": 0}, {"n": "2"}, {}):
        assert problem_of(client.put(ROOT + "limits/control.one", json=wrong)) == (422, "bad-arguments")
    assert {get_run(each).status for each in (first, second)} == {"running", "pending"}


def test_what_a_run_has_published_is_listed(engine, client):
    """The latest value of each name, as plain JSON."""
    run = start(client, "control.publishing").json["id"]
    listed = client.get(f"{RUNS}/{run}/values").json["values"]
    assert [(each["name"], each["value"]) for each in listed] == [("count", 2), ("item", {"name": "pen", "count": 1})]
    assert all(each["published_at"] for each in listed)
    assert problem_of(client.get(f"{RUNS}/unknown/values")) == (404, "run-not-found")


def test_what_a_run_has_emitted_is_listed_page_by_page(engine, client):
    run = start(client, "control.emitting").json["id"]
    (listed,) = client.get(f"{RUNS}/{run}/streams").json["streams"]
    assert (listed["name"], listed["items"], listed["is_over"]) == ("rows", 5, True)
    page = client.get(f"{RUNS}/{run}/streams/rows?start=1&limit=3").json
    assert [each["item"]["count"] for each in page["items"]] == [1, 2, 3]
    assert (page["next"], page["is_over"]) == (4, False)
    last = client.get(f"{RUNS}/{run}/streams/rows?start=4").json
    assert ([each["number"] for each in last["items"]], last["next"], last["is_over"]) == ([4], 5, True)
    assert client.get(f"{RUNS}/{run}/streams/nothing").json == {"items": [], "next": 0, "is_over": True}
    assert problem_of(client.get(f"{RUNS}/{run}/streams/rows?limit=501")) == (422, "bad-arguments")
    assert problem_of(client.get(f"{RUNS}/{run}/streams/%20rows")) == (422, "bad-arguments")
    for path in ("streams", "streams/rows"):
        assert problem_of(client.get(f"{RUNS}/unknown/{path}")) == (404, "run-not-found")


def test_requests_to_receivers_are_listed_and_routed_again(engine, client, monkeypatch):
    """What a rule could not route reaches its run once the rule is corrected."""
    for kind in ("known", "new"):
        monkeypatch.setitem(KNOWN_KINDS, "known", True)
        client.post(ROOT + "receive/control.events", json={"kind": kind})
    (shown,) = [each for each in client.get(ROOT + "receivers").json["receivers"] if each["name"] == "control.events"]
    (kept,) = client.get(ROOT + "receivers/requests?outcome=unroutable&receiver=control.events").json["requests"]
    monkeypatch.setitem(KNOWN_KINDS, "new", True)
    retry = f"{ROOT}receivers/requests/{kept['id']}/retry"
    answer = client.post(retry, json={})

    assert shown["requests"] == {"started": 1, "unroutable": 1}
    assert (kept["run_id"], "KeyError" in kept["detail"]) == (None, True)
    (routed,) = answer.json["requests"]
    assert (answer.status_code, routed["id"], routed["outcome"]) == (200, kept["id"], "started")
    assert get_run(routed["run_id"]).result(timeout=20) == "new"
    assert problem_of(client.post(retry, json={})) == (404, "request-not-found")
    assert len(client.get(ROOT + "receivers/requests?outcome=started&outcome=unroutable&limit=5").json["requests"]) == 2
    assert problem_of(client.get(ROOT + "receivers/requests?outcome=lost")) == (422, "bad-arguments")


def test_a_request_of_a_receiver_that_is_not_imported_stays(engine, client, monkeypatch):
    """409: another process has its rules."""
    client.post(ROOT + "receive/control.events", json={"kind": "unknown"})
    (kept,) = client.get(ROOT + "receivers/requests").json["requests"]
    monkeypatch.delitem(receivers, "control.events")

    answer = client.post(f"{ROOT}receivers/requests/{kept['id']}/retry", json={})
    assert problem_of(answer) == (409, "receiver-not-imported")
    assert client.get(ROOT + "receivers/requests").json["requests"] == [kept]
