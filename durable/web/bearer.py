"""``control=bearer("env:NAME")``: who knows a secret may control runs."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import ClassVar

import flask

from ..verify import presets
from .verification import resolve


class Bearer:
    """Lets in whoever sends ``Authorization: Bearer`` (RFC 6750 §2.1) with one of some secrets."""

    security_scheme: ClassVar = {"type": "http", "scheme": "bearer"}

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def __call__(self, request: flask.Request) -> bool | None:
        """True for a secret that is known, None for anything else."""
        # Looked up first: a variable that is missing is our trouble, whoever asks.
        secrets = resolve(self._names)
        given = request.authorization
        if given is None or given.type != "bearer" or not given.token:
            return None
        token = given.token.encode("utf-8", "surrogateescape")
        # All of them are compared, so that the time says nothing of which.
        matches = [hmac.compare_digest(token, secret) for secret in secrets]
        return True if any(matches) else None


def bearer(secret: str | Sequence[str]) -> Bearer:
    """
    For ``create_blueprint(control=…)``: lets in whoever sends ``Authorization: Bearer <secret>``.

    Args:
        secret: The name of an environment variable of the web process, ``"env:NAME"``; or a list of these,
            while the secret is being changed.  While one is missing, nobody is let in: 503.

    Raises:
        ValueError: Something else, which may be the secret itself and is not repeated.
    """
    return Bearer(presets.references(secret))
