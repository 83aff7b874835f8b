"""
The acceptance list of receiving and answering, where no other live test has it: gunicorn gthread, a real worker,
PostgreSQL and Redis.
"""

from __future__ import annotations

import gzip
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis
import sqlalchemy as sa
from accepted_flows import (
    BAD,
    answers,
    answers_as_asked,
    answers_badly,
    answers_behind_gate,
    looks,
    takes,
)
from eventually import eventually
from processes import Deployment, deployed, fetch
from servers import new_broker, new_database
from webservers import body_of, header_of, post, read_all, status_of

from durable import Run, create_hook, workflow
from durable.store.schema import requests
from durable.turns.drive import drive
from durable.web.wsgi_request import PATH

pytestmark = pytest.mark.live


@workflow
async def holds_a_plain_hook(token: str) -> None:
    await create_hook(token)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("accepted")
    with new_database("postgresql", folder) as database_url, new_broker("redis", folder) as broker_url:
        described = Deployment(folder, database_url, broker_url, "accepted_app", "accepted_app:create_app()")
        with deployed(described) as made:
            yield made


@pytest.fixture
def site(deployment: Deployment) -> Deployment:
    """The worker and the web process run, also when a failed test has left it without."""
    for name, start in (("worker", deployment.start_worker), ("web", deployment.start_web)):
        if name not in deployment.processes:
            start(ready=False)
    deployment.wait_for("worker", "web")
    return deployment


def url_of(run: Run[Any]) -> str:
    return str(eventually(run.hooks, 10, "the webhook is open")[0]["url"])


def recorded(site: Deployment, run: Run[Any]) -> list[bytes]:
    """The bodies of the run's requests."""
    with site.engine.store.read() as tx:
        query = sa.select(requests.c.body).where(requests.c.run_id == run.id).order_by(requests.c.received_at)
        return [bytes(row.body) for row in tx.execute(query)]


def talk(site: Deployment, raw: bytes) -> bytes:
    """Every byte that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as sock:
        sock.sendall(raw)
        return read_all(sock)


def path_of(site: Deployment, run: Run[Any]) -> str:
    return url_of(run).removeprefix(site.url)


def test_the_default_mode_needs_no_worker(site: Deployment) -> None:
    """All workers stopped: 202 in less than 100 ms; with a worker again, the run completes with every body in order."""
    site.stop("worker", signal.SIGKILL)
    run = site.engine.start(takes, 5)
    drive(site.engine, run.id)
    took = []
    for number in range(5):
        began = time.monotonic()
        assert fetch("POST", url_of(run), b"%d" % number).status == 202
        took.append(time.monotonic() - began)
    # One of them at least, on a machine that does other things too.
    assert min(took) < 0.1
    assert run.status == "running"

    site.start_worker()
    assert run.result(timeout="20s") == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(
    "token",
    [
        b"x" * 43,
        b"%00" * 43,
        b"a%00b",
        b"%2F%2e%2e%2Fetc",
        b"..%2f..%2f",
        b"a" * 3500,
        b"%F0%9F%98%80" * 10,
        b"'%20OR%201=1%20--",
        b"x" * 43 + b"%0a",
        b"x" * 43 + b"/",
        b"%zz%",
        b"%ff%fe",
        b"",
    ],
)
def test_a_token_that_is_none_is_404(site: Deployment, token: bytes) -> None:
    """As its bytes come over the wire; a problem, never Flask's page, a redirect or a 500."""
    answer = talk(site, post(PATH, b"{}").replace(b" HTTP/1.1", token + b" HTTP/1.1", 1))

    # 429 once there have been many of them.
    assert status_of(answer) in (404, 429)
    assert header_of(answer, "Content-Type") == "application/problem+json"
    assert b"x" * 43 not in answer


def test_a_token_of_5000_characters_is_refused_by_the_server(site: Deployment) -> None:
    """Before we see it, and before any SQL."""
    assert status_of(talk(site, post(PATH + "a" * 5000, b"{}"))) in (400, 414)


