"""Applications and middleware that read a webhook's body before the blueprint does, on real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery
from webservers import Server, body_of, chunked, post, serve, status_of

from durable import Durable, Request, create_webhook, workflow
from durable.store.schema import requests
from durable.turns.drive import drive
from durable.web.wsgi_request import PATH

pytestmark = pytest.mark.live

LIMIT = 100_000

APP = f"""
import io, os
import flask
from celery import Celery
from durable import Durable
from durable.web import create_blueprint
from werkzeug.middleware.dispatcher import DispatcherMiddleware

engine = Durable(Celery("read_before", broker="memory://"), database_url=os.environ["DATABASE"], max_body={LIMIT})

READS = {{
    "form": lambda request: request.form,
    "files": lambda request: request.files,
    "values": lambda request: request.values,
    "json": lambda request: request.get_json(),
    "data": lambda request: request.get_data(),
    "data not cached": lambda request: request.get_data(cache=False),
    "3 bytes": lambda request: request.stream.read(3),
    "a line": lambda request: request.environ["wsgi.input"].readline(),
    "the input": lambda request: request.environ["wsgi.input"].read(),
    "own limit": lambda request: limited(request),
}}

def limited(request):
    request.max_content_length = 10
    request.get_data()

def read_first():
    wish = flask.request.headers.get("X-Hook")
    if wish is not None:
        READS[wish](flask.request)

def middleware(application, header):
    def read(environ, start_response):
        wish, body = environ.get(header), environ["wsgi.input"]
        if wish == "3 bytes":
            body.read(3)
        elif wish == "all":
            body.read(int(environ.get("CONTENT_LENGTH") or -1))
        elif wish == "put back":
            environ["wsgi.input"] = io.BytesIO(body.read(int(environ.get("CONTENT_LENGTH") or -1)))
        return application(environ, start_response)
    return read

def make(**config):
    app = flask.Flask("read_before")
    app.config.update(config)
    app.before_request(read_first)
    app.wsgi_app = middleware(app.wsgi_app, "HTTP_X_BEFORE")
    app.register_blueprint(create_blueprint(engine))
    app.wsgi_app = middleware(app.wsgi_app, "HTTP_X_AFTER")
    app.add_url_rule("/health", view_func=lambda: "up")
    return app

