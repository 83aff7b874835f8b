"""Response: what a view may return, and nothing on the wire that a server would refuse or repair."""

import dataclasses
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from http import HTTPStatus
from uuid import UUID

import flask
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from werkzeug.exceptions import Gone

from durable import Response
from durable.http import MAX_BODY, problem

LATIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,15}", fullmatch=True)


def test_what_a_response_is_made_of():
    """Text is UTF-8; without a content type text is plain and bytes are a stream of octets; empty has none."""
    assert (Response("é").body, Response("é").content_type) == ("é".encode(), "text/plain; charset=utf-8")
    assert Response(b"x").content_type == "application/octet-stream"
    assert Response().content_type is None
    assert Response(b"x", headers={"content-type": "a/b"}).content_type == "a/b"
    assert Response(b"x", headers={"content-type": "a/b"}, content_type="c/d").headers.getlist("Content-Type") == [
        "c/d"
    ]


def test_responses_by_name():
    """json, text, html, redirect and empty set status and content type."""
    made = [
        Response.json([1]),
        Response.text("t"),
        Response.html("h"),
        Response.redirect("/a?é"),
        Response.empty(),
    ]

    assert [(r.body, r.status, r.content_type) for r in made] == [
        (b"[1]", 200, "application/json"),
        (b"t", 200, "text/plain; charset=utf-8"),
        (b"h", 200, "text/html; charset=utf-8"),
        (b"", 303, None),
        (b"", 204, None),
    ]
    assert made[3].headers["Location"] == "/a?%C3%A9"


def test_json_makes_plain_what_flask_does():
    """Dates, decimals, ids, dataclasses and models have a JSON form; NaN and the rest have none."""

    @dataclasses.dataclass
    class Point:
        x: Decimal

    class Model(BaseModel):
        day: date

    value = [Point(Decimal("1.50")), Model(day=date(2026, 1, 2)), UUID(int=1), datetime(2026, 1, 2, tzinfo=UTC)]

    assert json.loads(Response.json(value).body) == [
        {"x": "1.50"},
        {"day": "2026-01-02"},
        "00000000-0000-0000-0000-000000000001",
        "2026-01-02T00:00:00+00:00",
    ]
    ring = []
    ring.append(ring)
    for bad in (float("nan"), ring):
        with pytest.raises(ValueError, match=r"."):
            Response.json(bad)
    with pytest.raises(TypeError, match="set has no JSON form"):
        Response.json({1})


def test_a_redirect_that_is_none():
    """Only a status that redirects can."""
    with pytest.raises(ValueError, match="200 is not a redirect"):
        Response.redirect("/", 200)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": 1}, (b'{"a":1}', 200, "application/json")),
        ([1], (b"[1]", 200, "application/json")),
        ("ok", (b"ok", 200, "text/html; charset=utf-8")),
        (b"ok", (b"ok", 200, "text/html; charset=utf-8")),
        (("ok", 201), (b"ok", 201, "text/html; charset=utf-8")),
        (({"a": 1}, HTTPStatus.ACCEPTED), (b'{"a":1}', 202, "application/json")),
        (("ok", "404 NOT FOUND"), (b"ok", 404, "text/html; charset=utf-8")),
        (("ok", {"Content-Type": "a/b"}), (b"ok", 200, "a/b")),
        (("ok", 202, [("content-type", "a/b")]), (b"ok", 202, "a/b")),
        ((Response.json(1, 201), 202), (b"1", 202, "application/json")),
        (flask.Response("f", 418, mimetype="text/css"), (b"f", 418, "text/css; charset=utf-8")),
        ((flask.Response("f"), 202), (b"f", 202, "text/html; charset=utf-8")),
        (flask.Response(iter(["a", b"b"])), (b"ab", 200, "text/html; charset=utf-8")),
        (iter(["a", b"b"]), (b"ab", 200, "text/html; charset=utf-8")),
        (io.BytesIO(b"a\nb"), (b"a\nb", 200, "text/html; charset=utf-8")),
    ],
)
def test_takes_what_a_flask_view_may_return(value, expected):
    """Body, status and content type are what Flask would make of it."""
    made = Response.coerce(value).checked()

    assert (made.body, made.status, made.content_type) == expected


