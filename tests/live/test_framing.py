"""
No splitting and no smuggling: raw bytes to each supported server, and what is recorded of them.

The static webhook below answers 202 to whatever it records, so that the count of answers, the count of records and
the bodies say how many requests a server has seen, and which.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery
from framings import BODY, CASES, REFUSED, SECOND
from webservers import ASGI, Server, body_of, chunked, header_of, post, serve, status_of

from durable import Durable, Request, create_webhook, workflow
from durable.store.schema import requests
from durable.turns.drive import drive
from durable.web.body import DISCARDED
from durable.web.wsgi_request import PATH

pytestmark = pytest.mark.live

LIMIT = 100_000
#: After what silence nothing more is expected where the server keeps the connection.
SILENCE_SECS = 1.0

APP = f"""
import os
import flask
from celery import Celery
from durable import Durable
from durable.web import create_asgi_app, create_blueprint

celery = Celery("framing", broker="memory://")
engine = Durable(celery, database_url=os.environ["DATABASE"], max_body={LIMIT})
app = flask.Flask(__name__)
app.register_blueprint(create_blueprint(engine))
asgi = create_asgi_app(engine)
app.add_url_rule("/health", view_func=lambda: "up")
"""

KINDS = ["gthread", "sync", "gevent", "waitress", "pywsgi", "uvicorn", "uvicorn-h11", "hypercorn"]
#: These take a client that is half closed for gone, so their silence has to tell the end.
SILENT = ("waitress", *ASGI)
#: Those that parse with h11, and what that accepts although the others refuse it: a length that is given twice or in a
#: list of equal ones, a bare LF as the end of a line, a version that there is not.  The first request ends where its
#: length says, and what follows is the second one.
H11 = ("uvicorn-h11", "hypercorn")
LOOSE_IN_H11 = {
    *("length-same-twice", "length-list", "length-list-without-blanks"),
    *("length-hidden-by-bare-LF", "length-bare-LF", "head-2.0"),
}


@workflow
async def framed() -> None:
    async for _ in create_webhook():
        pass


@dataclass
class Site:
    """A server, and what it has recorded."""

    kind: str
    server: Server
    engine: Durable
    path: str
    #: What each case was answered.
    answers: dict[str, list[bytes]] = field(default_factory=dict)

    def recorded(self, name: str) -> list[tuple[bool, bytes]]:
        """Of the case of this name: whether it is the second request, and the body, in their order."""
        with self.engine.store.read() as tx:
            rows = tx.execute(sa.select(requests.c.head, requests.c.body).order_by(requests.c.received_at)).all()
        found = [(Request.from_head(row.head, row.body).url.partition("?")[2], bytes(row.body)) for row in rows]
        return [("&second" in query, body) for query, body in found if query.startswith(f"{name}&")]

    def talk(self, raw: bytes) -> list[bytes]:
        """Every answer to these bytes, until the server closes or has long been silent."""
        with self.server.connect() as sock:
            received = b""
            try:
                sock.sendall(raw)
                if self.kind not in SILENT:
                    half_close(sock)
                while chunk := sock.recv(65536):
                    received += chunk
                    if self.kind in SILENT:
                        sock.settimeout(SILENCE_SECS)
            except (TimeoutError, ConnectionResetError, BrokenPipeError):
                # It waits for more, or does not want what was sent.
                pass
        return split(received)


def half_close(sock: socket.socket) -> None:
    """Say that nothing more comes, unless the server has closed already: what it answered can still be read."""
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise


def split(received: bytes) -> list[bytes]:
    """The answers in these bytes; interim ones left out."""
    found = []
    while received:
        assert received.startswith(b"HTTP/1."), received
        head, separator, rest = received.partition(b"\r\n\r\n")
        assert separator, received
        length = int(header_of(received, "Content-Length") or 0)
        if header_of(received, "Content-Length") is None and header_of(received, "Connection") == "close":
            # uvicorn's own refusals with h11 are chunked, or end with the connection: they are the last answer.
            length = len(rest)
        else:
            assert header_of(received, "Transfer-Encoding") is None, received
        if status_of(received) != 100:
            found.append(head + separator + rest[:length])
        received = rest[length:]
    return found


@pytest.fixture(scope="module", params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """All cases have been sent to it, each on a connection of its own."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    (folder / "framing_app.py").write_text(APP)
    database = f"sqlite:///{folder}/durable.db"
    engine = Durable(Celery("framing", broker="memory://"), database_url=database, public_url="http://hooks.test")
    run = engine.start(framed)
    drive(engine, run.id)
    name = "asgi" if request.param in ASGI else "app"
    with serve(request.param, f"framing_app:{name}", folder, env={"DATABASE": database}) as server:
        made = Site(request.param, server, engine, PATH + run.hooks()[0]["token"])
        with ThreadPoolExecutor({"sync": 1, **dict.fromkeys(SILENT, 32)}.get(request.param, 8)) as threads:
            raws = [case.bytes(made.path, name) for name, case in CASES.items()]
            made.answers = dict(zip(CASES, threads.map(made.talk, raws), strict=True))
        yield made
    engine.close()


