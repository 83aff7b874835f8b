"""Bodies and URLs as real servers hand them over: every byte, or a refusal."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from webservers import Server, body_of, chunked, post, serve, status_of

pytestmark = [pytest.mark.live, pytest.mark.untimed]

LIMIT = 100_000

APP = f"""
import flask
from durable.web import body, problems, wsgi_request
from durable.web.problems import RequestRefused

app = flask.Flask(__name__)

@app.route("/<path:rest>", methods=["GET", "POST"])
def echo(rest):
    if rest == "health":
        return "ok"
    try:
        sent = body.read(flask.request, {LIMIT})
    except RequestRefused as refused:
        return problems.to_flask(refused.answer)
    finally:
        body.discard(flask.request)
    return flask.jsonify(url=wsgi_request.exact_url(flask.request.environ), body=sent.hex())
"""


@pytest.fixture(scope="module", params=["gthread", "sync", "gevent", "waitress", "pywsgi"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    (folder / "echo.py").write_text(APP)
    with serve(request.param, "echo:app", folder) as started:
        yield started


def echoed(answer: bytes) -> bytes:
    assert status_of(answer) == 200, answer
    return bytes.fromhex(json.loads(body_of(answer))["body"])


@pytest.mark.parametrize(
    "body", [b"", bytes(range(256)), b"\xff\xfe\x00", b"\r\n\r\n0\r\n\r\n", os.urandom(LIMIT)], ids=len
)
def test_c63_the_body_arrives_as_sent(server, body):
    """All byte values, nothing, invalid UTF-8, what looks like framing, and exactly the limit."""
    assert echoed(server.send(post("/x", body))) == body


@pytest.mark.parametrize("body", [b"", bytes(range(256)), os.urandom(LIMIT)], ids=len)
def test_c63_a_chunked_body_arrives_as_sent(server, body):
    """Chunked or not makes no difference on these servers."""
    answer = server.send(post("/x", chunked(body), "Transfer-Encoding: chunked"))

    assert echoed(answer) == body


@pytest.mark.parametrize("kind", ["form", "json", "multipart"])
def test_no_content_type_eats_the_body(server, kind):
    """What Flask would parse is still there raw."""
    types = {
        "form": "application/x-www-form-urlencoded",
        "json": "application/json",
        "multipart": "multipart/form-data; boundary=x",
    }

    assert echoed(server.send(post("/x", b"a=1&b=%20", f"Content-Type: {types[kind]}"))) == b"a=1&b=%20"


def test_c68_one_byte_over_the_limit_is_413(server):
    """Declared or chunked, a longer body is refused and never cut."""
    body = b"x" * (LIMIT + 1)

    assert status_of(server.send(post("/x", body))) == 413
    assert status_of(server.send(post("/x", chunked(body), "Transfer-Encoding: chunked"))) == 413


def test_c68_a_short_body_is_no_body(server):
    """A sender that stops before the length it announced gets 400 or nothing, never 200."""
    answer = server.send(post("/x", b"abc", "Content-Length: 10"), half_close=True)

    assert answer == b"" or status_of(answer) == 400


def test_a_cut_chunk_is_no_body(server):
    """The same for a chunked body without its end."""
    answer = server.send(post("/x", b"5\r\nab", "Transfer-Encoding: chunked"), half_close=True)

    assert answer == b"" or status_of(answer) == 400


def test_a_malformed_chunk_is_no_body(server):
    """Wrong framing is the sender's fault: 400, or the connection is closed."""
    answer = server.send(post("/x", b"zz\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked"))

    assert answer == b"" or status_of(answer) == 400


def test_c63_the_url_is_what_was_sent(server):
    """Percent-encoding and the query string are not rewritten (pywsgi keeps only the decoded path)."""
    target = "/a%2Fb/%7ec/%C3%A9?q=%20&q=a+b&u=%2F"

    sent = json.loads(body_of(server.send(post(target, b""))))["url"]

    expected = f"http://hooks.test{target}"
    if server.log.name.startswith("pywsgi"):
        expected = expected.replace("a%2Fb/%7ec", "a/b/~c")
    assert re.sub("%c3%a9", "%C3%A9", sent) == expected