def test_takes_an_error_of_werkzeug():
    """An HTTPException is a response too."""
    assert Response.coerce(Gone()).status == 410


def test_a_response_is_itself():
    """A Response goes through unchanged."""
    made = Response(b"x", 201)

    assert Response.coerce(made) is made


@pytest.mark.parametrize("value", [None, 5, ("a", 1, {}, 2), ("a",), object(), {1}, print])
def test_refuses_what_is_no_response(value):
    """What Flask wouldn't take raises TypeError."""
    with pytest.raises(TypeError):
        Response.coerce(value)


def test_an_endless_body_is_refused():
    """A generator is read no further than the limit, and closed."""
    closed = []

    def endless():
        try:
            while True:
                yield b"x" * 100_000
        finally:
            closed.append(True)

    with pytest.raises(ValueError, match="1048576"):
        Response.coerce(endless())
    assert closed


@pytest.mark.parametrize("status", [199, 600, 100, 1000, 0, -1, True, 200.0, None, "", b"200", "200 OK\r\nX: y"])
def test_a_status_is_final_and_an_int(status):
    """No 1xx, no line ends by way of the status."""
    with pytest.raises(ValueError, match="not a final HTTP status"):
        Response(b"", status).checked()


@pytest.mark.parametrize("status", [204, 205, 304])
def test_c66_a_status_without_a_body(status):
    """204, 205 and 304 end with their headers."""
    assert Response(b"", status).checked().status == status
    with pytest.raises(ValueError, match="has no body"):
        Response(b"x", status).checked()


@pytest.mark.parametrize(
    "headers",
    [
        [("X\r\nEvil", "1")],
        [("", "1")],
        [("X Y", "1")],
        [("X:", "1")],
        [("é", "1")],
        [("X", "a\x00b")],
        [("X", "a\x7fb")],
        [("X", " a")],
        [("X", "a\t")],
        [("X", "€")],
        [(f"X-{i}", "1") for i in range(101)],
        [("X", "a" * 16_384)],
        [("X\n", "1")],
    ],
)
def test_a_header_no_server_would_send(headers):
    """Names that are no tokens, control characters, outer blanks, what is outside Latin-1, and too much."""
    with pytest.raises(ValueError, match=r"."):
        Response(headers=headers).checked()


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb"])
def test_no_line_ends_in_a_value(value):
    """No response splitting, neither by a header nor by the content type."""
    with pytest.raises(ValueError, match="newline"):
        Response(headers={"X": value})
    with pytest.raises(ValueError, match="newline"):
        Response(content_type=value)


def test_headers_of_the_connection_are_dropped():
    """Transfer-Encoding, Content-Length and the like are the server's: sent on, they smuggle."""
    dropped = [("Transfer-Encoding", "chunked"), ("CONTENT-LENGTH", "5"), ("Connection", "x"), ("TE", "t")]
    kept = [("X-Te", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X", "\xe9\tx"), ("Empty", "")]

    assert list(Response(headers=[*dropped, *kept]).checked().headers) == kept


def test_the_body_has_a_limit():
    """1 MiB goes through, a byte more doesn't."""
    assert len(Response(b"x" * MAX_BODY).checked().body) == MAX_BODY
    with pytest.raises(ValueError, match="1048577"):
        Response(b"x" * (MAX_BODY + 1)).checked()


@given(st.binary(max_size=20), st.integers(200, 599), st.lists(st.tuples(NAMES, LATIN.map(str.strip)), max_size=5))
def test_a_response_survives_the_store(body, status, headers):
    """Head and body give the same response back."""
    made = Response(body, status, headers)

    assert Response.from_head(made.head_json(), made.body) == made
    assert made.head_json().isascii()


def test_a_problem():
    """An error is application/problem+json, stored by nobody, with a stable word for programs."""
    made = problem(405, "method-not-allowed", "No", "Use POST.", "r1", headers=[("Allow", "POST")])

    assert json.loads(made.body) == {
        "type": "urn:durable:problem:method-not-allowed",
        "title": "No",
        "status": 405,
        "detail": "Use POST.",
        "code": "method-not-allowed",
        "request_id": "r1",
    }
    assert dict(made.checked().headers) == {
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "Allow": "POST",
        "Content-Type": "application/problem+json",
    }
    assert json.loads(problem(500, "", "t", "d").body)["type"] == "about:blank"