@pytest.mark.parametrize("name", CASES)
def test_what_is_recorded_is_what_the_server_took_and_nothing_else(site: Site, name: str) -> None:
    """Refused, or recorded once with a body that is its own; no part of it is a request of its own."""
    case, answers, recorded = CASES[name], site.answers[name], site.recorded(name)
    if site.kind in H11 and name in LOOSE_IN_H11:
        case = replace(case, bodies=(BODY,), follows=True)
    statuses = [status_of(answer) for answer in answers]
    firsts = [body for second, body in recorded if not second]
    seconds = [body for second, body in recorded if second]

    assert len(firsts) <= 1
    assert set(firsts) <= case.allowed(site.path, name)
    assert seconds in ([[], [SECOND]] if case.follows else [[]])
    assert len(statuses) <= 1 + case.follows + case.garbage
    assert set(statuses) <= {202} | REFUSED
    # Who is told so is recorded, and who is not is not.
    assert statuses.count(202) == len(recorded)
    if case.good:
        assert firsts == list(case.bodies)


@pytest.mark.parametrize("how", ["declared", "chunked"])
@pytest.mark.parametrize("size", [LIMIT + 1, DISCARDED + 200_000])
def test_the_rest_of_a_refused_body_is_no_request(site: Site, how: str, size: int) -> None:
    """413 before the body has been read: what is in it stays a body, however far the connection is used."""
    name = f"refused-{how}-{size}"
    inner = post(f"{site.path}?{name}&second", SECOND, keep=True)
    body = b"x" * (size - len(inner) * 50) + inner * 50
    raw = chunked(body, 5000) if how == "chunked" else body
    headers = ["Transfer-Encoding: chunked"] if how == "chunked" else []

    answers = site.talk(post(f"{site.path}?{name}&first", raw, *headers, keep=True))

    assert [status_of(answer) for answer in answers] in ([413], [])
    assert site.recorded(name) == []
    if size == LIMIT + 1:
        assert answers


def test_a_request_behind_a_refused_one_is_recorded_once_or_not_at_all(site: Site) -> None:
    """The first is answered 404 or 413 early; the second, in the same packet, is answered if it is recorded."""
    unknown = post(PATH + "x" * 43, BODY, keep=True)
    large = post(site.path, b"x" * (LIMIT + 1), keep=True)
    for number, first in enumerate((unknown, large)):
        name = f"behind-{number}"
        answers = site.talk(first + post(f"{site.path}?{name}&second", SECOND, keep=True))

        statuses = [status_of(answer) for answer in answers]
        assert statuses[0] == (404, 413)[number]
        assert statuses[1:] == [202] * len(site.recorded(name))


def test_a_body_is_waited_for_after_100_continue(site: Site) -> None:
    """The server asks for the body; what comes then is recorded, whole."""
    head, _, body = post(f"{site.path}?expects&first", BODY, "Expect: 100-continue").partition(b"\r\n\r\n")
    with site.server.connect() as sock:
        sock.sendall(head + b"\r\n\r\n")
        interim = sock.recv(65536)
        assert interim.startswith(b"HTTP/1.1 100 "), interim
        sock.sendall(body)
        received = interim.partition(b"\r\n\r\n")[2]
        while chunk := sock.recv(65536):
            received += chunk

    assert [status_of(answer) for answer in split(received)] == [202]
    assert site.recorded("expects") == [(False, BODY)]


def test_a_body_in_single_bytes_is_one_request(site: Site) -> None:
    """However it is cut into packets."""
    raw = post(f"{site.path}?slowly&first", chunked(BODY, 1), "Transfer-Encoding: chunked")
    with site.server.connect() as sock:
        sock.setsockopt(6, 1, 1)
        for place in range(len(raw)):
            sock.sendall(raw[place : place + 1])
            if place % 16 == 0:
                time.sleep(0.001)  # the packets have to be apart
        received = b""
        while chunk := sock.recv(65536):
            received += chunk

    assert [status_of(answer) for answer in split(received)] == [202]
    assert site.recorded("slowly") == [(False, BODY)]


def test_a_sender_that_half_closes_has_sent_its_request(site: Site) -> None:
    """It is recorded once; whether the answer still reaches it is the server's affair (not with waitress)."""
    answer = site.server.send(post(f"{site.path}?halved&first", BODY), half_close=True)

    assert [status_of(one) for one in split(answer)] in ([202], [])
    assert site.recorded("halved") in ([(False, BODY)], [])
    assert len(site.recorded("halved")) >= len(split(answer))


def test_answers_of_ours_end_where_they_say(site: Site) -> None:
    """Two on one connection, or the first one's closes it: bodies are as long as their Content-Length."""
    refusal = post(PATH + "y" * 43, b"", keep=True)
    answers = site.talk(refusal * 2)

    assert answers
    for answer in answers:
        assert len(body_of(answer)) == int(header_of(answer, "Content-Length"))
        assert status_of(answer) in (404, 429)
