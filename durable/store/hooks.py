"""Rows of hooks and webhooks, and the tokens that find them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, text, update

from ..replay import CreateHook
from . import vault
from .schema import hooks
from .statements import Prepared


@dataclass(frozen=True, kw_only=True, slots=True)
class Hook:
    """A hook's row.  ``metadata`` is as it is stored; ``metadata_of`` decrypts it."""

    run_id: str
    op_id: str
    name: str
    token: str
    config: str | None
    metadata: str | None
    created_at: int
    closed_at: int | None

    @property
    def open(self) -> bool:
        return self.closed_at is None


@dataclass(frozen=True, slots=True)
class Refusals:
    """How many requests a webhook has refused because their sender was not verified; when and why the last one was."""

    count: int
    at: int
    reason: str


@dataclass(frozen=True, slots=True)
class RefusingWebhook:
    """A webhook that has refused requests."""

    run_id: str
    op_id: str
    is_open: bool
    refused: Refusals


_ROW = select(
    hooks.c.run_id,
    hooks.c.op_id,
    hooks.c.name,
    hooks.c.token,
    hooks.c.config,
    hooks.c.metadata,
    hooks.c.created_at,
    hooks.c.closed_at,
)


def token_hash(token: str) -> str:
    """The hash that finds a token.  Comparing hashes gives an attacker no timing to learn from."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def create(tx: Connection, run_id: str, command: CreateHook, now: int, *, closed: bool) -> None:
    """Insert the row; raises IntegrityError when another hook has taken the token meanwhile."""
    hashed, own_vault = token_hash(command.token), vault.of(tx)
    _CREATE.changed(
        tx,
        {
            "run_id": run_id,
            "op_id": command.op_id,
            "name": command.name,
            "token": command.token,
            "token_hash": hashed,
            "active_token_hash": None if closed else hashed,
            "config": own_vault.seal(tx, run_id, f"{command.op_id} config", command.config),
            "metadata": own_vault.seal(tx, run_id, f"{command.op_id} metadata", command.metadata),
            "created_at": now,
            "closed_at": now if closed else None,
        },
    )


_COLUMNS = (
    "run_id",
    "op_id",
    "name",
    "token",
    "token_hash",
    "active_token_hash",
    "config",
    "metadata",
    "created_at",
    "closed_at",
)
_CREATE = Prepared(
    text(f"INSERT INTO durable_hooks ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{name}' for name in _COLUMNS)})")
)


def open_again(tx: Connection, run_id: str, command: CreateHook) -> None:
    """Give a hook that was handed over, and is open, what the workflow opens it with now."""
    own_vault, op_id = vault.of(tx), command.op_id
    tx.execute(
        update(hooks)
        .where(hooks.c.run_id == run_id, hooks.c.op_id == op_id)
        .values(
            name=command.name,
            config=own_vault.seal(tx, run_id, f"{op_id} config", command.config),
            metadata=own_vault.seal(tx, run_id, f"{op_id} metadata", command.metadata),
        )
    )


def owner(tx: Connection, token: str) -> tuple[str, str] | None:
    """The run and the operation of the open hook with this token."""
    row = _OWNER.one(tx, {"hashed": token_hash(token)})
    return None if row is None else (row.run_id, row.op_id)


_OWNER = Prepared(select(hooks.c.run_id, hooks.c.op_id).where(hooks.c.active_token_hash == bindparam("hashed")))
_FIND = Prepared(
    _ROW.where(hooks.c.token_hash == bindparam("hashed"))
    .order_by(hooks.c.active_token_hash.is_(None), hooks.c.created_at.desc())
    .limit(1)
)


def find(tx: Connection, token: str) -> Hook | None:
    """The open hook with this token, else the one that had it last."""
    row = _FIND.one(tx, {"hashed": token_hash(token)})
    return None if row is None else _hook(tx, row._asdict())


def _hook(tx: Connection, row: Any) -> Hook:
    """The hook of a row, its config decrypted."""
    hook = Hook(**row)
    return replace(hook, config=_decrypted(tx, hook, "config", hook.config))


def metadata_of(tx: Connection, hook: Hook) -> str | None:
    """The hook's metadata, decrypted; PayloadMissing when it is a large value that is gone."""
    return _decrypted(tx, hook, "metadata", hook.metadata)


def _decrypted(tx: Connection, hook: Hook, name: str, text: str | None) -> str | None:
    own_vault = vault.of(tx)
    return own_vault.fetch(tx, hook.run_id, own_vault.unseal(hook.run_id, f"{hook.op_id} {name}", text))


