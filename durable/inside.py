"""What a step may ask of the attempt that runs it: to go on for longer, and a session that shares its fate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import current

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
