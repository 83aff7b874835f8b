"""Shopify.  https://shopify.dev/docs/apps/build/webhooks/subscribe/https"""

from __future__ import annotations

from .delivery import Delivery
from .keys import header_key
from .presets import Secrets, Verification, preset, references
from .signatures import mac, require_match, to_base64


def _check(delivery: Delivery) -> bool:
    found = delivery.header("X-Shopify-Hmac-SHA256")
    require_match([found], [to_base64(mac(secret, delivery.body)) for secret in delivery.secrets])
    return True


@preset("shopify", _check, key=header_key("x-shopify-webhook-id"))
def shopify(secrets: Secrets) -> Verification:
    """Shopify: the app's client secret."""
    return Verification(by="shopify", references={"secret": references(secrets)})
