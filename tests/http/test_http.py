"""Request: exact, frozen, readable whatever a stranger sends; and how it is answered."""

import asyncio
import dataclasses
import gzip
import threading
import time
import tracemalloc
import zlib
from contextlib import suppress
from datetime import UTC

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from durable import BadRequestBody, NonDeterministicCall, Request, Response, SerializationError, current

MULTIPART = (
    b"--b\r\nContent-Disposition: form-data; name=note\r\n\r\nhi\r\n"
    b"--b\r\nContent-Disposition: form-data; name=a; filename=a.bin\r\n\r\n\x00\xff\r\n"
    b"--b\r\nContent-Disposition: form-data; name=b; filename=b.txt\r\n"
    b"Content-Type: text/plain\r\n\r\ntwo\r\n--b--\r\n"
)
HOSTILE_TYPES = [
    "application/json; charset=zlib",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=b",
    "multipart/form-data; boundary=",
    "multipart/form-data",
    "text/plain; charset=utf-16",
    "text/plain; charset=rot13",
    "text/plain; charset=\xff",
    "x/y; charset*=utf-8''a%FF",
]
LATIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,15}", fullmatch=True)


def request(data=b"", content_type=None, url="https://hooks.test/x", **fields):
    headers = [] if content_type is None else [("Content-Type", content_type)]
    return Request(method="POST", url=url, headers=headers, data=data, **fields)


def test_c63_data_is_every_byte_sent():
    """The body is raw, whatever it holds."""
    assert request(bytes(range(256))).data == bytes(range(256))


def test_a_request_is_frozen():
    """Neither its attributes nor its dictionaries can be changed."""
    made = request(b"a=1", "application/x-www-form-urlencoded", "https://hooks.test/x?q=1")

    with pytest.raises(dataclasses.FrozenInstanceError):
        made.method = "PUT"
    for change in (made.headers.add, made.args.add, made.form.add):
        with pytest.raises(TypeError):
            change("X", "1")
    assert made.headers.copy().pop("Content-Type")


def test_headers_are_case_insensitive_and_may_repeat():
    """Headers are Werkzeug's: several values per name, names in any case."""
    made = Request(headers=[("X-Tag", "1"), ("x-tag", "2")])

    assert made.headers.getlist("X-TAG") == ["1", "2"]


def test_requests_are_equal_by_content():
    """Two requests of one content are one value; the order of headers counts, the case of their names doesn't."""
    assert Request(headers={"A": "1"}, data=b"x") == Request(headers=Headers([("a", "1")]), data=b"x")
    assert len({Request(headers={"A": "1"}), Request(headers={"a": "1"})}) == 1
    assert Request(headers={"A": "1"}) != Request(headers=[("A", "1"), ("A", "1")])
    assert Request(headers=[("A", "1"), ("B", "2")]) != Request(headers=[("B", "2"), ("A", "1")])


def test_the_url_is_exactly_what_was_sent():
    """Percent-encoding stays; path and args are decoded as in Flask."""
    made = request(url="https://hooks.test//a%2Fb/%7e%C3%A9?q=%2B+1&q=2&e=&bad=%ff%zz#f")

    assert made.url == "https://hooks.test//a%2Fb/%7e%C3%A9?q=%2B+1&q=2&e=&bad=%ff%zz#f"
    assert made.path == "//a/b/~é"
    assert made.args.to_dict(flat=False) == {"q": ["+ 1", "2"], "e": [""], "bad": ["%FF%zz"]}


@pytest.mark.parametrize(
    ("url", "path", "args"),
    [
        ("http://h", "/", {}),
        ("http://h?a=1", "/", {"a": "1"}),
        ("/only/path?a=b?c", "/only/path", {"a": "b?c"}),
        ("http://[bad/x?é=\udcff", "/x", {"é": "?"}),
        ("http://h/a://b", "/a://b", {}),
    ],
)
def test_any_url_can_be_taken_apart(url, path, args):
    """No URL raises, however malformed."""
    made = request(url=url)

    assert (made.path, made.args.to_dict()) == (path, args)


