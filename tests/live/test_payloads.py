"""What a sender sends is what a step sees: bytes, forms, files, signatures; and many senders at once."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from eventually import eventually
from live_flows import SECRET, gathers, looks
from processes import Deployment, deployed, fetch
from servers import new_broker, new_database

from durable import Run, resume_hook
from durable.store.schema import requests

pytestmark = pytest.mark.live

BYTES = bytes(range(256))
HELD = 200
#: How many runs share them.
RUNS = 10


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """PostgreSQL and Redis, one worker, one web process with more threads than connections to hold."""
    folder = tmp_path_factory.mktemp("payloads")
    with new_database("postgresql", folder) as database_url, new_broker("redis", folder) as broker_url:
        described = Deployment(folder, database_url, broker_url, "live_app", "live_app:create_app()")
        with deployed(described) as made:
            made.start_worker(ready=False)
            made.start_web("--threads", str(HELD + 40), "--backlog", str(2 * HELD), ready=False)
            made.wait_for("worker", "web")
            yield made


def url_of(run: Run[Any]) -> str:
    return str(eventually(run.hooks, 10, "the webhook is open")[0]["url"])


def looked_at(
    site: Deployment, data: bytes, headers: dict[str, str], *, query: str = "", method: str = "POST"
) -> dict[str, Any]:
    """What the step saw of a request."""
    run = site.engine.start(looks, "plain")
    answer = fetch(method, url_of(run) + query, data, headers)
    assert (answer.status, answer.json()) == (200, {"size": len(data)})
    seen: dict[str, Any] = run.result(timeout="10s")
    return seen


def test_c63_every_byte_reaches_the_step(site):
    """0 to 255, as they are, with the URL exactly as it was sent."""
    seen = looked_at(site, BYTES * 40, {"Content-Type": "application/octet-stream"}, query="?q=%20a&q=b%2Fc&e=")

    assert seen["data"] == BYTES * 40
    assert seen["url"].endswith("?q=%20a&q=b%2Fc&e=")
    assert seen["args"] == [("q", " a"), ("q", "b/c"), ("e", "")]


def test_c63_invalid_utf8_stays_as_it_is(site):
    """The bytes are kept; reading them as text replaces what is none."""
    seen = looked_at(site, b"caf\xe9 \xff\x00 ok", {"Content-Type": "application/json"})

    assert seen["data"] == b"caf\xe9 \xff\x00 ok"
    assert seen["text"] == "caf� �\x00 ok"


def test_c63_a_body_without_content_type(site):
    """Nobody makes one up."""
    seen = looked_at(site, b"a=1&b=2", {}, method="PUT")

    assert (seen["method"], seen["data"], seen["form"]) == ("PUT", b"a=1&b=2", [])
    assert not seen["content_type"]


def test_c63_repeated_form_keys_stay_in_order(site):
    """A form is a multi-dict."""
    seen = looked_at(
        site, b"item=1&item=2&name=J%C3%BCrgen&item=3", {"Content-Type": "application/x-www-form-urlencoded"}
    )

    assert seen["form"] == [("item", "1"), ("item", "2"), ("item", "3"), ("name", "Jürgen")]


def test_a_form_that_is_not_utf_8_reaches_a_step(site):
    """Its bytes as they were sent; as a form, all of its fields, without the byte order mark before the first."""
    body = b"\xef\xbb\xbfa=1&b=\xff&c=3"
    seen = looked_at(site, body, {"Content-Type": "application/x-www-form-urlencoded"})

    assert seen["data"] == body
    assert seen["form"] == [("a", "1"), ("b", "\ufffd"), ("c", "3")]


def test_c63_multipart_with_files(site):
    """Fields and files of a multipart body, names and bytes, and the body itself."""
    body = b"".join(
        b'--edge\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (name, more, value)
        for name, more, value in [
            (b"title", b"", b"a scan"),
            (b"scan", b'; filename="1.bin"\r\nContent-Type: application/x-scan', BYTES),
            (b"scan", b'; filename="2.bin"\r\nContent-Type: application/x-scan', b""),
        ]
    )
    body += b"--edge--\r\n"

    seen = looked_at(site, body, {"Content-Type": "multipart/form-data; boundary=edge"})

    assert seen["data"] == body
    assert seen["form"] == [("title", "a scan")]
    assert seen["files"] == [
        ("scan", "1.bin", "application/x-scan", BYTES),
        ("scan", "2.bin", "application/x-scan", b""),
    ]


@pytest.mark.parametrize("tampered", [False, True], ids=["signed", "tampered"])
def test_c67_a_signature_verifies_in_a_step(site, tampered):
    """The signed bytes are those that the step checks; one byte more, and it fails."""
    body = b'{"amount": 100, "note": "\xff"}'
    signature = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    run = site.engine.start(looks, "signed")

    answer = fetch("POST", url_of(run), body + b" " * tampered, {"X-Signature": signature})

    assert (answer.status, answer.json()) == ((401, {"verified": False}) if tampered else (200, {"verified": True}))
    assert run.result(timeout="10s") is not tampered


def test_c65_two_hundred_are_held_and_each_gets_its_own_answer(site):
    """While they are held, another route answers within 100 ms; answers come from another process."""
    goes = [secrets.token_hex(8) for _ in range(RUNS)]
    runs = [site.engine.start(gathers, HELD // RUNS, go) for go in goes]
    urls = [url_of(run) for run in runs]
    bodies = [f"sender {number}".encode() for number in range(HELD)]
    with ThreadPoolExecutor(HELD) as threads:
        held = [threads.submit(fetch, "POST", urls[n % RUNS], body) for n, body in enumerate(bodies)]
        eventually(lambda: sum(_accepted(site, run) for run in runs) == HELD, 20, "all are accepted")
        eventually(lambda: all(len(run.hooks()) == 2 for run in runs), 20, "the workflows have taken them")
        elsewhere = [_seconds_of(f"{site.url}/health") for _ in range(20)]
        assert not any(future.done() for future in held)
        for go in goes:
            resume_hook(go, None)
        answers = [future.result(40) for future in held]

    assert [(a.status, a.data) for a in answers] == [(200, b"answer to " + body) for body in bodies]
    assert max(elsewhere) < 0.1, elsewhere
    for number, run in enumerate(runs):
        assert sorted(run.result(timeout="20s")) == sorted(body.decode() for body in bodies[number::RUNS])


def _accepted(site: Deployment, run: Run[Any]) -> int:
    with site.engine.store.read() as tx:
        query = sa.select(sa.func.count()).select_from(requests).where(requests.c.run_id == run.id)
        return int(tx.execute(query).scalar_one())


def _seconds_of(url: str) -> float:
    began = time.monotonic()
    assert fetch("GET", url).status == 200
    return time.monotonic() - began
