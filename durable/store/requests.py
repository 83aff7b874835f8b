"""Rows of webhook requests and their answers.  The first answer wins."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    Connection,
    Select,
    String,
    any_,
    bindparam,
    delete,
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
from .database import Store
from .schema import hooks, inbox, received, references, requests
from .statements import Prepared
from .vault import LIMIT, UnfetchedBody


@dataclass(frozen=True, kw_only=True, slots=True)
class IncomingRequest:
    """
    A webhook request to record.

    Attributes:
        holder: The process that holds the sender's connection.
        answer: A static response, given at once.
        limit: How many requests may wait for their answer or, with a static response, for a turn; 0 for no limit.
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
        """Whether the row and the inbox item are all there is to write: no body is a large value."""
        return len(self.request.data) <= LIMIT and (self.answer is None or len(self.answer.body) <= LIMIT)

    @property
    def event(self) -> HookReceived:
        """The event for the run's inbox."""
        return HookReceived(at=self.at, op_id=self.op_id, request_id=self.request.id)


#: The columns of a new request: it has no duplicates yet, and was not handed over.
COLUMNS = tuple(name for name in requests.c.keys() if name not in ("duplicates", "handed_to"))  # noqa: SIM118


def create(tx: Connection, incoming: IncomingRequest) -> None:
    """Insert the request; raises IntegrityError when one with its key has been recorded meanwhile."""
    tx.execute(insert(requests), row_of(tx, incoming))


def row_of(tx: Connection, incoming: IncomingRequest) -> dict[str, Any]:
    """The columns of a new request's row."""
    request = incoming.request
    request_id = str(request.id)
    head, body = vault.of(tx).seal_body(
        tx, incoming.run_id, _request_place(request_id), request.head_json(), request.data
    )
    return {
        "id": request_id,
        "run_id": incoming.run_id,
        "op_id": incoming.op_id,
        "received_at": incoming.at,
        "head": head,
        "body": body,
        "holder": incoming.holder,
        "dedupe_key": incoming.dedupe_key,
        **_answer_columns(tx, incoming.run_id, request_id, incoming.answer, incoming.at),
    }


def move(tx: Connection, request_id: str, run_id: str, op_id: str) -> None:
    """Give a request that belongs to no run to a run, with its answer if it has one."""
    row = tx.execute(select(requests).where(requests.c.id == request_id)).one()
    own_vault = vault.of(tx)
    place, answer_place = _request_place(request_id), _answer_place(request_id)
    head, body = own_vault.seal_body(tx, run_id, place, *_whole(tx, row.run_id, place, row.head, row.body))
    moved = {"run_id": run_id, "op_id": op_id, "head": head, "body": body}
    if row.answered_at is not None:
        plain = _whole(tx, row.run_id, answer_place, row.answer_head, row.answer_body)
        moved["answer_head"], moved["answer_body"] = own_vault.seal_body(tx, run_id, answer_place, *plain)
    tx.execute(update(requests).where(requests.c.id == request_id).values(moved))
    # The run was written with a reference to it, while it was not the run's own.
    tx.execute(delete(references).where(references.c.owner_run_id == row.run_id))


def _request_place(request_id: str) -> str:
    """The place of a request's head and body within their run, which encryption binds them to."""
    return f"request {request_id}"


def _answer_place(request_id: str) -> str:
    return f"answer {request_id}"


def _answer_columns(tx: Connection, run_id: str, request_id: str, answer: Response | None, now: int) -> dict[str, Any]:
    if answer is None:
        return {"answered_at": None, "answer_head": None, "answer_body": None}
    head, body = vault.of(tx).seal_body(tx, run_id, _answer_place(request_id), answer.head_json(), answer.body)
    return {"answered_at": now, "answer_head": head, "answer_body": body}


def find_by_key(tx: Connection, token_hash: str, dedupe_key: str) -> tuple[str, bytes] | None:
    """The id and the body of the request with this key to the webhook with this token, in any generation of its run."""
    row = tx.execute(
        select(requests.c.id, requests.c.run_id, requests.c.head, requests.c.body)
        .join(hooks, (hooks.c.run_id == requests.c.run_id) & (hooks.c.op_id == requests.c.op_id))
        .where(hooks.c.token_hash == token_hash, requests.c.dedupe_key == dedupe_key)
        .order_by(requests.c.received_at)
        .limit(1)
    ).one_or_none()
    return None if row is None else (row.id, _whole(tx, row.run_id, _request_place(row.id), row.head, row.body)[1])