# By the primary key, as ``close`` does: by the token, MySQL would lock the index first, and deadlock with it.
_LOCK = Prepared(
    _ROW.where(
        hooks.c.run_id == bindparam("run"), hooks.c.op_id == bindparam("op"), hooks.c.closed_at.is_(None)
    ).with_for_update(read=True)
)


def lock(tx: Connection, run_id: str, op_id: str) -> Hook | None:
    """The open hook, its config as it is stored, locked against closing until this transaction ends; None if closed."""
    row = _LOCK.one(tx, {"run": run_id, "op": op_id})
    return None if row is None else Hook(**row._asdict())


def lock_open(tx: Connection, token: str) -> Hook | None:
    """The open hook with this token, locked against closing until this transaction ends."""
    while (found := owner(tx, token)) is not None:
        hook = lock(tx, *found)
        if hook is not None:
            return hook
        # It was closed while we waited for the lock; that turn may have given the token to another hook.
    return None


def close(tx: Connection, run_id: str, now: int, op_ids: Collection[str] | None = None) -> None:
    """Close these hooks, or all of the run's; waits for transactions that are adding a payload."""
    if op_ids is None:
        _CLOSE_ALL.changed(tx, {"run": run_id, "now": now})
    elif op_ids:
        mine = (hooks.c.run_id == run_id, hooks.c.closed_at.is_(None), hooks.c.op_id.in_(op_ids))
        tx.execute(update(hooks).where(*mine).values(active_token_hash=None, closed_at=now))


_CLOSE_ALL = Prepared(
    text(
        "UPDATE durable_hooks SET active_token_hash = NULL, closed_at = :now WHERE run_id = :run AND closed_at IS NULL"
    )
)


def open_hooks(tx: Connection, *, run_id: str | None, limit: int) -> list[Hook]:
    """Open hooks: those of a run in the order of their creation, or the newest of all runs."""
    query = _ROW.where(hooks.c.closed_at.is_(None)).limit(limit)
    if run_id is None:
        query = query.order_by(hooks.c.created_at.desc())
    else:
        query = query.where(hooks.c.run_id == run_id).order_by(hooks.c.created_at, hooks.c.op_id)
    return [_hook(tx, row) for row in tx.execute(query).mappings().all()]


def all_of_run(tx: Connection, run_id: str, limit: int) -> list[Hook]:
    """The newest hooks of a run, open ones first."""
    query = _ROW.where(hooks.c.run_id == run_id).limit(limit)
    query = query.order_by(hooks.c.closed_at.is_not(None), hooks.c.created_at.desc(), hooks.c.op_id)
    return [_hook(tx, row) for row in tx.execute(query).mappings().all()]


def find_of_run(tx: Connection, run_id: str, op_id: str) -> Hook | None:
    """The hook that an operation of the run has made."""
    row = tx.execute(_ROW.where(hooks.c.run_id == run_id, hooks.c.op_id == op_id)).mappings().one_or_none()
    return None if row is None else _hook(tx, row)


_ADD_REFUSED = (
    update(hooks)
    .where(hooks.c.run_id == bindparam("of_run"), hooks.c.op_id == bindparam("of_op"))
    .values(
        refused=func.coalesce(hooks.c.refused, 0) + bindparam("count"),
        refused_at=bindparam("at"),
        refusal=bindparam("reason"),
    )
)


def add_refused(tx: Connection, refused: Mapping[tuple[str, str], Refusals]) -> None:
    """Add what webhooks have refused, by run and operation.  In the order of the keys, as ``totals.add`` does."""
    rows = [
        {"of_run": run_id, "of_op": op_id, "count": each.count, "at": each.at, "reason": each.reason[:255]}
        for (run_id, op_id), each in sorted(refused.items())
    ]
    if rows:
        tx.execute(_ADD_REFUSED, rows)


def refusing(tx: Connection, since: int, limit: int, run_id: str | None = None) -> list[RefusingWebhook]:
    """The webhooks, of one run or of all, that have refused a request since then; the latest refusal first."""
    query = select(
        hooks.c.run_id, hooks.c.op_id, hooks.c.closed_at.is_(None), hooks.c.refused, hooks.c.refused_at, hooks.c.refusal
    ).where(hooks.c.refused_at >= since)
    if run_id is not None:
        query = query.where(hooks.c.run_id == run_id)
    rows = tx.execute(query.order_by(hooks.c.refused_at.desc()).limit(limit))
    return [
        RefusingWebhook(run_id, op_id, bool(is_open), Refusals(int(count), int(at), text))
        for run_id, op_id, is_open, count, at, text in rows
    ]
