"""
The blueprint and the ASGI application, with a real engine on SQLite, Celery in eager mode, and a test client.

What needs Flask takes the fixture ``app``; all other tests run on both.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from asgi_client import client_of
from celery import Celery
from eventually import eventually
from servers import migrate
from sqlalchemy.orm import scoped_session, sessionmaker
from werkzeug.test import Client, TestResponse

from durable import Durable, Request, Response, Run, create_hook, create_webhook, step, workflow
from durable.client import new_request_id
from durable.display import mask
from durable.errors import SchemaOutOfDate
from durable.recovery import housekeeping
from durable.web import MaskTokens, body, create_asgi_app, create_blueprint, drain, webhook_view
from durable.web.wsgi_request import PATH, ROOT, Target

BYTES = bytes(range(256))
EXACT = Response(
    BYTES,
    201,
    [
        ("Content-Type", "application/x-own"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("X-Name", "caf\xe9"),
        ("Location", "relative/%7e?q=a b"),
    ],
)

MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "static": {"respond_with": EXACT},
    "manual": {"respond_with": "manual"},
    "brief": {"respond_with": "manual", "timeout": "100ms"},
    "busy": {"respond_with": "manual", "timeout": 0, "on_timeout": Response(b"later", 503)},
    "put": {"methods": ("PUT", "GET")},
    "small": {"max_body": 10},
}


@step
def take(request: Request) -> dict[str, Any]:
    if request.headers.get("X-Do") == "answer":
        request.respond_with(Response(request.data, 201, content_type="application/x-echo"))
    return {"url": request.url, "data": request.data, "headers": list(request.headers)}


@workflow
async def listening(mode: str) -> list[Any]:
    taken = []
    async for request in create_webhook(**MODES[mode]):
        taken.append(await take(request))
        if request.headers.get("X-Last"):
            break
    return taken


@workflow
async def hooked(token: str) -> Any:
    return await create_hook(token=token)


@contextmanager
def eager_engine(folder: Path) -> Iterator[Durable]:
    """An engine whose turns and steps run at once, in the caller."""
    celery = Celery("test_web", broker="memory://")
    celery.conf.task_always_eager = True
    made = Durable(celery, database_url=f"sqlite:///{folder}/durable.db", public_url="https://hooks.test/base")
    migrate(made)
    yield made
    housekeeping.end(made)
    made.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Durable]:
    with eager_engine(tmp_path) as made:
        yield made


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def server(request: pytest.FixtureRequest) -> str:
    """What serves the requests: the blueprint, or the ASGI application."""
    return request.param


@pytest.fixture(scope="module")
def idle(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of an application where nothing runs."""
    with eager_engine(tmp_path_factory.mktemp("idle")) as made:
        yield make_client(server, made)


@pytest.fixture
def app(engine: Durable) -> flask.Flask:
    return make_app(engine)


def make_client(server: str, engine: Durable) -> Client:
    if server == "asgi":
        return client_of(create_asgi_app(engine, url_prefix="/base"))
    return make_app(engine).test_client()


def make_app(engine: Durable) -> flask.Flask:
    app = flask.Flask("test_web_app")
    app.register_blueprint(create_blueprint(engine, url_prefix="/base"))
    return app


@dataclass
class Webhook:
    """A webhook that a run listens on, and a client that posts to it."""

    run: Run[Any]
    token: str
    client: Any

    @property
    def path(self) -> str:
        return f"/base{PATH}{self.token}"

    def post(self, data: bytes = b"", **headers: str) -> TestResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(self.path, data=data, headers=named)

    def received(self) -> int:
        return len([event for event in self.run.events() if event.kind == "hook_received"])

    def wait_for_one(self) -> None:
        eventually(self.received)


@pytest.fixture
def client(server: str, engine: Durable) -> Client:
    return make_client(server, engine)


@pytest.fixture
def listen(engine: Durable, client: Client) -> Callable[[str], Webhook]:
    """Starts a run that listens in one of the MODES, on both servers."""
    return partial(listen_in, engine, client)


