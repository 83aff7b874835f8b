"""``control=bearer("env:NAME")``: a caller that sends the secret may control runs."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import ClassVar

import flask

from ..verify import presets
from .verification import resolve


class Bearer:
    """Allows a caller that sends ``Authorization: Bearer <secret>`` (RFC 6750 §2.1)."""

    security_scheme: ClassVar = {"type": "http", "scheme": "bearer"}

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def __call__(self, request: flask.Request) -> bool | None:
        """Return True for one of the secrets, None for anything else."""
        # Before anything else, so that a variable that is not set answers 503 to every caller.
        secrets = resolve(self._names)
        given = request.authorization
        if given is None or given.type != "bearer" or not given.token:
            return None
        token = given.token.encode("utf-8", "surrogateescape")
        # Compare all of them, so that the time does not show which one matches.
        matches = [hmac.compare_digest(token, secret) for secret in secrets]
        return True if any(matches) else None


def bearer(secret: str | Sequence[str]) -> Bearer:
    """
    Allow control requests that send ``Authorization: Bearer <secret>``: ``create_blueprint(control=bearer(…))``.

    Args:
        secret: The name of an environment variable of the web process, ``"env:NAME"``; or a list of
            names while you change the secret.  If a variable is not set, every caller gets 503.

    Raises:
        ValueError: The argument is not such a name.  The message does not repeat it, since it may be the secret.
    """
    return Bearer(presets.references(secret))
