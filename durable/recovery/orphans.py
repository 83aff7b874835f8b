"""
Payloads that no run refers to: found by going through all of them, a batch at a time, and deleted.

A payload becomes one when what was to refer to it was never committed, when a heartbeat is replaced, or when a run is
deleted whose files are elsewhere.  Only old ones are looked at: a young one may be about to be referred to.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ..engine import Engine
from ..store import PayloadStore, SqlPayloads, StoredPayload, payload_references

#: How old a payload is that may be taken for an orphan, and the pause between two rounds, microseconds.
AGE = 24 * 60 * 60 * 1_000_000
PAUSE = 60 * 60 * 1_000_000
#: Payloads that one batch looks at.
BATCH = 200


class Orphans:
    """One process's going through all payloads: a batch at each call, then a pause."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._listing: Iterator[tuple[PayloadStore, StoredPayload]] | None = None
        self._next_at = 0

    def collect(self) -> int:
        """One batch, unless it is too early for the next round; how many were deleted."""
        now = self._engine.now()
        if self._listing is None:
            if now < self._next_at:
                return 0
            self._listing = _listing(self._engine)
        try:
            batch = list(islice(self._listing, BATCH))
            gone = _delete(self._engine, batch, now - AGE)
        except BaseException:
            # A generator that has raised is at its end: the next round begins anew, and not at once.
            self._listing, self._next_at = None, now + PAUSE
            raise
        if len(batch) < BATCH:
            self._listing, self._next_at = None, now + PAUSE
        return gone

    @property
    def is_done(self) -> bool:
        """Whether a round is over."""
        return self._listing is None


def collect_all(engine: Engine) -> int:
    """One whole round; how many were deleted."""
    going = Orphans(engine)
    gone = going.collect()
    while not going.is_done:
        gone += going.collect()
    return gone


def _listing(engine: Engine) -> Iterator[tuple[PayloadStore, StoredPayload]]:
    """All payloads, with where they are: what the setting says, and in any case the database."""
    configured = engine.store.vault.payloads
    for store in {type(each): each for each in (configured, SqlPayloads())}.values():
        for stored in store.list(engine.store.read):
            yield store, stored


def _delete(engine: Engine, batch: list[tuple[PayloadStore, StoredPayload]], before: int) -> int:
    old = [(store, each) for store, each in batch if each.stored_at < before]
    if not old:
        return 0
    with engine.store.read() as tx:
        wanted = payload_references.to_payloads(tx, {each.run_id for _, each in old})
    orphans = [(store, each) for store, each in old if (each.run_id, each.digest) not in wanted]
    gone = 0
    for store, each in orphans:
        with engine.store.begin() as tx:
            gone += store.delete(tx, each, before)
    return gone
