"""Hooks and webhooks: tokens, and who holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from ..replay import CreateHook
from . import vault
from .schema import hooks
from .statements import Prepared


@dataclass(frozen=True, kw_only=True, slots=True)
class Hook:
    """A hook's row; its metadata as they are stored, for ``metadata_of``."""

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
    """What a token is looked up by: comparing hashes tells an attacker nothing by its timing."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def create(tx: Connection, run_id: str, command: CreateHook, now: int, *, closed: bool) -> None:
    """Insert the row.  IntegrityError: somebody took the token since it was looked at."""
    hashed, kept = token_hash(command.token), vault.of(tx)
    tx.execute(
        insert(hooks),
        {
            "run_id": run_id,
            "op_id": command.op_id,
            "name": command.name,
            "token": command.token,
            "token_hash": hashed,
            "active_token_hash": None if closed else hashed,
            "config": kept.seal(tx, run_id, f"{command.op_id} config", command.config),
            "metadata": kept.seal(tx, run_id, f"{command.op_id} metadata", command.metadata),
            "created_at": now,
            "closed_at": now if closed else None,
        },
    )


def owner(tx: Connection, token: str) -> tuple[str, str] | None:
    """The run and operation that hold a token open."""
    row = tx.execute(
        select(hooks.c.run_id, hooks.c.op_id).where(hooks.c.active_token_hash == token_hash(token))
    ).one_or_none()
    return None if row is None else (row.run_id, row.op_id)


_FIND = Prepared(
    _ROW.where(hooks.c.token_hash == bindparam("hashed"))
    .order_by(hooks.c.active_token_hash.is_(None), hooks.c.created_at.desc())
    .limit(1)
)


def find(tx: Connection, token: str) -> Hook | None:
    """The hook that holds this token, else the one that held it last."""
    row = _FIND.one(tx, {"hashed": token_hash(token)})
    return None if row is None else _hook(tx, row._asdict())


def _hook(tx: Connection, row: Any) -> Hook:
    """The hook of a row, with its config, which may hold responses, as it was given."""
    hook = Hook(**row)
    return replace(hook, config=_opened(tx, hook, "config", hook.config))


def metadata_of(tx: Connection, hook: Hook) -> str | None:
    """The hook's metadata; PayloadMissing where it is large, and is not there."""
    return _opened(tx, hook, "metadata", hook.metadata)


def _opened(tx: Connection, hook: Hook, name: str, text: str | None) -> str | None:
    kept = vault.of(tx)
    return kept.fetch(tx, hook.run_id, kept.unseal(hook.run_id, f"{hook.op_id} {name}", text))


def lock(tx: Connection, run_id: str, op_id: str) -> Hook | None:
    """The hook, its config as it is stored, kept from closing until this transaction ends; None when it is closed."""
    # By its primary key, as whoever closes it does: by its token MySQL would lock the index first, and deadlock.
    query = _ROW.where(hooks.c.run_id == run_id, hooks.c.op_id == op_id, hooks.c.closed_at.is_(None))
    row = tx.execute(query.with_for_update(read=True)).mappings().one_or_none()
    return None if row is None else Hook(**row)


def lock_open(tx: Connection, token: str) -> Hook | None:
    """The open hook of this token, kept from closing until this transaction ends."""
    while (found := owner(tx, token)) is not None:
        hook = lock(tx, *found)
        if hook is not None:
            return hook
        # It closed while we waited for it; the turn that did that may have given the token to another hook.
    return None


def close(tx: Connection, run_id: str, now: int, op_ids: Collection[str] | None = None) -> None:
    """Close these hooks, or all of the run's; waits for whoever is putting a payload in."""
    if op_ids is not None and not op_ids:
        return
    mine = [hooks.c.run_id == run_id, hooks.c.closed_at.is_(None)]
    if op_ids is not None:
        mine.append(hooks.c.op_id.in_(op_ids))
    tx.execute(update(hooks).where(*mine).values(active_token_hash=None, closed_at=now))


def open_hooks(tx: Connection, *, run_id: str | None, limit: int) -> list[Hook]:
    """Open hooks: a run's in the order of their creation, or the newest of all."""
    query = _ROW.where(hooks.c.closed_at.is_(None)).limit(limit)
    if run_id is None:
        query = query.order_by(hooks.c.created_at.desc())
    else:
        query = query.where(hooks.c.run_id == run_id).order_by(hooks.c.created_at, hooks.c.op_id)
    return [_hook(tx, row) for row in tx.execute(query).mappings().all()]
