"""What a step may ask of the attempt that runs it: to go on for longer, and a session that shares its fate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .. import current

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def heartbeat(details: object = None) -> None:
    """
    Say in a long step that it still works: its timeout begins anew.

    Each call is one write.  While the database cannot be used it does nothing, and the timeout goes on.

    Args:
        details: How far it is, any value that crosses.  The next attempt finds the last one in
            ``get_step_metadata().heartbeat``.

    Raises:
        AttemptLost: This attempt was given up.  Nothing that it does is recorded; let the step end.
        SerializationError: *details* are nothing that crosses.
        RuntimeError: Outside a step.
    """
    _here("heartbeat").heartbeat(details)


def step_session() -> Session:
    """
    In a step with ``semantics="transactional"``: a SQLAlchemy session on the engine's database.

    What it writes is committed in the transaction that records the step's result, or not at all.  The same session
    each time; it is neither committed nor closed by the step.

    Raises:
        RuntimeError: Outside such a step.
    """
    return _here("step_session").session()


def _here(function: str) -> current.RunningStep:
    step = current.running_step.get()
    if step is None or current.workflow_loop() is not None:
        how = ' decorated with @step(semantics="transactional")' if function == "step_session" else ""
        raise RuntimeError(
            f"{function}() was called outside a step that a worker runs for a workflow.  Call it in the body of a"
            f" function{how} that a workflow awaits, in that function's own thread."
        )
    return step


@dataclass(frozen=True, kw_only=True)
class StepMetadata:
    """
    What ``get_step_metadata`` tells.

    Attributes:
        attempt: 1 for the first.
        started_at: When the first attempt began.
        idempotency_key: The same in every attempt, another in every other call of every run.
        heartbeat: The details that an earlier attempt gave ``heartbeat`` last, None when there are none.
    """

    run_id: str
    step_id: str
    name: str
    attempt: int
    started_at: datetime
    idempotency_key: str
    heartbeat: Any = None
    is_cancelled: InitVar[Callable[[], bool] | None] = None

    def __post_init__(self, is_cancelled: Callable[[], bool] | None) -> None:
        self.__dict__["_is_cancelled"] = is_cancelled

    @cached_property
    def _is_cancelled(self) -> Callable[[], bool] | None:
        """How to ask whether the call was given up.  It stays in this process: a cached property does not cross."""
        return None

    @property
    def cancelled(self) -> bool:
        """
        True once the workflow gave this call up: it lost a race, its task or its run was cancelled.

        Nobody waits for the step's outcome then, and it is not tried again whatever it does.  To be
        asked in the step's own process, in any thread, as often as you like: the database is read at
        most every half second.
        """
        return self._is_cancelled is not None and self._is_cancelled()


def get_step_metadata() -> StepMetadata:
    """Which attempt of which step this is."""
    step = current.running_step.get()
    if step is None or current.workflow_loop() is not None:
        raise RuntimeError("get_step_metadata() was called outside a step that a worker runs for a workflow.")
    metadata: StepMetadata = step.metadata
    return metadata
