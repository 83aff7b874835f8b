"""Runs that continue as new, with an open webhook and an open hook."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from corpus.cases import Case, is_over
from durable import Request, Response, Run, continue_as_new, create_hook, create_webhook, step, workflow
from durable.store.schema import events, inbox, requests
from durable.testing import Environment


@step(name="corpus.book", retry_backoff=0)
def book(request: Request, booked: list[str]) -> list[str]:
    """Add what was sent."""
    booked = [*booked, request.text()]
    request.respond_with(Response(",".join(booked)))
    return booked


@workflow(name="corpus.ledger")
async def ledger(booked: list[str] | None = None) -> list[str]:
    """A generation for each request; the last one also waits for what came to a hook long before."""
    webhook = create_webhook(respond_with="manual", name="payments")
    closing = create_hook("corpus:closing")
    async for request in webhook:
        booked = await book(request, booked or [])
        if len(booked) == 3:
            return [*booked, await closing]
        continue_as_new(booked)
    return []


def pays(env: Environment, run: Run[Any]) -> None:
    """Post each payment, unless that was done, and wait for its answer; close the ledger after the first one."""
    env.run_until_idle()
    while not is_over(run) and not run.hooks():
        if not env.jump():
            return
    url = next((hook["url"] for hook in run.hooks() if hook["is_webhook"]), None)
    for number in range(3):
        body = f"p{number}".encode()
        if url is not None and not is_over(run) and _found(env, requests, body=body) == 0:
            env.post(url, data=body)
        while _found(env, requests, body=body, answered_at=None) and env.jump():
            pass
        if number == 0 and not is_over(run) and not _found(env, inbox, value='"closed"'):
            logged = any(_found(env, events, run_id=each.id, value='"closed"') for each in run.generations())
            if not logged:
                env.resume("corpus:closing", "closed")


def _found(env: Environment, table: sa.Table, **values: Any) -> int:
    with env.store.read() as tx:
        mine = [table.c[name] == value for name, value in values.items()]
        return int(tx.execute(sa.select(sa.func.count()).select_from(table).where(*mine)).scalar_one())


CASES = [Case(ledger, during=pays)]
