"""Webhook requests as they came in, and their answers: the first one wins."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, exists, func, insert, literal, select, update

from ..http import Request, Response
from ..schema import hooks, inbox, references, requests


def create(
    tx: Connection,
    run_id: str,
    op_id: str,
    request: Request,
    *,
    holder: str | None,
    dedupe_key: str | None,
    answer: Response | None,
    now: int,
) -> None:
    """Insert the request; *answer* is a static one, given at once.  IntegrityError: its key is there since."""
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
            "dedupe_key": dedupe_key,
            **_answer(answer, now),
        },
    )


def _answer(answer: Response | None, now: int) -> dict[str, Any]:
    if answer is None:
        return {"answered_at": None, "answer_head": None, "answer_body": None}
    return {"answered_at": now, "answer_head": answer.head_json(), "answer_body": answer.body}


def find_by_key(tx: Connection, run_id: str, op_id: str, dedupe_key: str) -> tuple[str, bytes] | None:
    """The id and the body of a webhook's request with this key."""
    row = tx.execute(
        select(requests.c.id, requests.c.body).where(
            requests.c.run_id == run_id, requests.c.op_id == op_id, requests.c.dedupe_key == dedupe_key
        )
    ).one_or_none()
    return None if row is None else (row.id, row.body)


def count_pending(tx: Connection, run_id: str, op_id: str, *, held: bool, limit: int) -> int:
    """How many requests of a webhook wait: for their answer if they are *held*, else to be taken in by a turn."""
    waiting = (
        select(literal(1)).where(
            requests.c.run_id == run_id, requests.c.op_id == op_id, requests.c.answered_at.is_(None)
        )
        if held
        else select(literal(1)).where(inbox.c.run_id == run_id, inbox.c.op_id == op_id)
    )
    return int(tx.execute(select(func.count()).select_from(waiting.limit(limit).subquery())).scalar_one())


def load(tx: Connection, ids: Collection[str]) -> dict[str, Request]:
    """Requests by id; those that are gone are left out."""
    if not ids:
        return {}
    rows = tx.execute(select(requests.c.id, requests.c.head, requests.c.body).where(requests.c.id.in_(ids)))
    return {row.id: Request.from_head(row.head, row.body) for row in rows}


def refer(tx: Connection, run_id: str, ids: Collection[str]) -> None:
    """Note that the run names these requests, of which some may be other runs'."""
    if not ids:
        return
    noted = exists().where(references.c.run_id == run_id, references.c.owner_run_id == requests.c.run_id)
    others = (
        select(literal(run_id), requests.c.run_id)
        .where(requests.c.id.in_(ids), requests.c.run_id != run_id, ~noted)
        .distinct()
    )
    tx.execute(insert(references).from_select(["run_id", "owner_run_id"], others))


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
