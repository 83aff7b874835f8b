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
    known = [hmac.compare_digest(given, token) for token in delivery.secrets_for("verify_token")]
    return echo(args.get("hub.challenge", "")) if any(known) else forbidden()


@preset("meta", check_hub_signature, greets=("GET",), greeting=_greeting)
def meta(secrets: Secrets, *, verify_token: Secrets) -> Verification:
    """
    Meta: the app's secret, and the token of your own choice that its set-up asks for.

    ``hub.challenge`` is answered.  Deliveries have no id: duplicates are told by what is in them, with ``dedupe``.
    """
    known = {"secret": references(secrets), "verify_token": references(verify_token, "the verify token")}
    return Verification(by="meta", references=known)