@pytest.fixture
def listen_on_flask(engine: Durable, app: flask.Flask) -> Callable[[str], Webhook]:
    """The same, on the Flask application ``app``."""
    return partial(listen_in, engine, app.test_client())


def listen_in(engine: Durable, client: Client, mode: str) -> Webhook:
    run = engine.start(listening, mode)
    (hook,) = run.hooks()
    return Webhook(run, hook["token"], client)


def assert_problem(response: TestResponse, status: int) -> None:
    """An error as api.md has them: problem details, not stored, no HTML."""
    assert (response.status_code, response.content_type) == (status, "application/problem+json")
    assert response.json["status"] == status
    assert {"type", "title", "detail"} <= set(response.json)
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Referrer-Policy"] == "no-referrer"


# How it answers.


def test_c57_default_mode_answers_202_with_nothing(listen):
    """The request is recorded; the answer has an empty body and no content type."""
    webhook = listen("default")

    response = webhook.post(b"hello")

    assert (response.status_code, response.data) == (202, b"")
    assert "Content-Type" not in response.headers
    assert webhook.received() == 1


def test_c57_static_mode_answers_exactly_what_was_given(listen):
    """Bytes, both cookies, latin-1 and a relative Location are sent unchanged."""
    response = listen("static").post(b"")

    assert (response.status_code, response.data) == (201, BYTES)
    sent = [(name.lower(), value) for name, value in response.headers if name.lower() != "content-length"]
    assert sent == [(name.lower(), value) for name, value in EXACT.headers]


def test_c57_manual_mode_answers_what_the_step_says(listen):
    """The step's response is sent on the connection of the request."""
    response = listen("manual").post(BYTES, X_Do="answer")

    assert (response.status_code, response.data) == (201, BYTES)
    assert response.headers["Content-Type"] == "application/x-echo"


def test_c63_the_workflow_sees_the_request_as_it_was_sent(listen, engine):
    """URL, bytes and repeated headers reach the step unchanged."""
    webhook = listen("default")

    webhook.client.post(
        webhook.path + "?q=%20a&q=b%2F", data=BYTES, headers=[("X-Twice", "1"), ("X-Twice", "2"), ("X-Last", "1")]
    )

    (seen,) = webhook.run.result(timeout=20)
    assert seen["data"] == BYTES
    assert seen["url"] == f"http://localhost{webhook.path}?q=%20a&q=b%2F"
    assert ",".join(value for name, value in seen["headers"] if name == "X-Twice") in ("1,2", "1, 2")


def test_c66_a_taken_request_without_an_answer_is_500_at_the_runs_end(listen):
    """A run that ends without an answer does not let its sender wait."""
    response = listen("manual").post(b"", X_Last="1")

    assert_problem(response, 500)
    assert response.json["code"] == "webhook-response-not-sent"


def test_c65_a_cancelled_run_answers_503(listen):
    """A request that is held when its run is cancelled gets 503 at once."""
    webhook = listen("manual")
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(webhook.post, b"")
        webhook.wait_for_one()
        webhook.run.cancel()

        assert_problem(held.result(timeout=20), 503)


# When there is no answer in time.


def test_a_hold_that_times_out_says_where_to_ask(listen):
    """202, the request's id, and an absolute Location below public_url."""
    webhook = listen("brief")

    response = webhook.post(b"")

    assert response.status_code == 202
    assert response.json == {"request_id": response.json["request_id"], "status": "pending"}
    where = f"https://hooks.test/base{PATH}{webhook.token}/requests/{response.json['request_id']}"
    assert response.headers["Location"] == where
    assert webhook.received() == 1


