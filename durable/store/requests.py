"""Webhook requests as they came in, and their answers: the first one wins."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    Connection,
    Select,
    String,
    any_,
    bindparam,
    exists,
    func,
    insert,
    literal,
    select,
    text,
    update,
)

from ..events import HookReceived
from ..http import Request, Response
from . import vault
from .claims import Claim
from .schema import hooks, inbox, references, requests
from .statements import Prepared
from .vault import LIMIT, Body


@dataclass(frozen=True, kw_only=True, slots=True)
class IncomingRequest:
    """
    What comes in.

    Attributes:
        holder: The process that holds the connection.
        answer: A static one, given at once.
        limit: So many requests may wait: for their answer, or, where they were given a static one, for a turn; 0: any.
    """

    run_id: str
    op_id: str
    request: Request
    holder: str | None
    dedupe_key: str | None
    answer: Response | None
    limit: int
    at: int

    @property
    def is_plain(self) -> bool:
        """Whether the request's row and the news are all there is to write."""
        return len(self.request.data) <= LIMIT and (self.answer is None or len(self.answer.body) <= LIMIT)

    @property
    def news(self) -> HookReceived:
        """What the run is told."""
        return HookReceived(at=self.at, op_id=self.op_id, request_id=self.request.id)


#: A request's columns.
COLUMNS = tuple(requests.c.keys())


def create(tx: Connection, arrival: IncomingRequest) -> None:
    """Insert the request.  IntegrityError: its key is there since."""
    tx.execute(insert(requests), row_of(tx, arrival))


def row_of(tx: Connection, arrival: IncomingRequest) -> dict[str, Any]:
    """A request that has come in, as it is stored."""
    request = arrival.request
    request_id = str(request.id)
    head, body = vault.of(tx).seal_body(tx, arrival.run_id, _sent(request_id), request.head_json(), request.data)
    return {
        "id": request_id,
        "run_id": arrival.run_id,
        "op_id": arrival.op_id,
        "received_at": arrival.at,
        "head": head,
        "body": body,
        "holder": arrival.holder,
        "dedupe_key": arrival.dedupe_key,
        **_answer(tx, arrival.run_id, request_id, arrival.answer, arrival.at),
    }


def _sent(request_id: str) -> str:
    """Where in its run a request's head and body are."""
    return f"request {request_id}"


def _answered(request_id: str) -> str:
    return f"answer {request_id}"


def _answer(tx: Connection, run_id: str, request_id: str, answer: Response | None, now: int) -> dict[str, Any]:
    if answer is None:
        return {"answered_at": None, "answer_head": None, "answer_body": None}
    head, body = vault.of(tx).seal_body(tx, run_id, _answered(request_id), answer.head_json(), answer.body)
    return {"answered_at": now, "answer_head": head, "answer_body": body}


def find_by_key(tx: Connection, run_id: str, op_id: str, dedupe_key: str) -> tuple[str, bytes] | None:
    """The id and the body of a webhook's request with this key."""
    row = tx.execute(
        select(requests.c.id, requests.c.head, requests.c.body).where(
            requests.c.run_id == run_id, requests.c.op_id == op_id, requests.c.dedupe_key == dedupe_key
        )
    ).one_or_none()
    return None if row is None else (row.id, _whole(tx, run_id, _sent(row.id), row.head, row.body)[1])


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


def _among(query: Select[Any]) -> tuple[Prepared, Select[Any]]:
    """A query for some ids: as PostgreSQL takes them, in one parameter, and as others do."""
    at_once = requests.c.id == any_(bindparam("ids", type_=ARRAY(String)))
    return Prepared(query.where(at_once)), query.where(requests.c.id.in_(bindparam("ids", expanding=True)))


_SENT = _among(select(requests.c.id, requests.c.run_id, requests.c.head, requests.c.body))
_ANSWERED = _among(
    select(requests.c.id, requests.c.run_id, requests.c.answer_head, requests.c.answer_body).where(
        requests.c.answered_at.is_not(None)
    )
)