app = DispatcherMiddleware(make(), {{"/small": make(MAX_CONTENT_LENGTH=10, MAX_FORM_MEMORY_SIZE=10)}})
"""

KINDS = ["gthread", "sync", "gevent", "waitress", "pywsgi", "werkzeug"]

JSON = b'{"event": "paid",\n "amount": 1234, "note": "' + b"x" * 3000 + b'"}'
FORM = b"event=paid&note=" + b"x" * 3000
MULTIPART = (
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\n\r\n' + b"x" * 3000 + b"\r\n--b--\r\n"
)
BODIES = {
    "application/json": JSON,
    "application/x-www-form-urlencoded": FORM,
    "multipart/form-data; boundary=b": MULTIPART,
}

#: What ``before_request`` does, and with which body.
HOOKS = [
    ("form", FORM),
    ("form", MULTIPART),
    ("files", MULTIPART),
    ("values", FORM),
    ("json", JSON),
    ("data", JSON),
    ("data not cached", JSON),
    ("3 bytes", JSON),
    ("a line", JSON),
    ("the input", JSON),
]


@workflow
async def read_before() -> None:
    async for _ in create_webhook():
        pass


@dataclass
class Site:
    """A server, and what it has recorded."""

    kind: str
    server: Server
    engine: Durable
    path: str
    count: int = 0

    def send(self, body: bytes, *headers: str, framing: str, mount: str = "") -> tuple[bytes, list[bytes]]:
        """The answer to *body*, and the bodies that were recorded of it."""
        self.count += 1
        mark = f"n={self.count}"
        kind = next((name for name, known in BODIES.items() if known == body), "application/json")
        raw = chunked(body) if framing == "chunked" else body
        more = ["Transfer-Encoding: chunked"] if framing == "chunked" else []
        answer = self.server.send(post(f"{mount}{self.path}?{mark}", raw, f"Content-Type: {kind}", *headers, *more))
        with self.engine.store.read() as tx:
            rows = tx.execute(sa.select(requests.c.head, requests.c.body)).all()
        found = [(Request.from_head(row.head, row.body).url.partition("?")[2], bytes(row.body)) for row in rows]
        return answer, [body for query, body in found if query == mark]

    def log(self) -> str:
        return self.server.log.read_text()


@pytest.fixture(scope="module", params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    (folder / "read_before_app.py").write_text(APP)
    database = f"sqlite:///{folder}/durable.db"
    engine = Durable(Celery("read_before", broker="memory://"), database_url=database, public_url="http://hooks.test")
    run = engine.start(read_before)
    drive(engine, run.id)
    with serve(request.param, "read_before_app:app", folder, env={"DATABASE": database}) as server:
        yield Site(request.param, server, engine, PATH + run.hooks()[0]["token"])
    engine.close()


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("mount", ["", "/small"])
@pytest.mark.parametrize(("hook", "body"), HOOKS)
def test_a_body_that_before_request_read_is_recorded_whole(
    site: Site, hook: str, body: bytes, mount: str, framing: str
) -> None:
    """Also where the application's own MAX_CONTENT_LENGTH is 10 bytes: the limit of a webhook is max_body."""
    answer, recorded = site.send(body, f"X-Hook: {hook}", framing=framing, mount=mount)

    assert status_of(answer) == 202, answer
    assert recorded == [body]


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("wish", ["3 bytes", "all", "put back"])
def test_a_body_that_middleware_below_the_blueprint_read_is_recorded_whole(site: Site, wish: str, framing: str) -> None:
    """``app.wsgi_app`` was wrapped before the blueprint was registered."""
    answer, recorded = site.send(JSON, f"X-Before: {wish}", framing=framing)

    assert status_of(answer) == 202, answer
    assert recorded == [JSON]


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("wish", ["3 bytes", "all"])
def test_a_body_that_middleware_around_the_blueprint_read_is_whole_or_refused(
    site: Site, wish: str, framing: str
) -> None:
    """waitress keeps a body where it can be read again; elsewhere the answer is 503, and the log names the fix."""
    if site.kind == "werkzeug" and framing == "length":
        pytest.skip("Werkzeug's development server does not tell that its input was read: it waits for the rest.")

    answer, recorded = site.send(JSON, f"X-After: {wish}", framing=framing)

    if site.kind == "waitress":
        assert status_of(answer) == 202, answer
        assert recorded == [JSON]
    else:
        assert status_of(answer) == 503, answer
        assert json.loads(body_of(answer))["code"] == "body-already-read"
        assert recorded == []
        assert "environ['wsgi.input'] = io.BytesIO(body)" in site.log()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_middleware_put_back_is_recorded_whole(site: Site, framing: str) -> None:
    """Middleware that reads the input and puts a copy in its place takes nothing away."""
    answer, recorded = site.send(JSON, "X-After: put back", framing=framing)

    assert status_of(answer) == 202, answer
    assert recorded == [JSON]


@pytest.mark.parametrize("mount", ["", "/small"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_the_limit_that_is_named_is_the_one_that_was_hit(site: Site, framing: str, mount: str) -> None:
    """max_body, whatever the application's own limit is."""
    answer, recorded = site.send(b"x" * (LIMIT + 1), framing=framing, mount=mount)

    assert status_of(answer) == 413
    assert f"up to {LIMIT} bytes" in json.loads(body_of(answer))["detail"]
    assert recorded == []


def test_a_limit_that_the_application_sets_itself_is_named(site: Site) -> None:
    """413 as problem details, and a warning that says which limit to raise."""
    answer, recorded = site.send(JSON, "X-Hook: own limit", framing="length")

    assert status_of(answer) == 413
    assert "10 bytes" in json.loads(body_of(answer))["detail"]
    assert recorded == []
    assert "MAX_CONTENT_LENGTH is 10" in site.log()


@pytest.mark.parametrize("hook", ["data", "3 bytes", "form"])
def test_a_body_that_ends_early_is_never_recorded(site: Site, hook: str) -> None:
    """Also where before_request has read what there was."""
    raw = post(f"{site.path}?short", b"abc", f"X-Hook: {hook}", "Content-Length: 10")
    cut = post(f"{site.path}?short", b"5\r\nab", f"X-Hook: {hook}", "Transfer-Encoding: chunked")
    malformed = post(f"{site.path}?short", b"3\r\nabc\r\nzz\r\n", f"X-Hook: {hook}", "Transfer-Encoding: chunked")

    answers = [site.server.send(each, half_close=True) for each in (raw, cut, malformed)]

    assert [status_of(answer) for answer in answers if answer and status_of(answer) != 400] == []
    with site.engine.store.read() as tx:
        heads = tx.execute(sa.select(requests.c.head)).scalars().all()
    assert [head for head in heads if "?short" in head] == []