def test_c66_a_poll_is_202_until_it_is_what_a_held_connection_would_have_got(listen, engine):
    """The poll gets the exact answer later, with Durable-Recorded."""
    webhook = listen("brief")
    client, pending = webhook.client, webhook.post(b"")
    path = pending.headers["Location"].removeprefix("https://hooks.test")

    assert client.get(path).status_code == 202
    assert client.get(path).json["status"] == "pending"
    assert engine.respond(pending.json["request_id"], EXACT.checked())
    answer = client.get(path)

    assert (answer.status_code, answer.data) == (201, BYTES)
    assert answer.headers.getlist("Set-Cookie") == ["a=1", "b=2"]
    assert answer.headers["Durable-Recorded"] == "true"


def test_a_poll_needs_both_the_token_and_the_id(listen):
    """A request id is unknown at another webhook, and so is an invented id."""
    one, other = listen("brief"), listen("brief")
    request_id = one.post(b"").json["request_id"]

    assert_problem(one.client.get(f"{other.path}/requests/{request_id}"), 404)
    assert_problem(one.client.get(f"{one.path}/requests/{'x' * 24}"), 404)
    assert_problem(one.client.get(f"{one.path}/requests/{request_id}//"), 404)


def test_a_trailing_slash_is_accepted(listen):
    """Some senders add a slash: the request is delivered, and its URL is unchanged."""
    webhook = listen("default")

    assert webhook.client.post(f"{webhook.path}/?a=1", data=b"abc").status_code == 202
    assert webhook.post(b"", X_Last="1").status_code == 202
    assert [taken["url"].partition("/webhook/")[2] for taken in webhook.run.result(timeout=10)] == [
        f"{webhook.token}/?a=1",
        webhook.token,
    ]


def test_a_poll_may_end_in_a_slash(listen):
    """Location has no slash at its end, but a poll may have one."""
    webhook = listen("brief")

    pending = webhook.client.post(f"{webhook.path}/")
    location = pending.headers["Location"].removeprefix("https://hooks.test")

    assert location == f"{webhook.path}/requests/{pending.json['request_id']}"
    assert webhook.client.get(location).status_code == webhook.client.get(f"{location}/").status_code == 202


@pytest.mark.parametrize("end", ["//", "/x", "/requests", "/requests/", "/?/", "%2F%2F", "/%0A"])
def test_no_more_than_one_slash_is_accepted(listen, end):
    """More text after the token is 404; a query may contain anything."""
    webhook = listen("default")

    answer = webhook.client.post(webhook.path + end)

    if end == "/?/":
        assert answer.status_code == 202
    else:
        assert_problem(answer, 404)
        assert webhook.received() == 0


def test_a_poll_is_a_get(listen):
    """Other methods are refused, and deliver nothing."""
    webhook = listen("brief")
    request_id = webhook.post(b"").json["request_id"]

    response = webhook.client.post(f"{webhook.path}/requests/{request_id}")

    assert_problem(response, 405)
    assert response.headers["Allow"] == "GET"
    assert webhook.received() == 1


def test_on_timeout_is_answered_instead(listen):
    """The sender gets the webhook's on_timeout, and the request is recorded."""
    webhook = listen("busy")

    response = webhook.post(b"")

    assert (response.status_code, response.data) == (503, b"later")
    assert webhook.received() == 1


def test_a_process_that_holds_nothing_says_so_once(listen_on_flask, engine, caplog):
    """On a server of one request at a time a manual webhook answers 202 at once, and the log says why, once."""
    webhook = listen_on_flask("manual")

    answers = [webhook.client.post(webhook.path, environ_overrides={"SERVER_SOFTWARE": "one-at-a-time"}) for _ in "ab"]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert all(answer.json["status"] == "pending" for answer in answers)
    assert webhook.received() == 2
    assert caplog.text.count("--worker-class gthread") == 1


def test_an_answer_that_is_there_already_is_given_without_holding(listen):
    """An answer of an eager or very fast worker is sent at once, even if no connection can be held."""
    webhook = listen("manual")

    answer = webhook.client.post(
        webhook.path, data=b"x", headers={"X-Do": "answer"}, environ_overrides={"SERVER_SOFTWARE": "one"}
    )

    assert (answer.status_code, answer.data) == (201, b"x")