@given(st.text(), st.text())
def test_no_url_raises(path, query):
    """Whatever a stranger puts into a URL, it can be read."""
    made = request(url=f"http://h/{path}?{query}")

    assert isinstance(made.path, str)
    assert made.args is not None


@given(
    st.sampled_from(HOSTILE_TYPES) | LATIN,
    st.binary(max_size=60) | st.builds(lambda name, part: MULTIPART.replace(b"note", name) + part, *[st.binary()] * 2),
    LATIN,
)
@settings(max_examples=100, deadline=None)
def test_no_body_raises_what_is_not_documented(content_type, body, cookie):
    """Whatever a stranger calls its body, and whatever it holds: it is read, or BadRequestBody."""
    made = Request("POST", "https://h.test/", [("Content-Type", content_type), ("Cookie", cookie)], body)
    for read in (made.json, lambda: made.form, lambda: [file.read() for file in made.files.values()]):
        with suppress(BadRequestBody):
            read()

    assert made.json(default=made) is not None or body.strip() == b"null"
    assert (type(made.text()), type(made.cookies.to_dict()), type(repr(made))) == (str, dict, str)


def test_cookies_are_read():
    """Cookies come from the header."""
    assert Request(headers=[("Cookie", "a=1; b=2")]).cookies.to_dict() == {"a": "1", "b": "2"}


def test_text_uses_the_declared_charset_else_utf_8():
    """The charset counts where it is one; what doesn't decode is replaced."""
    assert request("é".encode("latin-1"), "text/plain; charset=latin-1").text() == "é"
    assert request("é".encode()).text() == "é"
    assert request(b"\xff").text() == "\ufffd"


@pytest.mark.parametrize(
    "charset", ["none-such", "base64", "zip", "punycode", "idna", "unicode_escape", "a\0b", "utf-8x"]
)
def test_a_charset_that_is_none_means_utf_8(charset):
    """A stranger's charset can neither raise, nor choose a codec that is no charset."""
    assert request(b"caf\xc3\xa9 \\q", f'text/plain; charset="{charset}"').text() == "café \\q"


def test_json_ignores_the_content_type():
    """JSON is read whatever it is called, in UTF-8, -16 and -32; each call gives a new object."""
    made = request('{"é": [1]}'.encode(), "text/plain")

    assert made.json() == {"é": [1]} == request('{"é": [1]}'.encode("utf-16")).json()
    assert made.json() is not made.json()


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\xfd", b"[" * 100_000, b"1" * 5_000, b"nul\0"])
def test_c63_json_that_is_none(body):
    """A body that is no JSON, is nested 100 000 deep, or holds too long a number raises BadRequestBody."""
    with pytest.raises(BadRequestBody, match=f"{len(body)} bytes"):
        request(body).json()
    with pytest.raises(ValueError, match="is not JSON"):
        request(body).json()
    assert request(body).json(default=None) is None
    assert request(body).json({"x": 1}) == {"x": 1}


def test_null_is_json():
    """A body of null is None, not the default."""
    assert request(b"null").json(default=5) is None


def test_form_and_files():
    """Forms are parsed as Werkzeug does; repeated keys stay; a file can be read again and again."""
    made = request(MULTIPART, "multipart/form-data; boundary=b")
    encoded = request(b"a=1&a=2&b=%C3%A9", "application/x-www-form-urlencoded")

    assert made.form.to_dict() == {"note": "hi"}
    assert [made.files["a"].read() for _ in range(2)] == [b"\x00\xff"] * 2
    assert (made.files["b"].filename, made.files["b"].mimetype) == ("b.txt", "text/plain")
    assert made.data == MULTIPART
    assert encoded.form.to_dict(flat=False) == {"a": ["1", "2"], "b": ["é"]}


def test_no_form_is_empty():
    """A body that is no form has no fields and no files."""
    made = request(b"{}", "application/json")

    assert not made.form
    assert not made.files


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"a=1&b=\xff&c=3", [("a", "1"), ("b", "\ufffd"), ("c", "3")]),
        (b"\xffa=1&b=\xe2\x82", [("\ufffda", "1"), ("b", "\ufffd")]),
        (b"a=%FF&b=%C3%A9", [("a", "%FF"), ("b", "é")]),
        (b"a=" + b"\xff" * 600_000, [("a", "\ufffd" * 600_000)]),
        (b"\xff", [("\ufffd", "")]),
    ],
)
@pytest.mark.parametrize("charset", ["", "; charset=UTF-8", "; charset=utf-16"])
def test_a_form_that_is_not_utf_8_keeps_its_fields(body, fields, charset):
    """Bytes that are not UTF-8 become U+FFFD, as in ``text()``; no other field is lost, whatever the charset says."""
    made = request(body, "application/x-www-form-urlencoded" + charset)

    assert list(made.form.items(multi=True)) == fields
    assert not made.files


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (BOM + b"a=1&b=2", [("a", "1"), ("b", "2")]),
        (BOM + b"a=1&a=2&b=\xff", [("a", "1"), ("a", "2"), ("b", "\ufffd")]),
        (BOM, []),
        (b"a=1&" + BOM + b"b=2", [("a", "1"), ("\ufeffb", "2")]),
        (b"%EF%BB%BFa=1", [("\ufeffa", "1")]),
        (BOM + BOM + b"a=1", [("\ufeffa", "1")]),
    ],
)
def test_a_byte_order_mark_is_no_part_of_a_forms_first_key(body, fields):
    """Before the form it says only that this is UTF-8; anywhere else, and percent-encoded, it is what was sent."""
    made = request(body, "application/x-www-form-urlencoded")

    assert list(made.form.items(multi=True)) == fields
    assert made.data == body


