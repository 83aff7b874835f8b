"""An answer that a step gives goes to the process that holds the connection, encrypted, and only if it is small."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from driving import all_databases, settle
from servers import migrate

from durable import DecryptionError, Durable, Request, Response, create_webhook, step, workflow
from durable.broker.notifier import PollingNotifier
from durable.cipher import Cipher, aes_gcm
from durable.http import Request as Received
from durable.store import PushedAnswer, Vault, pushed_answers
from durable.web.record_request import accept_request, answers, find_webhook

pytestmark = all_databases()

SECRET = "plaintext-of-an-answer"
KEYS = {"new": os.urandom(32)}


class Sent(PollingNotifier):
    """What was sent to whom."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, ...]] = []

    def notify(self, holder: str, *messages: str) -> None:
        self.messages.append((holder, *messages))


@step(name="pushed.answer")
def answer(request: Request, size: int) -> bool:
    return request.respond_with(Response(SECRET + "." * size, status=201, headers={"X-Kind": SECRET}))


@workflow(name="pushed.answering")
async def answering(size: int) -> bool:
    return await answer(await create_webhook(respond_with="manual"), size)


@pytest.fixture(params=[None, "aes"], ids=["plain", "encrypted"])
def cipher(request: pytest.FixtureRequest) -> Cipher | None:
    return None if request.param is None else aes_gcm(KEYS)


@pytest.fixture
def engine(database: str, manner: dict[str, Any], cipher: Cipher | None) -> Iterator[Durable]:
    """An engine with these keys, whose notifications are kept."""
    celery = Celery(f"test-{secrets.token_hex(4)}", broker="memory://")
    made = Durable(celery, database_url=database, public_url="https://hooks.test", cipher=cipher, **manner)
    migrate(made)
    made.notifier = Sent()
    yield made
    made.close()


def answered(engine: Durable, size: int, holder: str | None = "web-1") -> tuple[str, list[tuple[str, ...]]]:
    """Send a request to a new run; its id, and the messages of its answer."""
    run = engine.start(answering, size)
    settle(engine, run)
    webhook = find_webhook(engine, run.hooks()[0]["token"])
    assert webhook is not None
    request = Received(id=secrets.token_hex(8), method="POST", url="https://hooks.test/", data=b"{}")
    accept_request(engine, webhook, request, holder=holder)
    settle(engine, run)
    assert run.result(timeout=0) is True
    assert request.id is not None
    sent: Any = engine.notifier
    return request.id, sent.messages


def test_the_answer_comes_before_the_id_and_is_what_sql_has(engine, cipher):
    """Where there is a cipher, nothing of it can be read on its way."""
    request_id, messages = answered(engine, 0)

    ((holder, pushed, last),) = messages
    assert (holder, last) == ("web-1", request_id)
    assert (SECRET in pushed) == (cipher is None)
    found = pushed_answers.read(engine.store.vault, PushedAnswer.parse(pushed))
    recorded = answers(engine, [request_id])[request_id]
    assert (found.status, found.data, list(found.headers)) == (
        recorded.status,
        recorded.data,
        list(recorded.headers),
    )


def test_a_large_answer_is_read_from_sql(engine):
    """Only its request's id is sent."""
    request_id, messages = answered(engine, pushed_answers.LONGEST)

    assert messages == [("web-1", request_id)]


def test_nothing_is_sent_for_a_connection_that_nobody_holds(engine):
    _, messages = answered(engine, 0, holder=None)

    assert messages == []


def test_an_answer_counts_only_with_the_keys_and_for_its_own_request(engine, cipher):
    """A process without the key, and one that has keys and gets an answer in the clear, read SQL."""
    _, ((_, message, _),) = answered(engine, 0)
    pushed = PushedAnswer.parse(message)

    stranger = Vault(aes_gcm({"other": os.urandom(32)}))
    with pytest.raises(DecryptionError):
        pushed_answers.read(stranger, pushed)
    if cipher is not None:
        with pytest.raises(DecryptionError):
            pushed_answers.read(engine.store.vault, pushed._replace(request_id="another"))
