"""Workflows that reply: themselves, and by a step that a test can hold up."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from durable import Question, define_hook, get_step_metadata, step, workflow


@dataclass
class Visit:
    name: str


@dataclass
class Greeting:
    text: str
    number: int


visits = define_hook(Visit, name="replying_live.visits", reply=Greeting)


@workflow(name="replying_live.porter")
async def porter(token: str, last: str) -> int:
    """Greets each visitor, with their number."""
    number = 0
    async for question in visits.create(token=token):
        number += 1
        question.reply(Greeting(f"hello {question.payload.name}", number))
        if question.payload.name == last:
            break
    return number


@step(name="replying_live.greets", max_retries=3, retry_backoff=0.1)
def greets(question: Question[Visit, Greeting], folder: str) -> bool:
    """The first attempt notes that it is there, and stays for as long as the file does."""
    attempt = get_step_metadata().attempt
    held = Path(folder) / f"held-{question.payload.name}"
    held.with_suffix(f".{attempt}").touch()
    while attempt == 1 and held.exists():
        time.sleep(0.02)
    return question.reply(Greeting(f"hello {question.payload.name}", attempt))


@workflow(name="replying_live.busy_porter")
async def busy_porter(token: str, folder: str) -> bool:
    return await greets(await visits.create(token=token), folder)