def count_pending(tx: Connection, run_id: str, op_id: str, *, held: bool, limit: int) -> int:
    """How many requests of a webhook wait: for their answer if *held*, else for a turn to read them."""
    waiting = (
        select(literal(1)).where(
            requests.c.run_id == run_id, requests.c.op_id == op_id, requests.c.answered_at.is_(None)
        )
        if held
        else select(literal(1)).where(inbox.c.run_id == run_id, inbox.c.op_id == op_id)
    )
    return int(tx.execute(select(func.count()).select_from(waiting.limit(limit).subquery())).scalar_one())


def _by_ids(query: Select[Any]) -> tuple[Prepared, Select[Any]]:
    """A query for a list of ids: with one array parameter for PostgreSQL, and with ``IN`` for the others."""
    in_array = requests.c.id == any_(bindparam("ids", type_=ARRAY(String)))
    return Prepared(query.where(in_array)), query.where(requests.c.id.in_(bindparam("ids", expanding=True)))


_SENT = _by_ids(select(requests.c.id, requests.c.run_id, requests.c.head, requests.c.body))
_ANSWERED = _by_ids(
    select(requests.c.id, requests.c.run_id, requests.c.answer_head, requests.c.answer_body).where(
        requests.c.answered_at.is_not(None)
    )
)


def _rows(tx: Connection, queries: tuple[Prepared, Select[Any]], ids: Collection[str]) -> Sequence[Any]:
    with_array, with_in = queries
    if tx.dialect.name == "postgresql":
        return with_array.rows(tx, {"ids": list(ids)})
    return tx.execute(with_in, {"ids": list(ids)}).all()


def load(tx: Connection, ids: Collection[str], *, whole: bool = True) -> dict[str, Request]:
    """
    Requests by id; ids without a row are left out.

    Args:
        whole: Whether to load large bodies too; reading one that was not loaded raises BodyNotLoaded.

    Raises:
        PayloadMissing: A large body is gone, or is not what was stored.
    """
    if not ids:
        return {}
    return {row.id: _request(tx, row, whole) for row in _rows(tx, _SENT, ids)}


def _request(tx: Connection, row: Any, whole: bool) -> Request:
    own_vault = vault.of(tx)
    head, body = own_vault.unseal_body(row.run_id, _request_place(row.id), row.head, row.body)
    if isinstance(body, UnfetchedBody) and not whole:
        return Request.without_body(head, body.size, LIMIT)
    return Request.from_head(head, own_vault.fetch_body(tx, row.run_id, body))


def _whole(tx: Connection, run_id: str, place: str, head: str, body: bytes) -> tuple[str, bytes]:
    own_vault = vault.of(tx)
    plain, found = own_vault.unseal_body(run_id, place, head, body)
    return plain, own_vault.fetch_body(tx, run_id, found)


def record_references(tx: Connection, run_id: str, ids: Collection[str]) -> None:
    """Record which other runs own requests that this run refers to: they are kept as long as this run."""
    if not ids:
        return
    is_recorded = exists().where(references.c.run_id == run_id, references.c.owner_run_id == requests.c.run_id)
    others = (
        select(literal(run_id), requests.c.run_id)
        .where(requests.c.id.in_(ids), requests.c.run_id != run_id, ~is_recorded)
        .distinct()
    )
    tx.execute(insert(references).from_select(["run_id", "owner_run_id"], others))


def answer(tx: Connection, request_id: str, response: Response, now: int) -> str | None:
    """
    Record the answer to a request.

    Returns:
        The process to notify, "" when none holds the connection; None when the request had an answer already.
    """
    unanswered_one = (requests.c.id == request_id, requests.c.answered_at.is_(None))
    row = tx.execute(select(requests.c.run_id, requests.c.holder).where(*unanswered_one)).one_or_none()
    if row is None:
        return None
    recorded = _answer_columns(tx, row.run_id, request_id, response, now)
    changed = tx.execute(update(requests).where(*unanswered_one).values(**recorded))
    return (row.holder or "") if changed.rowcount == 1 else None


