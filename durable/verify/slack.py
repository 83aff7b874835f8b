"""
Slack: events, slash commands, interactions.  https://docs.slack.dev/authentication/verifying-requests-from-slack
"""

from __future__ import annotations

import json
from typing import Any

from ..http import Request, Response
from .delivery import Delivery
from .presets import Secrets, Span, Verification, echo, preset, references, to_micros
from .signatures import mac, require_match, require_recent, to_hex


def check_v0(delivery: Delivery, stamp_header: str, signature_header: str) -> bool:
    """``v0=`` over ``v0:timestamp:body``, as Slack and Zoom sign."""
    stamp = delivery.header(stamp_header)
    require_recent(delivery, stamp)
    message = b"v0:" + stamp + b":" + delivery.body
    found = delivery.header(signature_header)
    require_match([found], [b"v0=" + to_hex(mac(secret, message)) for secret in delivery.secrets])
    return True


def _check(delivery: Delivery) -> bool:
    return check_v0(delivery, "X-Slack-Request-Timestamp", "X-Slack-Signature")


def _event(request: Request) -> dict[str, Any]:
    """The event: a JSON body, the form of a slash command, or the JSON in the form of an interaction."""
    event = request.json(default=None)
    if isinstance(event, dict):
        return event
    if "payload" in request.form:
        event = json.loads(request.form["payload"])
        return event if isinstance(event, dict) else {}
    return dict(request.form)


def _key(request: Request) -> str | None:
    event = _event(request)
    return event.get("event_id") or event.get("trigger_id")


def _greeting(delivery: Delivery) -> Response | None:
    """Answer the check of the TLS certificate that Slack sometimes makes for a slash command, unsigned."""
    fields = delivery.request.args if delivery.method == "GET" else delivery.form
    return Response("", 200) if fields.get("ssl_check") == "1" else None


def _handshake(delivery: Delivery) -> Response | None:
    event = _event(delivery.request)
    challenge = event.get("challenge")
    return echo(challenge) if event.get("type") == "url_verification" and isinstance(challenge, str) else None


@preset("slack", _check, key=_key, greets=("GET",), greeting=_greeting, handshake=_handshake)
def slack(secrets: Secrets, *, tolerance: Span = "5m") -> Verification:
    """Slack: the app's signing secret.  ``url_verification`` and ``ssl_check`` are answered."""
    return Verification(
        by="slack", references={"secret": references(secrets)}, options={"tolerance": to_micros(tolerance)}
    )
