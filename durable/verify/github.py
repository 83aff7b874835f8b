"""
GitHub.  https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries

GitHub signs neither a timestamp nor the delivery's id, so only the dedupe key
protects against a replay, and only while the id is kept.
"""

from __future__ import annotations

from .delivery import Delivery
from .keys import header_key
from .presets import Secrets, Verification, preset, references
from .signatures import mac, require_match, to_hex


def check_hub_signature(delivery: Delivery) -> bool:
    """``X-Hub-Signature-256``, of GitHub and Meta."""
    found = delivery.header("X-Hub-Signature-256")
    require_match([found], [b"sha256=" + to_hex(mac(secret, delivery.body)) for secret in delivery.secrets])
    return True


@preset("github", check_hub_signature, key=header_key("x-github-delivery"))
def github(secrets: Secrets) -> Verification:
    """GitHub: the webhook's secret."""
    return Verification(by="github", references={"secret": references(secrets)})
