"""
Microsoft Graph.  https://learn.microsoft.com/graph/change-notifications-delivery-webhooks

Graph signs nothing.  Each notification repeats the ``clientState`` of its
subscription, so keep that like a password.
"""

from __future__ import annotations

import hmac
from html import escape

from ..http import Response
from .delivery import Delivery, Rejected
from .presets import Secrets, Verification, echo, preset, references


def _check(delivery: Delivery) -> bool:
    notifications = delivery.document().get("value")
    if not isinstance(notifications, list) or not notifications:
        raise Rejected("the body holds no notifications")
    return all([_is_ours(delivery, each) for each in notifications])


def _is_ours(delivery: Delivery, notification: object) -> bool:
    state = notification.get("clientState") if isinstance(notification, dict) else None
    if not isinstance(state, str):
        raise Rejected("a notification has no clientState")
    given = state.encode("utf-8", "surrogatepass")
    return any([hmac.compare_digest(given, secret) for secret in delivery.secrets])


def _greeting(delivery: Delivery) -> Response | None:
    """Return the token, decoded and HTML-escaped, because anyone can send one."""
    token = delivery.request.args.get("validationToken")
    return None if token is None or delivery.method != "POST" else echo(escape(token, quote=False))


@preset("graph", _check, greeting=_greeting)
def graph(client_state: Secrets) -> Verification:
    """Microsoft Graph: the subscription's ``clientState``.  Requests with ``validationToken`` are answered."""
    return Verification(by="graph", references={"secret": references(client_state, "the clientState")})
