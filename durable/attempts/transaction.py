"""
The transaction that a transactional step shares with its outcome.

``step_session()`` opens it; from then on whatever the attempt writes goes into it, on a connection of the engine's
own, until the outcome is written there too, under the attempt's claim.  Only durable commits it: the author's commit
is refused, however it is spelled.  What ends otherwise than by a result is rolled back as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session

from ..engine import Engine
from ..sandbox import log_records

log = log_records.get("durable.steps")

_REFUSED = (
    "A transactional step does not commit: durable commits what its session wrote together with the step's result."
    "  Return from the step; to write something whatever becomes of it, use a session of your own."
)


class StepSession(Session):
    """The author's session: within a savepoint, so that its rollback undoes what it wrote and nothing else."""

    def commit(self) -> NoReturn:
        raise RuntimeError(_REFUSED)

    def close(self) -> None:
        """Nothing: ``with step_session() as session`` leaves it to the end of the step."""


class StepTransaction:
    """One attempt's transaction, which is begun when it is first asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tx: Connection | None = None
        self._session: StepSession | None = None
        self._is_ours = False
        self._is_broken = False
        self._later: list[Callable[[], object]] = []

    @property
    def tx(self) -> Connection | None:
        """Its connection, None while it has not begun."""
        return self._tx

    def session(self) -> Session:
        """The author's session, the same each time."""
        if self._session is None:
            self._engine.store.now()  # measured on a connection of its own, if need be
            self._tx = self._engine.store.connect()
            self._tx.begin()
            event.listen(self._tx, "commit", self._guard)
            self._session = StepSession(bind=self._tx, join_transaction_mode="create_savepoint")
        return self._session

    def after_commit(self, act: Callable[[], object]) -> None:
        """Call *act* once it is committed."""
        self._later.append(act)

    def flush(self) -> None:
        """Have the database see all that the author wrote: what is wrong with it is an error of the step's."""
        if self._is_broken:
            raise RuntimeError(_REFUSED)
        if self._session is not None:
            Session.commit(self._session)  # of the savepoint

    def commit(self, write: Callable[[Connection], bool]) -> bool:
        """Commit, if *write* has written the outcome; else roll back."""
        assert self._tx is not None
        if not write(self._tx):
            return False
        # A commit that fails may leave it open, as one that is refused does.
        self._is_ours = self._is_broken = True
        self._tx.commit()
        self._is_broken = False
        for act in self._later:
            act()
        return True

    def close(self) -> None:
        """Roll back what is not committed, and give the connection back."""
        session, tx, self._session, self._tx = self._session, self._tx, None, None
        if tx is None or session is None:
            return
        try:
            if self._is_broken:
                tx.invalidate()
            Session.close(session)
            event.remove(tx, "commit", self._guard)
            tx.close()
        except Exception as error:
            # The database's, or that of one of the application's listeners on its session.
            log.info("A step's transaction could not be rolled back (%s): its connection is closed.", error)
            tx.invalidate()
            tx.close()

    def _guard(self, _tx: Any) -> None:
        if not self._is_ours:
            # SQLAlchemy takes the transaction for ended now, and leaves it open.
            self._is_broken = True
            raise RuntimeError(_REFUSED)