def test_drain_ends_a_hold(listen, engine):
    """drain(engine) gives every held connection its timeout answer at once."""
    webhook = listen("manual")
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(webhook.post, b"")
        webhook.wait_for_one()
        drain(engine)

        assert held.result(timeout=20).json["status"] == "pending"


def test_a_hold_gives_the_applications_connection_back(listen_on_flask, app, tmp_path):
    """The database connection of Flask-SQLAlchemy's session is released while a request is held."""
    database = sa.create_engine(f"sqlite:///{tmp_path}/app.db", poolclass=sa.QueuePool)
    session = scoped_session(sessionmaker(database))
    app.extensions["sqlalchemy"] = SimpleNamespace(session=session)
    in_use: list[int] = []
    app.before_request(lambda: session.execute(sa.text("SELECT 1")) and None)

    @app.after_request
    def note(response: flask.Response) -> flask.Response:
        in_use.append(database.pool.checkedout())
        return response

    listen_on_flask("brief").post(b"")

    assert in_use == [0]
    session.remove()
    database.dispose()


def test_nothing_that_fails_after_the_request_is_recorded_is_an_error(listen_on_flask, app, monkeypatch, caplog):
    """A failure of the application's session or of the database then would make the sender repeat its request."""
    webhook = listen_on_flask("brief")

    def broken(*_: object) -> None:
        raise RuntimeError("the connection is lost")

    session = SimpleNamespace(registry=SimpleNamespace(has=lambda: True), new=(), dirty=(), deleted=(), remove=broken)
    app.extensions["sqlalchemy"] = SimpleNamespace(session=session)
    held = webhook.post(b"")
    monkeypatch.setattr(webhook_view.record_request, "answers", broken)
    not_held = webhook.post(b"", Prefer="respond-async")

    assert [answer.json["status"] for answer in (held, not_held)] == ["pending"] * 2
    assert webhook.received() == 2
    assert "session could not be closed: RuntimeError" in caplog.text
    assert "recorded request cannot be read: RuntimeError" in caplog.text


# What it refuses.


BAD_TOKENS = [
    "",
    "/",
    "short",
    "x" * 43,
    "x" * 5000,
    "x" * 43 + "/",
    "x" * 43 + "\n",
    "x" * 43 + "\0",
    "a/b" * 20,
    "/" + "x" * 43,
    "../" * 10,
    "'; DROP TABLE durable_runs; --",
    "\N{PILE OF POO}" * 22,
    "x" * 43 + "/requests/",
    "x" * 43 + "/requests/" + "y" * 24,
    "x" * 43 + "//requests/" + "y" * 24,
]


@pytest.mark.parametrize("token", BAD_TOKENS, ids=lambda token: ascii(token)[:20])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_c58_unknown_and_malformed_tokens_are_404(idle, token, method):
    """Every malformed path gets problem details: no page of Flask, no redirect, no 500, and no token."""
    response = idle.open("/base" + PATH + token, method=method)

    assert_problem(response, 404)
    assert len(token) < 5 or token not in response.text


@pytest.mark.parametrize("encoded", ["%00" * 30, "x%2Fy", "%", "%zz", "%ff%fe", "%0A", "x" * 43 + "%0a"])
def test_c63_percent_encoded_tokens_are_404(idle, encoded):
    """A token that the server has decoded from percent-encoding is 404 too."""
    assert_problem(idle.post("/base" + PATH + encoded), 404)


def test_c58_a_plain_hooks_token_is_404(app, engine):
    """A hook that is no webhook has no URL."""
    engine.start(hooked, "plain-hook-token-of-36-characters----")

    assert_problem(app.test_client().post(f"/base{PATH}plain-hook-token-of-36-characters----"), 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "FROB"])
def test_a_method_that_is_not_enabled_is_405(listen, method):
    """POST is the default; Allow lists the enabled methods, and nothing is delivered."""
    webhook = listen("default")

    response = webhook.client.open(webhook.path, method=method)

    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    if method != "HEAD":
        assert_problem(response, 405)
    assert webhook.received() == 0


