"""
GitHub.  https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries

No timestamp is signed, and the delivery's id is not signed either: duplicates
are the only guard against a delivery that is played again.
"""

from __future__ import annotations

from .delivery import Delivery
from .keys import header_key
from .presets import Secrets, Verification, preset, references
from .signatures import hexed, mac, require_fit


def check_hub_signature(delivery: Delivery) -> bool:
    """``X-Hub-Signature-256``, as GitHub and Meta have it."""
    found = delivery.header("X-Hub-Signature-256")
    require_fit([found], [b"sha256=" + hexed(mac(secret, delivery.body)) for secret in delivery.secrets])
    return True


@preset("github", check_hub_signature, key=header_key("x-github-delivery"))
def github(secrets: Secrets) -> Verification:
    """GitHub: the webhook's secret."""
    return Verification(by="github", references={"secret": references(secrets)})