_ANSWER_FOR_ATTEMPT = Prepared(
    text(
        "WITH attempt AS"
        " (SELECT 1 FROM durable_steps WHERE run_id = :run AND op_id = :op AND claim = :claim FOR UPDATE)"
        " UPDATE durable_requests"
        " SET answered_at = :answered_at, answer_head = :answer_head, answer_body = :answer_body"
        " FROM attempt WHERE id = :id AND run_id = :run AND answered_at IS NULL RETURNING holder"
    )
)


def commit_answer(store: Store, held: Claim, request_id: str, response: Response) -> str | None:
    """
    Record the answer that an attempt gives, if this database can do that in one statement.

    Returns:
        The process to notify, "" when none holds the connection.  None when nothing was written: the database cannot,
        the body is a large value, the attempt was given up, the request has an answer, or it belongs to another run.
    """
    if store.dialect != "postgresql" or len(response.body) > LIMIT:
        return None
    parameters = {"run": held.run_id, "op": held.op_id, "claim": held.claim, "id": request_id}
    with store.single_statement() as tx:
        columns = _answer_columns(tx, held.run_id, request_id, response, store.now())
        row = _ANSWER_FOR_ATTEMPT.one(tx, parameters | columns)
    return None if row is None else (row.holder or "")


def unanswered(tx: Connection, run_id: str) -> list[str]:
    """The requests without an answer that the run has: its own, and those it was handed over."""
    return [row.id for row in _UNANSWERED.rows(tx, {"run": run_id})]


_UNANSWERED = Prepared(
    text(
        "SELECT id FROM durable_requests WHERE run_id = :run AND answered_at IS NULL AND handed_to IS NULL"
        " UNION ALL SELECT id FROM durable_requests WHERE handed_to = :run AND answered_at IS NULL"
    )
)


def hand_over(tx: Connection, ids: Collection[str], to_run: str) -> None:
    """Make these requests another run's, which will answer those that have no answer, and keep them as long as it."""
    given = sorted(ids)
    for first in range(0, len(given), 500):
        batch = given[first : first + 500]
        mine = (requests.c.id.in_(batch), requests.c.answered_at.is_(None))
        tx.execute(update(requests).where(*mine).values(handed_to=to_run))
        record_references(tx, to_run, batch)


def answers(tx: Connection, ids: Collection[str]) -> dict[str, Response]:
    """The answers to these requests; those without one are left out."""
    return {
        row.id: Response.from_head(*_whole(tx, row.run_id, _answer_place(row.id), row.answer_head, row.answer_body))
        for row in _rows(tx, _ANSWERED, ids)
    }


def is_for_token(tx: Connection, request_id: str, token_hash: str) -> bool:
    """Whether the request was sent to the webhook with this token."""
    row = tx.execute(
        select(requests.c.id)
        .join(hooks, (hooks.c.run_id == requests.c.run_id) & (hooks.c.op_id == requests.c.op_id))
        .where(requests.c.id == request_id, hooks.c.token_hash == token_hash)
    ).one_or_none()
    return row is not None


def is_for_receiver(tx: Connection, request_id: str, receiver: str) -> bool:
    """Whether the request was sent to the receiver of this name."""
    query = select(received.c.receiver).where(received.c.request_id == request_id)
    return tx.execute(query).scalar_one_or_none() == receiver


_ADD_DUPLICATES = (
    update(requests)
    .where(requests.c.id == bindparam("of_request"))
    .values(duplicates=func.coalesce(requests.c.duplicates, 0) + bindparam("count"))
)


def set_holder(tx: Connection, request_id: str, holder: str) -> str | None:
    """Let another process be notified of the answer, if none is there; return the run, None if there is no request."""
    mine = update(requests).where(requests.c.id == request_id, requests.c.answered_at.is_(None))
    tx.execute(mine.values(holder=holder))
    run_id: str | None = tx.execute(select(requests.c.run_id).where(requests.c.id == request_id)).scalar_one_or_none()
    return run_id


def add_duplicates(tx: Connection, duplicates: Mapping[str, int]) -> None:
    """Add how many copies of requests came, by the request's id.  In the order of the ids, as ``totals.add`` does."""
    rows = [{"of_request": request_id, "count": count} for request_id, count in sorted(duplicates.items())]
    if rows:
        tx.execute(_ADD_DUPLICATES, rows)