@pytest.mark.parametrize("end", [5, 30, 90, 180, len(MULTIPART) - 6])
def test_a_multipart_body_that_is_cut_off(end):
    """A form without its end raises BadRequestBody, for its fields and for its files: nothing is dropped in silence."""
    made = request(MULTIPART[:end], "multipart/form-data; boundary=b")

    with pytest.raises(BadRequestBody, match=f"{end} bytes.*cut off"):
        _ = made.form
    with pytest.raises(BadRequestBody, match="cut off"):
        _ = made.files


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (MULTIPART, "multipart/form-data"),
        (MULTIPART, "multipart/form-data; boundary="),
        (MULTIPART, "multipart/form-data; boundary=other"),
        (MULTIPART, "multipart/form-data; boundary=\xe9"),
        (b"a=1", "multipart/form-data; boundary=b"),
        (MULTIPART.replace(b"Content-Disposition", b"Content-Type", 1), "multipart/form-data; boundary=b"),
        (MULTIPART.replace(b"note", b"\xff"), "multipart/form-data; boundary=b"),
    ],
)
def test_a_multipart_body_that_is_malformed(body, content_type):
    """A boundary that is missing or another, a part without a name, a head that is not UTF-8: BadRequestBody."""
    for read in (lambda made: made.form, lambda made: made.files):
        with pytest.raises(BadRequestBody, match="multipart"):
            read(request(body, content_type))


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=b", "application/x-www-form-urlencoded", None])
def test_an_empty_body_has_no_fields(content_type):
    """Nothing was sent, so nothing is missing."""
    assert not request(b"", content_type).form
    assert not request(b"", content_type).files


def test_a_multipart_field_that_is_not_utf_8():
    """The field's bytes become U+FFFD; a file's stay as they are."""
    made = request(MULTIPART.replace(b"hi", b"h\xff"), "multipart/form-data; boundary=b")

    assert made.form.to_dict() == {"note": "h\ufffd"}
    assert made.files["a"].read() == b"\x00\xff"


def test_a_form_over_werkzeugs_limits():
    """Too many parts, or too large fields, are refused as a bad body."""
    part = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n'

    with pytest.raises(BadRequestBody, match="1000 parts"):
        _ = request(part * 1_001 + b"--b--", "multipart/form-data; boundary=b").form
    with pytest.raises(BadRequestBody, match="500000 bytes"):
        _ = request(part.replace(b"1", b"1" * 600_000) + b"--b--", "multipart/form-data; boundary=b").form


