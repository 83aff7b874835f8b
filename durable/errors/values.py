"""Errors of values: what cannot be written to the log, read from it, decrypted, fetched or parsed."""

from __future__ import annotations

from collections.abc import Sequence

from .base import DurableError


class SerializationError(DurableError):
    """
    Raised when a value cannot be written to, or read from, the log.

    Attributes:
        path: The part of the value, e.g. ``args.order.items[3].price``.
        reason: What is wrong with that part, and what to do.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class DecryptionError(DurableError):
    """
    Raised when this process's keys (the setting ``cipher``) cannot read a stored value.

    It does not fail the run: a worker without the key leaves the run to a worker that has it.

    Attributes:
        key_id: The id of the key that the value was written with.
        known: The ids of the keys that this process has; empty without a cipher.
        run_id: The run that the value belongs to.
    """

    def __init__(self, key_id: str, known: Sequence[str], run_id: str) -> None:
        super().__init__(key_id, known, run_id)
        self.key_id = key_id
        self.known = tuple(known)
        self.run_id = run_id

    def __str__(self) -> str:
        if self.key_id in self.known:
            why = (
                "which does not open it here: the setting cipher (DURABLE_CIPHER) has another key under that id than"
                " the process that wrote it, or the value was changed or moved in the database"
            )
        else:
            has = f"has {', '.join(map(repr, self.known))}" if self.known else "has no cipher"
            why = f"and this process {has}: add that key to the setting cipher (DURABLE_CIPHER), after the first one"
        return f"A value of run {self.run_id!r} is encrypted with the key {self.key_id!r}, {why}."


class PayloadMissing(DurableError):
    """
    Raised when a large value is missing from the payload store, or is not the value that was stored.

    If a step's arguments need it, the step fails without retries.  If a workflow needs it, the run is blocked.

    Attributes: ``run_id``; ``digest``, its address in the store; ``reason``, what the store has there.
    """

    def __init__(self, run_id: str, digest: str, reason: str) -> None:
        super().__init__(run_id, digest, reason)
        self.run_id = run_id
        self.digest = digest
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"A large value of run {self.run_id!r} cannot be read from the payload store: {self.digest} {self.reason}."
            "  Compare DURABLE_PAYLOAD_URL with that of the process that wrote it, or restore the payload from a"
            " backup; then `durable runs retry` the run if it is blocked."
        )


class BodyNotLoaded(DurableError):
    """
    Raised when a workflow body reads a request's body that is larger than a turn loads.

    Attributes: ``request_id``; ``size``, the bytes of the body; ``limit``, the most that a turn loads.
    """

    def __init__(self, request_id: str | None, size: int, limit: int) -> None:
        super().__init__(request_id, size, limit)
        self.request_id = request_id
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"The body of request {self.request_id!r} has {self.size} bytes.  A workflow's body runs again at each"
            f" turn, which loads bodies of up to {self.limit} bytes: pass the request to a step, and read it there."
        )


class BadRequestBody(DurableError, ValueError):
    """Raised by ``Request.json()`` and similar methods when the body does not have that format."""
