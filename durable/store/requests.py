"""Webhook requests as they came in, and their answers: the first one wins."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, insert, select, update

from ..http import Request, Response
from ..schema import hooks, requests


def create(
    tx: Connection,
    run_id: str,
    op_id: str,
    request: Request,
    *,
    holder: str | None,
    answer: Response | None,
    now: int,
) -> None:
    """Insert the request; *answer* is a static one, given at once."""
    tx.execute(
        insert(requests),
        {
            "id": request.id,
            "run_id": run_id,
            "op_id": op_id,
            "received_at": now,
            "head": request.head_json(),
            "body": request.data,
            "holder": holder,
            **_answer(answer, now),
        },
    )


def _answer(answer: Response | None, now: int) -> dict[str, Any]:
    if answer is None:
        return {"answered_at": None, "answer_head": None, "answer_body": None}
    return {"answered_at": now, "answer_head": answer.head_json(), "answer_body": answer.body}


def load(tx: Connection, ids: Collection[str]) -> dict[str, Request]:
    """Requests by id; those that are gone are left out."""
    if not ids:
        return {}
    rows = tx.execute(select(requests.c.id, requests.c.head, requests.c.body).where(requests.c.id.in_(ids)))
    return {row.id: Request.from_head(row.head, row.body) for row in rows}


def answer(tx: Connection, request_id: str, response: Response, now: int) -> str | None:
    """Record the answer if there is none: the holder to tell ("" for nobody), None when one was there."""
    changed = tx.execute(
        update(requests)
        .where(requests.c.id == request_id, requests.c.answered_at.is_(None))
        .values(**_answer(response, now))
    )
    if changed.rowcount != 1:
        return None
    return tx.execute(select(requests.c.holder).where(requests.c.id == request_id)).scalar_one() or ""


def unanswered(tx: Connection, run_id: str) -> list[str]:
    """Requests of a run that nobody has answered."""
    rows = tx.execute(select(requests.c.id).where(requests.c.run_id == run_id, requests.c.answered_at.is_(None)))
    return list(rows.scalars())


def answers(tx: Connection, ids: Collection[str]) -> dict[str, Response]:
    """The answers that there are to these requests."""
    rows = tx.execute(
        select(requests.c.id, requests.c.answer_head, requests.c.answer_body).where(
            requests.c.id.in_(ids), requests.c.answered_at.is_not(None)
        )
    )
    return {row.id: Response.from_head(row.answer_head, row.answer_body) for row in rows}


def belongs(tx: Connection, request_id: str, token_hash: str) -> bool:
    """Whether the request came in on the webhook of this token."""
    row = tx.execute(
        select(requests.c.id)
        .join(hooks, (hooks.c.run_id == requests.c.run_id) & (hooks.c.op_id == requests.c.op_id))
        .where(requests.c.id == request_id, hooks.c.token_hash == token_hash)
    ).one_or_none()
    return row is not None