def test_repr_shows_no_secret():
    """The URL holds a token and headers hold credentials: neither is shown."""
    made = Request(url="https://hooks.test/t0ken", headers={"Authorization": "s3cret"}, data=b"body", id="r1")

    assert repr(made) == "<Request r1 POST 4 bytes>"


def test_a_body_that_is_no_bytes_is_refused():
    """Text is not bytes until the caller encodes it."""
    with pytest.raises(TypeError, match="encode it first"):
        Request(data="text")


@given(
    st.lists(st.tuples(NAMES, LATIN), max_size=5),
    st.binary(max_size=20),
    st.text(st.characters(exclude_categories=()), max_size=20),
    st.none() | st.datetimes(timezones=st.just(UTC)),
)
def test_a_request_survives_the_store(headers, data, url, received_at):
    """Head and body give the same request back; the head is ASCII, the result says where it came from."""
    made = Request("PUT", url, headers, data, id="r1", remote_addr="::1", received_at=received_at)
    head = made.head_json()
    read = Request.from_head(head, data)

    assert head.isascii()
    assert read == made
    assert (made.recorded, read.recorded, dataclasses.replace(read).recorded) == (False, True, False)


def test_a_head_of_another_version():
    """A head that newer code wrote is refused by name, not misread."""
    with pytest.raises(SerializationError, match="version 2"):
        Request.from_head('{"v":2}', b"")


# respond_with


class Attempt:
    """Keeps what it is asked to respond, and refuses a second answer."""

    def __init__(self):
        self.given = {}

    def respond(self, request_id, response):
        return self.given.setdefault(request_id, response) is response


@pytest.fixture
def attempt():
    attempt = Attempt()
    token = current.running_step.set(attempt)
    yield attempt
    current.running_step.reset(token)


def test_the_first_answer_wins(attempt):
    """In a step the attempt records the answer, and says whether it was the first."""
    made = request(id="r1")

    assert [made.respond_with({"a": 1}), made.respond_with("late")] == [True, False]
    assert attempt.given == {"r1": Response.json({"a": 1})}


def test_what_is_recorded_is_what_goes_out(attempt):
    """The server's headers are dropped before anything is recorded."""
    request(id="r1").respond_with(("x", 200, {"Connection": "close", "X": "1"}))

    assert "Connection" not in attempt.given["r1"].headers


@pytest.mark.parametrize("bad", [None, ("x", 99), Response(headers={"€": "1"}), Response(b"x", 204), {"x": object()}])
def test_c63_a_bad_response_records_nothing(attempt, bad):
    """It raises in the step, before anything is recorded."""
    with pytest.raises((TypeError, ValueError)):
        request(id="r1").respond_with(bad)
    assert not attempt.given


def test_a_request_made_by_hand_is_answered_by_nobody(attempt):
    """Without an id the response is only checked, so that a step can be tested alone."""
    assert request().respond_with("ok")
    with pytest.raises(TypeError):
        request().respond_with(None)
    assert not attempt.given


def test_outside_a_step_the_engine_responds():
    """A view or a script answers by the engine made last."""
    engine = Attempt()
    before = list(current._engines)
    current.register(engine)
    try:
        assert request(id="r1").respond_with("ok")
    finally:
        current._engines[:] = before
    assert engine.given["r1"].body == b"ok"


def test_c59_not_in_a_workflow_body():
    """In workflow code respond_with raises, and names the fix."""

    class Loop:
        is_durable = True

    def in_workflow():
        asyncio._set_running_loop(Loop())
        try:
            request(id="r1").respond_with("ok")
        except NonDeterministicCall as error:
            caught.append(error)
        finally:
            asyncio._set_running_loop(None)

    caught = []
    thread = threading.Thread(target=in_workflow)
    thread.start()
    thread.join()

    assert "request.respond_with was called in a workflow body" in str(caught[0])
    assert caught[0].fix == "call it in a step"


# Compressed bodies.

JSON = b'{"event": "paid", "note": "' + b"x" * 500 + b'"}'


def compressed(data: bytes, coding: str) -> Request:
    return Request(headers=[("Content-Encoding", coding)], data=data)


