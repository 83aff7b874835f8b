"""The agent of examples/agent in real processes: its worker is killed twice, and the model is paid for what is new."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from eventually import eventually
from processes import Deployment, deployed, fetch
from servers import new_broker, new_database

if os.environ.get("CI") != "true":
    pytest.importorskip("pydantic_ai", reason="pydantic-ai-slim is not installed; the dependency group `test` has it")

pytestmark = pytest.mark.live

STREAMS = "/.well-known/workflow/v1/streams"
WORDS = 200


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Deployment]:
    """The example's web process and worker."""
    with new_database("postgresql", tmp_path) as database_url, new_broker("redis", tmp_path) as broker_url:
        settings = {
            "DURABLE_SIGNING_KEY": "signs the tokens of the agent",
            "DURABLE_DEAD_AFTER": "2s",
            "DURABLE_BEAT_INTERVAL": "500ms",
            "DURABLE_RESEND_AFTER": "1s",
            "REQUESTS": str(tmp_path / "requests"),
        }
        with deployed(
            Deployment(tmp_path, database_url, broker_url, "agent_app", "agent_app:create_app()", settings)
        ) as made:
            made.start_worker()
            made.start_web()
            yield made


def messages(site: Deployment, asked: dict[str, str], stream: str) -> Iterator[dict[str, Any]]:
    """What a browser gets from a stream, to its end."""
    with closing(HTTPConnection("127.0.0.1", site.port, timeout=60)) as connection:
        connection.request("GET", f"{STREAMS}/{asked['run']}/{stream}?token={asked['token']}")
        with connection.getresponse() as response:
            assert response.status == 200
            for line in response:
                if line.startswith(b"event: end"):
                    return
                if line.startswith(b"data: {"):
                    yield json.loads(line[6:])


def test_an_agent_that_is_killed_twice_goes_on(site):
    """
    The worker is lost while a person decides, and again in the middle of the last reply.

    The person's request is held until there is a worker, and answered.  The model gets each request once, and once more
    only the one whose reply was lost.  A reader sees the tokens of that reply begin again, and the text is whole.
    """
    requests = site.folder / "requests"
    asked = fetch("POST", f"{site.url}/questions", b"my money back").json()
    approval = next(messages(site, asked, "approvals"))["item"]
    assert approval["call"]["tool"] == "refund"
    assert requests.read_text().split() == ["0", "1"]
    site.stop("worker", signal.SIGKILL)

    with ThreadPoolExecutor(1) as person:
        sent = person.submit(fetch, "POST", approval["url"], b"approve")
        eventually(lambda: is_held(site), what="the person waits for an answer")
        site.start_worker()
        answer = sent.result(60)
    assert (answer.status, answer.data) == (200, b"refund: approved\n")

    seen: list[dict[str, Any]] = []
    for message in messages(site, asked, "tokens"):
        seen.append(message)
        if message["item"] == " 50" and message["attempt"] == 1:
            site.stop("worker", signal.SIGKILL)
            site.start_worker()

    run = site.engine.get_run(asked["run"])
    result = run.result(timeout="20s")
    assert result.startswith("paid back 2500 cents of order 7")
    assert result.endswith(": " + " ".join(str(number) for number in range(WORDS)))
    assert requests.read_text().split() == ["0", "1", "2", "2"]
    assert [each["number"] for each in seen] == sorted({each["number"] for each in seen})
    assert shown(seen) == "I look it up. " + result
    assert [each["attempt"] for each in seen if each["discards"]] == [2]


def is_held(site: Deployment) -> bool:
    """Whether a request is recorded that has no answer."""
    with site.engine.store.read() as tx:
        return bool(tx.exec_driver_sql("SELECT 1 FROM durable_requests WHERE answered_at IS NULL").first())


def shown(seen: list[dict[str, Any]]) -> str:
    """The text on the page, which forgets what is discarded."""
    kept: list[dict[str, Any]] = []
    for each in seen:
        if each["discards"]:
            kept = [old for old in kept if old["step"] != each["step"]]
        kept.append(each)
    return "".join(each["item"] for each in kept)


def test_what_a_person_refuses_is_not_done(site):
    """The log has the steps of the agent, and no refund among them; the URL of the approval is closed."""
    asked = fetch("POST", f"{site.url}/questions", b"my money back").json()
    url = next(messages(site, asked, "approvals"))["item"]["url"]
    assert fetch("POST", url, b"refuse").data == b"refund: refused\n"
    run = site.engine.get_run(asked["run"])
    assert run.result(timeout="20s").startswith("A person has refused this.:")
    steps = [each.name.rpartition(".")[2] for each in run.events() if each.kind == "step_created"]
    assert steps == ["think", "find_order", "think", "decide", "think"]
    assert fetch("POST", url, b"approve").status == 410