def test_c63_methods_can_be_enabled_but_head_and_options_never_deliver(listen):
    """A webhook accepts its own methods and no others."""
    webhook = listen("put")

    statuses = {
        method: webhook.client.open(webhook.path, method=method).status_code
        for method in ("PUT", "GET", "POST", "HEAD", "OPTIONS")
    }

    assert statuses == {"PUT": 202, "GET": 202, "POST": 405, "HEAD": 405, "OPTIONS": 405}
    assert webhook.received() == 2


def test_c64_a_closed_webhook_is_410(listen):
    """After the loop ends, every request gets 410, also with another method or large headers."""
    webhook = listen("default")
    webhook.post(b"", X_Last="1")

    assert_problem(webhook.post(b""), 410)
    assert_problem(webhook.client.get(webhook.path), 410)
    assert_problem(webhook.post(b"x" * 2_000_000, X_Large="x" * 100_000), 410)


def test_c68_one_byte_over_the_limit_is_413(listen):
    """The limit is the webhook's own, else 1 MiB; a body of exactly the limit is accepted."""
    small, default = listen("small"), listen("default")

    assert [small.post(b"x" * 10).status_code, default.post(b"x" * 2**20).status_code] == [202, 202]
    assert_problem(small.post(b"x" * 11), 413)
    assert_problem(default.post(b"x" * (2**20 + 1)), 413)
    assert [small.received(), default.received()] == [1, 1]


