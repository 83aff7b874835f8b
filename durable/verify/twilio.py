"""
Twilio.  https://www.twilio.com/docs/usage/webhooks/webhooks-security

The URL is signed, so it has to be the one that Twilio was given: the
webhook's own, whatever a proxy made of it, and the query as it was sent.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlsplit

from .delivery import Delivery, Rejected
from .keys import header_key
from .presets import Secrets, Verification, preset, references
from .signatures import b64, mac, require_fit

_PORTS = {"https": 443, "http": 80}


def _check(delivery: Delivery) -> bool:
    found = delivery.header("X-Twilio-Signature")
    sent = delivery.request.args.get("bodySHA256")
    if sent is not None:
        digest = hashlib.sha256(delivery.body).hexdigest()
        if not hmac.compare_digest(sent.lower().encode(), digest.encode()):
            raise Rejected("the body is not the one that the URL names")
    params = "" if sent is not None else _params(delivery)
    messages = [(url + params).encode() for url in _spellings(delivery.url)]
    require_fit([found], [b64(mac(s, message, "sha1")) for s in delivery.secrets for message in messages])
    return True


def _params(delivery: Delivery) -> str:
    form = delivery.form
    return "".join(name + value for name in sorted(form) for value in sorted(set(form.getlist(name))))


def _spellings(url: str) -> tuple[str, ...]:
    """With the scheme's own port and without: Twilio does the one or the other."""
    parts = urlsplit(url)
    port = _PORTS.get(parts.scheme)
    if parts.port not in (None, port):
        return (url,)
    host = parts.netloc.removesuffix(f":{port}")
    rest = url.partition("://")[2][len(parts.netloc) :]
    return tuple(f"{parts.scheme}://{netloc}{rest}" for netloc in (host, f"{host}:{port}"))


@preset("twilio", _check, key=header_key("i-twilio-idempotency-token"))
def twilio(secrets: Secrets) -> Verification:
    """Twilio: the account's auth token."""
    return Verification(by="twilio", references={"secret": references(secrets)})
