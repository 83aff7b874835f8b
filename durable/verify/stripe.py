"""Stripe.  https://docs.stripe.com/webhooks/signature"""

from __future__ import annotations

import json

from .delivery import Delivery, Rejected
from .keys import json_key
from .presets import Secrets, Span, Verification, preset, references, to_micros
from .signatures import mac, require_match, require_recent, to_hex


def _check(delivery: Delivery) -> bool:
    pairs = [pair.partition(b"=") for pair in delivery.header("Stripe-Signature").split(b",")]
    stamps = [value for name, _, value in pairs if name == b"t"]
    if len(stamps) != 1:
        raise Rejected("the signature does not have one timestamp")
    require_recent(delivery, stamps[0])
    message = stamps[0] + b"." + delivery.body
    found = [value for name, _, value in pairs if name == b"v1"]
    require_match(found, [to_hex(mac(secret, message)) for secret in delivery.secrets])
    return True


def _same(body: bytes) -> object:
    """The event without ``pending_webhooks``, which may differ when Stripe sends it again."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return body
    return {**event, "pending_webhooks": None} if isinstance(event, dict) else body


@preset("stripe", _check, key=json_key("/id"), same=_same)
def stripe(secrets: Secrets, *, tolerance: Span = "5m") -> Verification:
    """Stripe: the endpoint's signing secret, ``whsec_…``, as Stripe shows it."""
    return Verification(
        by="stripe", references={"secret": references(secrets)}, options={"tolerance": to_micros(tolerance)}
    )
