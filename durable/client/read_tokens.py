"""
Read tokens: signed texts that permit a browser to read some streams and published values of one run, for some time.

A token is ``<payload>.<signature>``, both in base64url without padding.  The payload is JSON: ``r`` the run, ``s`` the
streams, ``v`` the values, ``e`` the second at which it expires.  The signature is HMAC-SHA256 under the setting
``signing_key``.  The payload is not secret; the token is.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigurationError

#: What is signed begins with this, so that no other signature under the same key is a read token.
_PURPOSE = b"durable read token 1\0"

#: The longest token that is looked at.
MOST_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token permits; ``expires_at`` is in microseconds since 1970 UTC."""

    run_id: str
    streams: frozenset[str]
    values: frozenset[str]
    expires_at: int

    def permits(self, run_id: str, kind: str, name: str) -> bool:
        """Whether it permits to read this: *kind* is ``"stream"`` or ``"value"``."""
        return run_id == self.run_id and name in (self.streams if kind == "stream" else self.values)


def sign(keys: Sequence[str] | None, grant: Grant) -> str:
    """
    Return the token.

    Raises:
        ConfigurationError: The setting ``signing_key`` is missing.
        ValueError: The token would have more than ``MOST_CHARACTERS``, which ``verify`` refuses.
    """
    if not keys:
        raise ConfigurationError(
            "Run.read_token needs the setting signing_key: a secret text of at least 16 characters, the same for all"
            " web processes.  Set DURABLE_SIGNING_KEY, or Durable(signing_key=…)."
        )
    content = {"r": grant.run_id, "s": sorted(grant.streams), "v": sorted(grant.values)}
    document = content | {"e": grant.expires_at // 1_000_000}
    payload = _encoded(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())
    token = f"{payload}.{_encoded(_signature(keys[0], payload))}"
    if len(token) > MOST_CHARACTERS:
        raise ValueError(
            f"A read token for {len(grant.streams)} streams and {len(grant.values)} values has {len(token)} characters,"
            f" and {MOST_CHARACTERS} are allowed.  Name fewer of them in each token."
        )
    return token


def verify(keys: Sequence[str] | None, token: str, now: int) -> Grant | None:
    """Return what a token permits; None if we have not signed it, or it has expired."""
    payload, _, signature = token.partition(".")
    if not keys or len(token) > MOST_CHARACTERS or not token.isascii():
        return None
    # All keys are compared, so that the time does not show which one matches.
    matches = [hmac.compare_digest(_encoded(_signature(key, payload)), signature) for key in keys]
    if not any(matches):
        return None
    document = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    grant = Grant(document["r"], frozenset(document["s"]), frozenset(document["v"]), document["e"] * 1_000_000)
    return grant if now < grant.expires_at else None


def _signature(key: str, payload: str) -> bytes:
    return hmac.digest(key.encode(), _PURPOSE + payload.encode(), "sha256")


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
