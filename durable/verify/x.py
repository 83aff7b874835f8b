"""
X (Twitter).  https://docs.x.com/x-api/webhooks/introduction

X's challenge asks for the HMAC of a text, with the key that signs deliveries.
Anyone can send a challenge, and could get a forged body signed.  Therefore only
a text that cannot be a JSON object is answered.
"""

from __future__ import annotations

import re

from ..http import Response
from .delivery import Delivery
from .presets import Secrets, Verification, forbidden, preset, references
from .signatures import mac, require_match, to_base64

_TOKEN = re.compile(r"[A-Za-z0-9_+/=.-]{1,256}")


def _check(delivery: Delivery) -> bool:
    delivery.document()
    found = delivery.header("x-twitter-webhooks-signature")
    require_match([found], [_signed(secret, delivery.body) for secret in delivery.secrets])
    return True


def _signed(secret: bytes, text: bytes) -> bytes:
    return b"sha256=" + to_base64(mac(secret, text))


def _greeting(delivery: Delivery) -> Response | None:
    token = delivery.request.args.get("crc_token")
    if delivery.method != "GET" or token is None:
        return None
    if not _TOKEN.fullmatch(token):
        return forbidden()
    return Response.json({"response_token": _signed(delivery.secrets[0], token.encode()).decode()})


@preset("x", _check, greets=("GET",), greeting=_greeting)
def x(secrets: Secrets) -> Verification:
    """
    X: the app's consumer secret.  Challenges (``crc_token``) are answered with the first of several secrets.

    Deliveries have no id: for duplicates, set ``dedupe`` to an id in their body.
    """
    return Verification(by="x", references={"secret": references(secrets)})