def _those(tx: Connection, queries: tuple[Prepared, Select[Any]], ids: Collection[str]) -> Sequence[Any]:
    at_once, elsewhere = queries
    if tx.dialect.name == "postgresql":
        return at_once.rows(tx, {"ids": list(ids)})
    return tx.execute(elsewhere, {"ids": list(ids)}).all()


def load(tx: Connection, ids: Collection[str], *, whole: bool = True) -> dict[str, Request]:
    """
    Requests by id; those that are gone are left out.

    Args:
        whole: False leaves out bodies larger than what a turn loads: reading one raises BodyNotLoaded.

    Raises:
        PayloadMissing: A large body is not there, or not what was stored.
    """
    if not ids:
        return {}
    return {row.id: _request(tx, row, whole) for row in _those(tx, _SENT, ids)}


def _request(tx: Connection, row: Any, whole: bool) -> Request:
    kept = vault.of(tx)
    head, body = kept.unseal_body(row.run_id, _sent(row.id), row.head, row.body)
    if isinstance(body, Body) and not whole:
        return Request.without_body(head, body.size, LIMIT)
    return Request.from_head(head, kept.fetch_body(tx, row.run_id, body))


def _whole(tx: Connection, run_id: str, place: str, head: str, body: bytes) -> tuple[str, bytes]:
    kept = vault.of(tx)
    plain, found = kept.unseal_body(run_id, place, head, body)
    return plain, kept.fetch_body(tx, run_id, found)


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
    open_one = (requests.c.id == request_id, requests.c.answered_at.is_(None))
    known = tx.execute(select(requests.c.run_id, requests.c.holder).where(*open_one)).one_or_none()
    if known is None:
        return None
    recorded = _answer(tx, known.run_id, request_id, response, now)
    changed = tx.execute(update(requests).where(*open_one).values(**recorded))
    return (known.holder or "") if changed.rowcount == 1 else None


_ANSWER_AS = Prepared(
    text(
        "WITH attempt AS"
        " (SELECT 1 FROM durable_steps WHERE run_id = :run AND op_id = :op AND claim = :claim FOR UPDATE)"
        " UPDATE durable_requests"
        " SET answered_at = :answered_at, answer_head = :answer_head, answer_body = :answer_body"
        " FROM attempt WHERE id = :id AND run_id = :run AND answered_at IS NULL RETURNING holder"
    )
)


def commit_answer(tx: Connection, held: Claim, request_id: str, response: Response, now: int) -> str | None:
    """
    The same as an attempt's, in one statement of PostgreSQL: the holder to tell.

    None, and nothing is written, when the attempt was given up, there is an answer, or the request is another run's.
    """
    known = {"run": held.run_id, "op": held.op_id, "claim": held.claim, "id": request_id}
    row = _ANSWER_AS.one(tx, known | _answer(tx, held.run_id, request_id, response, now))
    return None if row is None else (row.holder or "")


def unanswered(tx: Connection, run_id: str) -> list[str]:
    """Requests of a run that nobody has answered."""
    rows = tx.execute(select(requests.c.id).where(requests.c.run_id == run_id, requests.c.answered_at.is_(None)))
    return list(rows.scalars())


def answers(tx: Connection, ids: Collection[str]) -> dict[str, Response]:
    """The answers that there are to these requests."""
    return {
        row.id: Response.from_head(*_whole(tx, row.run_id, _answered(row.id), row.answer_head, row.answer_body))
        for row in _those(tx, _ANSWERED, ids)
    }


def belongs(tx: Connection, request_id: str, token_hash: str) -> bool:
    """Whether the request came in on the webhook of this token."""
    row = tx.execute(
        select(requests.c.id)
        .join(hooks, (hooks.c.run_id == requests.c.run_id) & (hooks.c.op_id == requests.c.op_id))
        .where(requests.c.id == request_id, hooks.c.token_hash == token_hash)
    ).one_or_none()
    return row is not None
