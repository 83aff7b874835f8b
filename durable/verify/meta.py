"""Meta: WhatsApp, Messenger, Instagram.  https://developers.facebook.com/docs/graph-api/webhooks/getting-started"""

from __future__ import annotations

import hmac

from ..http import Response
from .delivery import Delivery
from .github import check_hub_signature
from .presets import Secrets, Verification, echo, forbidden, preset, references


def _greeting(delivery: Delivery) -> Response | None:
    args = delivery.request.args
    if delivery.method != "GET" or args.get("hub.mode") != "subscribe":
        return None
    given = args.get("hub.verify_token", "").encode("utf-8", "surrogatepass")
    matches = [hmac.compare_digest(given, token) for token in delivery.secrets_for("verify_token")]
    return echo(args.get("hub.challenge", "")) if any(matches) else forbidden()


@preset("meta", check_hub_signature, greets=("GET",), greeting=_greeting)
def meta(secrets: Secrets, *, verify_token: Secrets) -> Verification:
    """
    Meta: the app's secret, and the verify token that you chose in the app's settings.

    Requests with ``hub.challenge`` are answered.  Deliveries have no id: for duplicates, set ``dedupe`` to an
    id in their body.
    """
    secret_names = {"secret": references(secrets), "verify_token": references(verify_token, "the verify token")}
    return Verification(by="meta", references=secret_names)
