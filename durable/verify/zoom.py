"""Zoom.  https://developers.zoom.us/docs/api/webhooks/"""

from __future__ import annotations

from ..http import Response
from .delivery import Delivery
from .presets import Secrets, Span, Verification, preset, references, to_micros
from .signatures import mac
from .slack import check_v0


def _check(delivery: Delivery) -> bool:
    return check_v0(delivery, "x-zm-request-timestamp", "x-zm-signature")


def _handshake(delivery: Delivery) -> Response | None:
    match delivery.request.json(default=None):
        case {"event": "endpoint.url_validation", "payload": {"plainToken": str(token)}}:
            sealed = mac(delivery.secrets[0], token.encode("utf-8", "surrogatepass")).hex()
            return Response.json({"plainToken": token, "encryptedToken": sealed})
    return None


@preset("zoom", _check, handshake=_handshake)
def zoom(secrets: Secrets, *, tolerance: Span = "5m") -> Verification:
    """
    Zoom: the app's secret token.  ``endpoint.url_validation`` is answered with the first of several secrets.

    Deliveries have no id: for duplicates, set ``dedupe`` to an id in their body.
    """
    return Verification(
        by="zoom", references={"secret": references(secrets)}, options={"tolerance": to_micros(tolerance)}
    )