def test_a_chunked_body_that_the_server_cannot_deliver_is_411(listen_on_flask):
    """It is not recorded with an empty body."""
    webhook = listen_on_flask("default")

    response = webhook.client.post(
        webhook.path,
        environ_overrides={"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""},
    )

    assert_problem(response, 411)
    assert webhook.received() == 0


def test_c68_a_short_body_is_400(listen):
    """A request whose sender disconnects in the body is not recorded."""
    webhook = listen("default")

    response = webhook.client.post(webhook.path, data=b"abc", environ_overrides={"CONTENT_LENGTH": "10"})

    assert_problem(response, 400)
    assert webhook.received() == 0


def test_more_than_is_kept_of_what_the_application_read_is_503(app, listen_on_flask, monkeypatch, caplog):
    """It is not recorded with a part of the body; the log says what to change."""
    monkeypatch.setattr(body, "KEPT", 5)
    app.before_request(lambda: flask.request.get_data(cache=False) and None)
    webhook = listen_on_flask("default")

    assert webhook.post(b"12345").status_code == 202
    answer = webhook.post(b"123456")

    assert_problem(answer, 503)
    assert answer.json["code"] == "body-already-read"
    assert "Let before_request skip the endpoints durable.*" in caplog.text
    assert webhook.received() == 1


def test_a_body_that_ends_early_is_logged_where_middleware_may_have_read_it(app, listen_on_flask, caplog):
    """The server does not show who read the bytes, so the log names both causes."""

    class Opaque:
        def __init__(self, sent: io.BytesIO) -> None:
            self.read = sent.read

    webhook = listen_on_flask("default")
    answer = webhook.client.post(
        webhook.path, environ_overrides={"wsgi.input": Opaque(io.BytesIO(b"abc")), "CONTENT_LENGTH": "10"}
    )

    assert_problem(answer, 400)
    assert "its body ended after 3 of 10 bytes" in caplog.text
    assert "environ['wsgi.input'] = io.BytesIO(body)" in caplog.text
    assert webhook.token not in caplog.text


def test_other_paths_keep_their_input_and_their_limits(app):
    """Only requests below the blueprint's path go through Body."""
    app.config["MAX_CONTENT_LENGTH"] = 10
    app.add_url_rule("/own", "own", lambda: type(flask.request.environ["wsgi.input"]).__name__, methods=["POST"])
    app.add_url_rule("/read", "read", lambda: flask.request.get_data(), methods=["POST"])
    client = app.test_client()

    assert client.post("/own", data=b"abc").text == "BytesIO"
    assert client.post("/read", data=b"x" * 11).status_code == 413


@pytest.mark.parametrize(
    "environ",
    [
        {"HTTP_TRANSFER_ENCODING": "gzip, chunked"},
        {"HTTP_TRANSFER_ENCODING": ""},
        {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": "", "SERVER_PROTOCOL": "HTTP/1.0"},
        {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": "3", "wsgi.input_terminated": True},
        {"CONTENT_LENGTH": "+3"},
        {"CONTENT_LENGTH": "0_3"},
        {"CONTENT_LENGTH": "3, 3"},
    ],
)
def test_a_request_that_does_not_say_where_it_ends_is_400(listen, server, environ):
    """An ambiguous end gets 400 on every server; gevent's own server and ASGI servers also close the connection."""
    webhook = listen("default")
    for software, connection in (("gunicorn/27", None), ("gevent/26.9 Python/3.11", "close")):
        response = webhook.client.post(
            webhook.path, data=b"abc", environ_overrides={**environ, "SERVER_SOFTWARE": software}
        )

        assert_problem(response, 400)
        assert response.headers.get("Connection") == (connection if server == "wsgi" else "close")
    assert webhook.received() == 0


# Failures of our own.


def test_c68_an_unreachable_database_is_503(caplog):
    """The sender gets 503 with Retry-After; the application starts without a database."""
    celery = Celery("test_web_down", broker="memory://")
    # Nothing can listen on port 1 unless root wants it to.
    down = Durable(celery, database_url="postgresql://postgres@127.0.0.1:1/none")
    client = make_app(down).test_client()

    response = client.post(f"/base{PATH}{'x' * 43}")

    assert_problem(response, 503)
    assert response.headers["Retry-After"] == "2"
    assert "unreachable" in caplog.text
    down.close()


class Outdated(Durable):
    """An engine whose database has an old schema; SQLite would migrate itself."""

    def check_schema(self) -> None:
        raise SchemaOutOfDate("0000", "0001")


def test_an_old_schema_stops_the_web_process(tmp_path):
    """Registering the blueprint raises an error that names the command to run."""
    outdated = Outdated(Celery("test_web_old", broker="memory://"), database_url=f"sqlite:///{tmp_path}/a.db")

    with pytest.raises(SchemaOutOfDate, match="durable migrate"):
        make_app(outdated)

    outdated.close()


def test_a_bug_is_500_and_shows_nothing(listen, caplog, monkeypatch):
    """An unexpected error is logged with its traceback, without the token; the answer does not show it."""
    webhook = listen("default")

    def broken(*_: object) -> None:
        raise RuntimeError(f"SELECT … {webhook.token}")

    monkeypatch.setattr(webhook_view.record_request, "find_webhook", broken)
    response = webhook.post(b"")

    assert_problem(response, 500)
    assert "RuntimeError" in caplog.text
    assert webhook.token not in caplog.text
    assert "RuntimeError" not in response.text


# Logs.


def test_no_token_reaches_a_log(listen, caplog):
    """No record of any logger, at any level, contains the token, whatever the answer is."""
    caplog.set_level(logging.DEBUG)
    webhook = listen("brief")

    webhook.post(b"")
    webhook.client.get(webhook.path)
    webhook.client.get(f"{webhook.path}/requests/{'x' * 24}")
    webhook.post(b"", X_Last="1")
    webhook.post(b"")

    assert webhook.token not in caplog.text


TOKEN = "Zt5yQ2x_bN-7" * 3
LINE = f"POST /base/.well-known/workflow/v1/webhook/{TOKEN}?a=1 HTTP/1.1"


class Atoms(dict[str, str]):
    """As gunicorn's: unknown atoms read as "-"."""

    def __missing__(self, name: str) -> str:
        return "-"


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ('%(h)s "%(r)s" %({referer}i)s', (Atoms(h="1.2.3.4", r=LINE),)),
        ('%s - - "%s" %s', ("1.2.3.4", LINE, 202)),
        (LINE, None),
        (LINE.replace("/webhook/", "/webhook%2f"), None),
        (LINE.replace("?a=1", "/requests/abc"), None),
        (LINE.replace("?a=1", "/"), None),
    ],
)
def test_masked_in_access_logs(message, args):
    """In gunicorn's atoms, positional arguments and whole lines; the rest of the line stays."""
    record = logging.LogRecord("access", logging.INFO, __file__, 1, message, args, None)

    assert MaskTokens().filter(record)

    assert TOKEN not in record.getMessage()
    assert "v1/webhook" in record.getMessage()
    assert "HTTP/1.1" in record.getMessage()


def test_what_proves_a_sender_is_masked():
    """Credentials in the query and in headers that gunicorn logs are masked; a missing header stays "-"."""
    atoms = Atoms(
        {"r": f"GET {PATH}x?hub.verify_token=s3cret&access_token=s3cret&hub.mode=subscribe"}
        | {"{authorization}i": "Bearer s3cret", "{stripe-signature}i": "t=1,v1=s3cret", "{cookie}i": "-"}
        | {"{http_authorization}e": "Bearer s3cret", "{http_x_hub_signature_256}e": "s3cret"}
        | {"{user-agent}i": "agent"}
    )
    form = "%(r)s %({authorization}i)s %({stripe-signature}i)s %({cookie}i)s %({user-agent}i)s"
    form += " %({http_authorization}e)s %({http_x_hub_signature_256}e)s"
    record = logging.LogRecord("gunicorn.access", logging.INFO, __file__, 1, form, (atoms,), None)
    MaskTokens().filter(record)

    assert "s3cret" not in record.getMessage()
    assert record.getMessage().endswith("hub.mode=subscribe ... ... - agent ... ...")


@pytest.mark.parametrize(
    "credential",
    ["access_token", "hub.verify_token", "validationToken", "crc_token", "clientState", "token"],
)
def test_credentials_in_the_query_of_a_receiver_are_masked(credential):
    """The name of a receiver is no secret and stays; a credential in its query is masked in a line and in atoms."""
    line = f"GET {ROOT}receive/events?{credential}=s3cret&start=1 HTTP/1.1"
    masked = f"GET {ROOT}receive/events?{credential}=...&start=1 HTTP/1.1"
    record = logging.LogRecord("gunicorn.access", logging.INFO, __file__, 1, "%(r)s", (Atoms(r=line),), None)
    MaskTokens().filter(record)

    assert record.getMessage() == masked
    assert mask(line) == masked


@pytest.mark.parametrize("atom", ["q", "{query_string}e", "query_string"])
@pytest.mark.parametrize("credential", ["token", "access_token"])
@pytest.mark.parametrize("route", ["receive/events", "streams/01a2/rows", "values/01a2"])
def test_credentials_in_an_atom_of_the_query_alone_are_masked(atom, credential, route):
    """A log format may show path and query apart: the path tells whose query it is."""
    atoms = Atoms({"U": f"{ROOT}{route}", atom: f"{credential}=s3cret&start=1"})
    form = f"%(U)s %({atom})s"
    record = logging.LogRecord("gunicorn.access", logging.INFO, __file__, 1, form, (atoms,), None)
    MaskTokens().filter(record)

    assert record.getMessage() == f"{ROOT}{route} {credential}=...&start=1"


def test_the_query_of_another_route_is_not_masked():
    """A parameter named token of the application's own route is the application's to log."""
    atoms = Atoms(U="/search", q="token=noun&start=1")
    record = logging.LogRecord("gunicorn.access", logging.INFO, __file__, 1, "%(U)s %(q)s", (atoms,), None)
    MaskTokens().filter(record)

    assert record.getMessage() == "/search token=noun&start=1"


def test_headers_are_shown_without_what_proves_a_sender():
    """The repr of a request's headers hides secrets; their values can be read by name."""
    secret = {
        name: "s3cret" for name in ("Authorization", "Cookie", "X-Hub-Signature-256", "X-Api-Key", "X-Gitlab-Token")
    }
    request = Request(headers={**secret, "User-Agent": "agent"})

    assert "s3cret" not in repr(request.headers)
    assert "('User-Agent', 'agent')" in repr(request.headers)
    assert request.headers["Cookie"] == "s3cret"


def test_registering_masks_the_loggers_that_log_paths(app, engine):
    """The loggers of gunicorn, Werkzeug and the application have the filter once, also with many applications."""
    make_app(engine)

    for name in ("gunicorn.access", "gunicorn.error", "werkzeug", app.name):
        assert [type(f) for f in logging.getLogger(name).filters] == [MaskTokens]


# As part of an application.


def test_the_blueprint_is_named_durable(app):
    """Applications exempt ``durable.*`` from their own checks by that name."""
    with app.test_request_context():
        assert flask.url_for("durable.webhook", token="abc") == f"/base{PATH}abc"
    assert "durable" in app.blueprints


def test_the_application_sees_our_endpoint(listen_on_flask, app):
    """A before_request of the application can see that a request is for the blueprint."""
    seen: list[tuple[str | None, str | None]] = []
    app.before_request(lambda: seen.append((flask.request.endpoint, flask.request.blueprint)))

    listen_on_flask("default").post(b"")

    assert seen == [("durable.webhook", "durable")]


def test_csrf_protection_lets_webhooks_through(listen_on_flask, app):
    """With Flask-WTF's CSRFProtect, made before or after the blueprint, senders need no token."""
    csrf = pytest.importorskip("flask_wtf.csrf", reason="Flask-WTF is not installed")
    app.secret_key = "secret"
    app.add_url_rule("/form", "form", lambda: "ok", methods=["POST"])
    csrf.CSRFProtect(app)
    webhook = listen_on_flask("default")

    assert webhook.client.post("/form").status_code == 400
    assert webhook.post(b"").status_code == 202


def test_paths_next_to_ours_are_the_applications(idle):
    """The blueprint answers only below its path; a merged slash does not redirect to it."""
    assert idle.get("/base/.well-known/workflow/v1/other").content_type.startswith("text/html")
    assert idle.post("/base//.well-known/workflow/v1/webhook/" + "x" * 43).status_code == 404


def test_c92_webhooks_and_their_description_are_all_there_is(app):
    """Without control routes, no turn, step, queue or run has a URL."""
    ours = [rule for rule in app.url_map.iter_rules() if rule.endpoint != "static"]

    assert {rule.rule for rule in ours} == {
        f"/base{PATH}<durable_rest:token>",
        f"/base{ROOT}receive/<durable_rest:name>",
        f"/base{ROOT}openapi.json",
        f"/base{ROOT}health",
    }


@pytest.mark.parametrize("name", ["flow", "step", "drive", "wake", "runs", "hooks"])
def test_c92_no_other_path_of_ours_answers(idle, name):
    """Neither next to the webhooks' path nor below it."""
    beside = idle.post(f"/base/.well-known/workflow/v1/{name}", json={"run_id": "r"})
    below = idle.post(f"/base{PATH}{name}", json={"run_id": "r"})

    assert (beside.status_code, below.status_code) == (404, 404)


def test_location_is_relative_without_a_public_url():
    """The Host header is never used for a URL."""
    receiver = webhook_view.Receiver(SimpleNamespace(settings=SimpleNamespace(public_url=None)))
    app = flask.Flask(__name__)

    with app.test_request_context(f"/base{PATH}tok", headers={"Host": "evil.test"}):
        assert receiver._location(flask.request, Target("tok", None), "id") == f"/base{PATH}tok/requests/id"


def test_request_ids_cannot_be_guessed():
    """At least 128 random bits, in characters that a URL takes as they are."""
    assert re.fullmatch(r"[A-Za-z0-9_-]{24}", new_request_id())
    assert new_request_id() != new_request_id()
