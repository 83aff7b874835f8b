"""Storms on runs without end: what many send while generations follow each other is taken once, and in order."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
from driving import all_databases, work

from durable import Durable, Run, continue_as_new, create_hook, create_webhook, step, workflow
from durable.turns.drive import drive
from durable.web import create_blueprint

pytestmark = all_databases()

SENDERS = 3
#: What each sender sends to the webhook, and to the hook.
EACH = 20
#: How much a generation takes.
SHORT = 7


@step
def note_in_storm(seen: list[str]) -> list[str]:
    return seen


@workflow
async def numbered_generations(token: str, count: int, seen: list[str] | None = None) -> list[str]:
    seen = seen or []
    webhook, hook = create_webhook(name="storm"), create_hook(token)
    here = 0
    while len(seen) < count:
        request = await webhook
        seen = [*seen, request.text(), str(await hook)]
        here += 1
        if here == SHORT:
            continue_as_new(token, count, await note_in_storm(seen))
    return seen


def last_of(run: Run[Any]) -> Run[Any]:
    return run.generations()[-1]


def test_nothing_is_lost_doubled_or_reordered(engine: Durable) -> None:
    """Each sender's requests and payloads come in its order, each once, through a generation for every few of them."""
    token = f"storm-{secrets.token_hex(8)}"
    app = flask.Flask("storm")
    app.register_blueprint(create_blueprint(engine))
    run = engine.start(numbered_generations, token, 2 * SENDERS * EACH)
    drive(engine, run.id)
    url = str(next(hook["url"] for hook in run.hooks() if hook["is_webhook"])).removeprefix("https://hooks.test")

    def send(sender: int) -> None:
        client = app.test_client()
        for number in range(EACH):
            assert client.post(url, data=f"w{sender}:{number:03}").status_code == 202
            assert engine.resume_hook(token, f"h{sender}:{number:03}") in run.generations()

    def take_turns() -> None:
        while run.status in ("pending", "running"):
            last = last_of(run)
            drive(engine, last.id)
            work(engine, last)

    with ThreadPoolExecutor(SENDERS + 2) as threads:
        busy = [threads.submit(take_turns) for _ in range(2)]
        try:
            for sent in [threads.submit(send, sender) for sender in range(SENDERS)]:
                sent.result()
        except BaseException:
            run.cancel()
            raise
        for worker in busy:
            worker.result()

    seen = run.result(1)
    for kind in ("w", "h"):
        for sender in range(SENDERS):
            mine = [each for each in seen if each.startswith(f"{kind}{sender}:")]
            assert mine == [f"{kind}{sender}:{number:03}" for number in range(EACH)]
    assert len(run.generations()) > 2 * SENDERS