def test_a_plain_hooks_token_and_other_methods_deliver_nothing(site: Deployment) -> None:
    """404 for the first; 405 with Allow for the others, HEAD without a body; an open webhook takes none of it."""
    token = secrets.token_urlsafe(32)
    hook = site.engine.start(holds_a_plain_hook, token)
    drive(site.engine, hook.id)
    assert status_of(talk(site, post(PATH + token, b"{}"))) in (404, 429)
    run = site.engine.start(takes, 1)
    path = path_of(site, run)
    for method in (b"PUT", b"GET", b"DELETE", b"HEAD", b"OPTIONS", b"BREW"):
        answer = talk(site, post(path, b"").replace(b"POST", method, 1))
        assert (status_of(answer), header_of(answer, "Allow")) == (405, "POST"), answer
        assert (body_of(answer) == b"") == (method == b"HEAD")
    assert recorded(site, run) == []
    run.cancel()
    hook.cancel()


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"", ["X-Twice: 1", "X-Twice: 2"], "BadRequestBody"),
        (bytes(range(256)) * 4096, [], "BadRequestBody"),
        (gzip.compress(b'{"a": 1}'), ["Content-Encoding: gzip", "Content-Type: application/json"], "BadRequestBody"),
        (b"[" * 100_000, [], "BadRequestBody"),
        (b'{"a": 1}', ["Content-Type: text/plain"], "json"),
    ],
    ids=["empty", "1 MiB", "gzip", "nested", "untyped"],
)
def test_c63_a_step_has_the_bytes_that_were_sent(site: Deployment, body: bytes, headers: list[str], said: str) -> None:
    """Nothing, 1 MiB, gzip as it is; what is no JSON is caught in the step."""
    run = site.engine.start(looks)

    answer = talk(site, post(path_of(site, run), body, *headers))

    assert (status_of(answer), body_of(answer)) == (200, b"")
    seen = run.result(timeout="20s")
    assert (seen["data"], seen["json"]) == (body, said)
    assert ",".join(seen["headers"]).replace(" ", "") == ("1,2" if "X-Twice: 1" in headers else "")


def test_c67_a_copy_gets_the_one_answer_before_and_after_it_is_there(site: Deployment, tmp_path: Path) -> None:
    """Fifty at once, while it waits: one event, one answer on all; again, also after the run; 422 for another body."""
    run = site.engine.start(answers_behind_gate, str(tmp_path))
    url, id_ = url_of(run), {"X-Id": "1"}
    with ThreadPoolExecutor(20) as threads:
        copies = [threads.submit(fetch, "POST", url, b"one", id_) for _ in range(20)]
        eventually((tmp_path / "begun").exists)
        assert fetch("POST", url, b"another", id_).status == 422
        (tmp_path / "open").touch()
        assert {(copy.result().status, copy.result().data) for copy in copies} == {(200, b"late")}
    assert run.result(timeout="20s") is None

    again = fetch("POST", url, b"one", id_)
    assert (again.status, again.data, again.headers["Idempotent-Replayed"]) == (200, b"late", "true")
    assert fetch("POST", url, b"another", id_).status == 422
    assert fetch("POST", url, b"two", {"X-Id": "2"}).status == 410
    assert recorded(site, run) == [b"one"]


def test_without_a_key_each_request_is_an_event(site: Deployment) -> None:
    """Two of the same bytes: two events in their order, two answers."""
    run = site.engine.start(answers, "", 3)
    said = [fetch("POST", url_of(run), body).data for body in (b"a", b"a", b"b")]

    assert said == [b"answer to a", b"answer to a", b"answer to b"]
    assert run.result(timeout="20s") == ["a", "a", "b"]


def test_c63_no_answer_is_split(site: Deployment) -> None:
    """Each bad answer raises in the step; what goes out is one answer, framed by the server alone."""
    run = site.engine.start(answers_badly)

    received = talk(site, post(path_of(site, run), b""))

    assert sorted(run.result(timeout="20s")) == sorted(BAD)
    head, _, body = received.partition(b"\r\n\r\n")
    assert body == b"good"
    assert received.count(b"HTTP/1.") == 1
    names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
    assert (names.count(b"content-length"), names.count(b"transfer-encoding")) == (1, 0)
    assert names.count(b"set-cookie") == 2
    assert header_of(received, "Content-Length") == "4"
    assert b"x-b" not in names


