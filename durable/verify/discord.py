"""
Discord: interactions and webhook events.

https://docs.discord.com/developers/interactions/overview

Discord sends bad signatures on purpose, and removes an endpoint that accepts one.
"""

from __future__ import annotations

from ..errors import ConfigurationError
from ..http import Response
from .delivery import Delivery
from .keys import json_key
from .presets import Secrets, Span, Verification, preset, references, to_micros
from .signatures import ed25519_matches, from_hex, require_recent


def _check(delivery: Delivery) -> bool:
    keys = [_read_key(secret) for secret in delivery.secrets]
    stamp = delivery.header("X-Signature-Timestamp")
    require_recent(delivery, stamp)
    signature = from_hex(delivery.header("X-Signature-Ed25519"))
    return any([ed25519_matches(key, signature, stamp + delivery.body) for key in keys])


def _read_key(secret: bytes) -> bytes:
    try:
        return bytes.fromhex(secret.decode("ascii"))
    except ValueError:
        raise ConfigurationError("The public key of a Discord application must have 64 hexadecimal digits.") from None


def _handshake(delivery: Delivery) -> Response | None:
    """Answer PING: type 1 of an interaction, type 0 of a webhook event (whose type 1 has an event)."""
    body = delivery.request.json(default=None)
    if not isinstance(body, dict):
        return None
    if body.get("type") == 1 and "event" not in body:
        return Response.json({"type": 1})
    if body.get("type") == 0:
        return Response("", 204, [("Content-Type", "application/json")])
    return None


@preset("discord", _check, key=json_key("/id"), handshake=_handshake)
def discord(public_keys: Secrets, *, tolerance: Span = "5m") -> Verification:
    """Discord: the application's public key, in hexadecimal.  PING is answered.  Needs the extra ``verify``."""
    return Verification(
        by="discord", references={"secret": references(public_keys)}, options={"tolerance": to_micros(tolerance)}
    )
