"""CloudEvents over HTTP.  https://github.com/cloudevents/spec/blob/main/cloudevents/http-webhook.md"""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from ..http import Request, Response
from .delivery import Delivery, Rejected
from .presets import Secrets, Verification, forbidden, preset, references


def _check(delivery: Delivery) -> bool:
    scheme, _, given = delivery.headers.get("Authorization", "").encode("latin-1").partition(b" ")
    if scheme.lower() != b"bearer":
        given = delivery.request.args.get("access_token", "").encode("utf-8", "surrogatepass")
    if not given:
        raise Rejected("there is no access token")
    return any([hmac.compare_digest(given.strip(), secret) for secret in delivery.secrets])


def _key(request: Request) -> str | None:
    """Source and id together, from the headers, or from the body if it holds the whole event."""
    source, number = request.headers.get("ce-source"), request.headers.get("ce-id")
    if not (source and number):
        event = request.json(default=None)
        source, number = (event.get("source"), event.get("id")) if isinstance(event, dict) else (None, None)
    return f"{len(source)}:{source}{number}" if isinstance(source, str) and isinstance(number, str) else None


def _greeting(delivery: Delivery) -> Response | None:
    """Answer whether this origin may send.  The request's callback URL is not called, because anyone can set one."""
    if delivery.method != "OPTIONS" or "WebHook-Request-Origin" not in delivery.headers:
        return None
    origins, requested = delivery.options["origins"], delivery.headers["WebHook-Request-Origin"]
    allowed = "*" if "*" in origins else next((o for o in origins if o.lower() == requested.lower()), None)
    if allowed is None:
        return forbidden()
    rate = [("WebHook-Allowed-Rate", "*")] if "WebHook-Request-Rate" in delivery.headers else []
    return Response("", 200, [("Allow", "POST"), ("WebHook-Allowed-Origin", allowed), *rate])


@preset("cloudevents", _check, key=_key, greets=("OPTIONS",), greeting=_greeting)
def cloudevents(secrets: Secrets, *, origins: Iterable[str]) -> Verification:
    """
    CloudEvents: the token that the sender sends, as ``Authorization: Bearer`` or ``?access_token=``.

    Args:
        origins: The origins that may send, as in ``WebHook-Request-Origin``; ``["*"]`` allows all.
    """
    allowed = [origins] if isinstance(origins, str) else list(origins)
    if not allowed or not all(
        isinstance(origin, str) and origin.isascii() and origin.isprintable() for origin in allowed
    ):
        raise ValueError(f'origins is {origins!r}; use e.g. ["eventgrid.azure.net"].')
    return Verification(by="cloudevents", references={"secret": references(secrets)}, options={"origins": allowed})
