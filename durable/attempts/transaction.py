"""
The transaction that a transactional step shares with its outcome.

``step_session()`` begins it on a connection of the engine's.  From then on everything that the attempt writes goes into
it, and at the end the outcome too, under the attempt's claim.  Only durable commits it: a commit by the step's own code
raises RuntimeError, on the session as on the connection.  When the step raises, all of it is rolled back.
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
    "  Return from the step.  To write something that stays when the step fails, use a session of your own."
)


class StepSession(Session):
    """The session of the step's code.  It works in a savepoint, so that its rollback undoes only its own writes."""

    def commit(self) -> NoReturn:
        raise RuntimeError(_REFUSED)

    def close(self) -> None:
        """Do nothing: ``with step_session() as session`` must not end the step's transaction."""


class StepTransaction:
    """One attempt's transaction.  ``begin`` or the first call of ``session`` begins it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tx: Connection | None = None
        self._session: StepSession | None = None
        #: Whether durable itself is committing.
        self._may_commit = False
        #: Whether a commit was refused or failed: the connection can only be closed.
        self._is_broken = False
        self._after_commit: list[Callable[[], object]] = []

    @property
    def tx(self) -> Connection | None:
        """The connection; None while the transaction has not begun."""
        return self._tx

    def begin(self) -> None:
        """Begin the transaction, unless it has begun."""
        self.session()

    def session(self) -> Session:
        """
        Return the session of the step's code, the same each time.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: The transaction could not begin.
        """
        if self._session is None:
            self._engine.store.now()  # reads the database's clock on another connection, if it is due
            tx = self._engine.store.connect()
            try:
                tx.begin()
            except BaseException:
                tx.close()
                raise
            event.listen(tx, "commit", self._guard)
            self._tx, self._session = tx, StepSession(bind=tx, join_transaction_mode="create_savepoint")
        return self._session

    def after_commit(self, act: Callable[[], object]) -> None:
        """Call *act* once the transaction is committed."""
        self._after_commit.append(act)

    def flush(self) -> None:
        """Send all that the step wrote to the database: if the database refuses it, the step fails."""
        if self._is_broken:
            raise RuntimeError(_REFUSED)
        if self._session is not None:
            Session.commit(self._session)  # releases the savepoint

    def commit(self, write: Callable[[Connection], bool]) -> bool:
        """Commit if *write* returns true: it has written the outcome.  Return whether it has."""
        assert self._tx is not None
        if not write(self._tx):
            return False
        # A commit that fails may leave the transaction open, as one that is refused does.
        self._may_commit = self._is_broken = True
        self._tx.commit()
        self._is_broken = False
        for act in self._after_commit:
            act()
        return True

    def close(self) -> None:
        """Roll back what is not committed, and return the connection to the pool."""
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
            # Of the database, or of one of the application's listeners on its session.
            log.info("A step's transaction cannot be rolled back (%s): its connection is closed.", error)
            tx.invalidate()
            tx.close()

    def _guard(self, _tx: Any) -> None:
        if not self._may_commit:
            # SQLAlchemy regards the transaction as ended now, and leaves it open.
            self._is_broken = True
            raise RuntimeError(_REFUSED)