def raw_deflate(data: bytes) -> bytes:
    """Without zlib's header, as some clients send ``deflate``."""
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", gzip.compress(JSON)),
        ("GZIP", gzip.compress(JSON)),
        ("x-gzip", gzip.compress(JSON)),
        ("identity, gzip", gzip.compress(JSON)),
        ("gzip", gzip.compress(JSON[:10]) + gzip.compress(JSON[10:])),
        ("gzip", gzip.compress(JSON, 0)),
        ("deflate", zlib.compress(JSON)),
        ("deflate", raw_deflate(JSON)),
        ("identity", JSON),
        ("", JSON),
    ],
)
def test_decoded_data_is_the_body_without_its_coding(coding, data):
    """gzip in any number of members, deflate with and without zlib's header, and none; data stays as sent."""
    made = compressed(data, coding)

    assert made.decoded_data() == JSON
    assert made.data == data


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_an_empty_body_has_no_coding(coding):
    """Nothing was compressed."""
    assert compressed(b"", coding).decoded_data() == b""


@pytest.mark.parametrize(
    ("coding", "data", "said"),
    [
        ("gzip", JSON, "'gzip'"),
        ("deflate", b"\xff" + JSON, "'deflate'"),
        ("gzip", gzip.compress(JSON)[:-9], "ends early"),
        ("deflate", zlib.compress(JSON)[:-5], "ends early"),
        ("deflate", raw_deflate(JSON)[:-2], "ends early"),
        ("gzip", gzip.compress(JSON) + b"more", "'gzip'"),
        ("gzip", gzip.compress(JSON)[:-8] + bytes(8), "'gzip'"),
        ("br", b"\x0b\x02\x80", "gzip and deflate"),
        ("gzip, gzip", gzip.compress(gzip.compress(JSON)), "gzip and deflate"),
        ("\xe9", JSON, "gzip and deflate"),
    ],
)
def test_what_is_not_in_its_coding_raises_bad_request_body(coding, data, said):
    """Cut, damaged, followed by something else, or in a coding that is not decoded here."""
    with pytest.raises(BadRequestBody, match=said):
        compressed(data, coding).decoded_data()


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)]
)
def test_a_decompression_bomb_is_refused_in_bounded_memory(coding, pack):
    """100 MiB of zeros in 100 kB: no more than the limit is ever decompressed."""
    bomb = compressed(pack(bytes(100 * 1024 * 1024)), coding)
    tracemalloc.start()
    try:
        with pytest.raises(BadRequestBody, match="more than 1000000 bytes"):
            bomb.decoded_data(1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    with pytest.raises(BadRequestBody, match="more than 10485760 bytes"):
        bomb.decoded_data()


def test_the_limit_of_decoded_data_is_exact():
    """As many bytes as allowed are returned, one more is refused; the limit counts all members together."""
    made = compressed(gzip.compress(JSON[:10]) + gzip.compress(JSON[10:]), "gzip")

    assert made.decoded_data(len(JSON)) == JSON
    with pytest.raises(BadRequestBody, match="max_size"):
        made.decoded_data(len(JSON) - 1)
    with pytest.raises(ValueError, match="max_size -1"):
        made.decoded_data(-1)


def test_many_members_take_no_longer_than_their_bytes():
    """A megabyte of empty members is decompressed in linear time."""
    many = gzip.compress(b"") * 50_000
    began = time.process_time()

    assert compressed(many, "gzip").decoded_data() == b""
    # A copy of what follows each member would take minutes.
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    ("coding", "fix"), [("gzip", r"decoded_data\(\)"), ("deflate", r"decoded_data\(\)"), ("br", "a library")]
)
def test_json_of_a_compressed_body_names_the_coding_and_the_fix(coding, fix):
    """Not that a byte cannot be decoded; json(default=...) still returns the default."""
    made = compressed(gzip.compress(JSON), coding)

    with pytest.raises(BadRequestBody, match=f"Content-Encoding is '{coding}'.*{fix}"):
        made.json()
    assert made.json(default=1) == 1


def test_json_that_was_decoded_on_the_way_is_read_whatever_the_header_says():
    """A proxy may decompress a body and leave the header."""
    assert compressed(JSON, "gzip").json()["event"] == "paid"