def test_c66_answers_of_every_shape_end_where_they_say(site: Deployment) -> None:
    """204 and 304 with no byte behind their headers, a redirect, 900 KiB; the connection goes on behind each."""
    asked = {"204": (204, 0), "304": (304, 0), "303": (303, None), "900": (200, 900 * 1024)}
    run = site.engine.start(answers_as_asked, len(asked))
    path = path_of(site, run)
    for shape, (status, size) in asked.items():
        health = b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        received = talk(site, post(path, shape.encode(), keep=True) + health)
        assert status_of(received) == status
        _, _, rest = received.partition(b"\r\n\r\n")
        length = int(header_of(received, "Content-Length") or 0)
        assert size is None or length == size
        assert rest[length:].startswith(b"HTTP/1.1 200 OK\r\n")
        assert received.count(b"HTTP/1.1") == 2
    run.result(timeout="20s")


def test_c65_a_run_that_is_cancelled_tells_who_is_held(site: Deployment, tmp_path: Path) -> None:
    """503 ``run-cancelled`` within a second, on the held connection."""
    run = site.engine.start(answers_behind_gate, str(tmp_path))
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(fetch, "POST", url_of(run), b"one", {"X-Id": "1"})
        eventually((tmp_path / "begun").exists)
        run.cancel()
        answer = held.result(20)
        answered_at = site.engine.now()
        (tmp_path / "open").touch()

    assert (answer.status, answer.json()["code"]) == (503, "run-cancelled")
    assert run.completed_at is not None
    assert answered_at - int(run.completed_at.timestamp() * 1_000_000) < 1_000_000


def test_c66_a_retry_gets_the_answer_that_a_killed_web_process_could_not_give(site: Deployment, tmp_path: Path) -> None:
    """The web process is killed while it holds; what its sender sends again is the same event, and answered."""
    run = site.engine.start(answers_behind_gate, str(tmp_path))
    url, id_ = url_of(run), {"X-Id": "1"}
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(fetch, "POST", url, b"one", id_)
        eventually((tmp_path / "begun").exists)
        site.stop("web", signal.SIGKILL)
        with pytest.raises(OSError):  # noqa: PT011  whichever way the connection breaks
            first.result(20)
    site.start_web()
    with ThreadPoolExecutor(1) as threads:
        second = threads.submit(fetch, "POST", url, b"one", id_)
        (tmp_path / "open").touch()
        assert (second.result(20).status, second.result().data) == (200, b"late")
    assert recorded(site, run) == [b"one"]


def test_c68_redis_flushed_while_held(site: Deployment, tmp_path: Path) -> None:
    """The answer that a step gives is there within two seconds all the same."""
    run = site.engine.start(answers_behind_gate, str(tmp_path))
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(fetch, "POST", url_of(run), b"one", {"X-Id": "1"})
        eventually((tmp_path / "begun").exists)
        with redis.Redis.from_url(site.broker_url) as client:
            client.flushdb()
        began = time.monotonic()
        (tmp_path / "open").touch()
        assert held.result(20).data == b"late"
        assert time.monotonic() - began < 2


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def test_a_message_in_pickle_is_refused(site: Deployment, tmp_path: Path) -> None:
    """A forged task message: the worker does not decode it, and goes on."""
    with kombu.Connection(site.broker_url) as connection:
        queue = connection.SimpleQueue("celery", serializer="pickle")
        task = {"id": "1", "task": "durable.drive", "args": [Bomb(str(tmp_path / "bang"))], "kwargs": {}}
        queue.put(task, headers={"id": "1", "task": "durable.drive", "lang": "py"})
        queue.close()
    eventually(lambda: "ContentDisallowed" in site.processes["worker"].log.read_text(), 20)

    run = site.engine.start(takes, 1)
    assert fetch("POST", url_of(run), b"on").status == 202
    assert run.result(timeout="20s") == [b"on"]
    assert not (tmp_path / "bang").exists()
