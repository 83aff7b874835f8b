"""
Orphans: stored payloads that no run refers to.  All payloads are checked, a batch at a time, and orphans are deleted.

A payload becomes an orphan when the transaction that would refer to it is never committed, when a heartbeat's details
are replaced, or when a run is deleted whose payloads are outside of the database.  Only payloads older than a day are
checked, since a younger one may be about to be referred to.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ..engine import Engine
from ..store import PayloadStore, SqlPayloads, StoredPayload, payload_references

#: How old a payload must be to count as an orphan, in microseconds.
AGE = 24 * 60 * 60 * 1_000_000
#: The pause between two rounds through all payloads, in microseconds.
PAUSE = 60 * 60 * 1_000_000
#: Payloads that one batch checks.
BATCH = 200


class Orphans:
    """One process's way through all payloads: a batch at each call, and a pause after each round."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._listing: Iterator[tuple[PayloadStore, StoredPayload]] | None = None
        self._next_at = 0

    def collect(self) -> int:
        """Check one batch, unless the next round is not due.  Returns how many payloads were deleted."""
        now = self._engine.now()
        if self._listing is None:
            if now < self._next_at:
                return 0
            self._listing = _listing(self._engine)
        try:
            batch = list(islice(self._listing, BATCH))
            deleted = _delete(self._engine, batch, now - AGE)
        except BaseException:
            # A generator that has raised is at its end, so the next round starts from the beginning, after a pause.
            self._listing, self._next_at = None, now + PAUSE
            raise
        if len(batch) < BATCH:
            self._listing, self._next_at = None, now + PAUSE
        return deleted

    @property
    def is_done(self) -> bool:
        """Whether a round is over."""
        return self._listing is None


def collect_all(engine: Engine) -> int:
    """Make one whole round.  Returns how many payloads were deleted."""
    orphans = Orphans(engine)
    deleted = orphans.collect()
    while not orphans.is_done:
        deleted += orphans.collect()
    return deleted


def _listing(engine: Engine) -> Iterator[tuple[PayloadStore, StoredPayload]]:
    """All payloads with their store: the one that the setting names, and in any case the database."""
    configured = engine.store.vault.payloads
    for store in {type(each): each for each in (configured, SqlPayloads())}.values():
        for stored in store.list(engine.store.read):
            yield store, stored


def _delete(engine: Engine, batch: list[tuple[PayloadStore, StoredPayload]], before: int) -> int:
    """Delete the orphans among those that were stored before then."""
    old = [(store, each) for store, each in batch if each.stored_at < before]
    if not old:
        return 0
    with engine.store.read() as tx:
        referred_to = payload_references.to_payloads(tx, {each.run_id for _, each in old})
    deleted = 0
    for store, each in old:
        if (each.run_id, each.digest) not in referred_to:
            with engine.store.begin() as tx:
                deleted += store.delete(tx, each, before)
    return deleted
