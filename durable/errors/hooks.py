"""Errors of hooks, for the workflow that awaits one and for a caller that resumes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .base import DurableError


class HookNotFound(DurableError):
    """Raised when no hook with this token is open."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token

    def __str__(self) -> str:
        return (
            f"No open hook has the token {self.token!r}.  Its run may have ended, or the hook may be closed or not"
            ' created yet: resume_hook(token, payload, wait="5s") waits until it is created.'
        )


class HookClosed(DurableError):
    """Raised when you await a closed hook that has no queued payload."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token

    def __str__(self) -> str:
        return (
            "This hook is closed (its `async for` or `with` was left, or close() was called) and has nothing"
            " queued.  Await it before it is closed, or create a new hook."
        )


class HookConflict(DurableError):
    """Raised when you await a hook whose token another run holds.  Attributes: ``token``, ``run_id``."""

    def __init__(self, token: str, run_id: str) -> None:
        super().__init__(token, run_id)
        self.token = token
        self.run_id = run_id

    def __str__(self) -> str:
        return (
            f"The token {self.token!r} is held by run {self.run_id!r}.  Wait until that run ends or closes its"
            " hook, resume that hook instead, or use another token."
        )


class HookPayloadError(DurableError):
    """
    Raised when a payload does not fit the type of its hook, or a validator refuses it.  Nothing is recorded.

    ``errors`` are pydantic's; for a validator one of the type ``"refused"``.
    """

    def __init__(self, token: str, errors: Sequence[Any]) -> None:
        super().__init__(token, errors)
        self.token = token
        self.errors = errors

    def __str__(self) -> str:
        lines = "; ".join(
            f"{'.'.join(map(str, error.get('loc', ()))) or 'payload'}: {error.get('msg')}" for error in self.errors
        )
        if all(error.get("type") == "refused" for error in self.errors):
            return f"The payload for hook {self.token!r} was refused, and was not recorded: {lines}"
        return f"The payload for hook {self.token!r} does not fit its type, and was not recorded: {lines}"


class QuestionNotFound(DurableError):
    """Raised when no payload whose sender waits for a reply has this id."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.request_id = request_id

    def __str__(self) -> str:
        return (
            f"No question has the id {self.request_id!r}.  Its run may be pruned.  The id is the `request_id` of the"
            " ReplyPending that `ask` has raised."
        )


class ReplyPending(DurableError, TimeoutError):
    """
    Raised when the time is over, and there is no reply yet to the payload that you have sent.

    The payload is recorded: do not send it again.  ``get_reply(error.request_id)`` waits for the reply.

    Attributes: ``run_id``; ``request_id``, the id of the question; ``reason``, why there is no reply yet.
    """

    def __init__(self, run_id: str, request_id: str, reason: str) -> None:
        # An OSError, which TimeoutError is, would take three arguments for its own.
        super().__init__(reason)
        self.run_id = run_id
        self.request_id = request_id
        self.reason = reason

    def __reduce__(self) -> tuple[type[ReplyPending], tuple[str, str, str]]:
        return ReplyPending, (self.run_id, self.request_id, self.reason)

    def __str__(self) -> str:
        return (
            f"{self.reason}  The payload is recorded: do not send it again.  get_reply({self.request_id!r}), or"
            f" `durable hooks reply {self.request_id}`, waits for the reply."
        )


class ReplyNotSent(DurableError):
    """
    Raised when a run has ended, or has closed the hook, without replying to the payload that you have sent.

    Attributes: ``run_id``; ``request_id``, the id of the question; ``reason``, what the run has done instead.
    """

    def __init__(self, run_id: str, request_id: str, reason: str) -> None:
        super().__init__(run_id, request_id, reason)
        self.run_id = run_id
        self.request_id = request_id
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"Run {self.run_id!r} will not reply to the question {self.request_id!r}: {self.reason}."
            "  Run.result() tells how a run has ended."
        )
