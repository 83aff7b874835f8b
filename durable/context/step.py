"""What a step can call while it runs: ``heartbeat``, ``step_session``, ``get_step_metadata``."""

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
    Report that a long step still works, and start its timeout again.

    Each call writes to the database once.  While the database is unreachable, a call does nothing and the
    timeout goes on.

    Args:
        details: The step's progress, any value that can be serialized.  The next attempt finds the last
            one in ``get_step_metadata().heartbeat``.

    Raises:
        AttemptLost: This attempt was given up.  Nothing that it does is recorded, so let the step end.
        SerializationError: *details* cannot be serialized.
        RuntimeError: Called outside a step.
    """
    _running_step("heartbeat").heartbeat(details)


def step_session() -> Session:
    """
    A SQLAlchemy session on the engine's database, in a step with ``semantics="transactional"``.

    What you write with it is committed in the transaction that records the step's result, or not at all.  Each call
    returns the same session.  Do not commit or close it.

    Raises:
        RuntimeError: Called outside such a step.
    """
    return _running_step("step_session").session()


def _running_step(function: str) -> current.RunningStep:
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
    Which attempt of which step runs, as ``get_step_metadata`` returns it.

    Attributes:
        attempt: The number of the attempt; the first is 1.
        started_at: When the first attempt began.
        idempotency_key: Equal in all attempts of this call, and unique among all calls of all runs.
        heartbeat: The last details that an earlier attempt passed to ``heartbeat``, None without any.
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
        """Asks whether the call was given up.  A cached property is no field, so it is not serialized."""
        return None

    @property
    def cancelled(self) -> bool:
        """
        True once the workflow gave this call up: it lost a race, or its task or its run was cancelled.

        The step's outcome is ignored then, and the step is not retried.  You can read this in any thread
        of the step's process, as often as you like: it queries the database at most every half second.
        """
        return self._is_cancelled is not None and self._is_cancelled()


def get_step_metadata() -> StepMetadata:
    """Return which attempt of which step this is."""
    step = current.running_step.get()
    if step is None or current.workflow_loop() is not None:
        raise RuntimeError("get_step_metadata() was called outside a step that a worker runs for a workflow.")
    metadata: StepMetadata = step.metadata
    return metadata
