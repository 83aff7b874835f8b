"""
Twilio.  https://www.twilio.com/docs/usage/webhooks/webhooks-security

Twilio signs the URL that you gave it.  So the webhook's own URL is checked,
with the query as it was sent, even if a proxy changed the request's URL.
Of the body, Twilio signs the fields of a form, or all bytes by a
``bodySHA256`` in the URL.  Any other body is refused.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qsl, urlsplit

from werkzeug.datastructures import MultiDict
from werkzeug.http import parse_options_header

from .delivery import Delivery, Rejected
from .keys import header_key
from .presets import Secrets, Verification, preset, references
from .signatures import mac, require_match, to_base64

_PORTS = {"https": 443, "http": 80}


def _check(delivery: Delivery) -> bool:
    found = delivery.header("X-Twilio-Signature")
    body_hash = delivery.request.args.get("bodySHA256")
    if body_hash is not None:
        digest = hashlib.sha256(delivery.body).hexdigest()
        if not hmac.compare_digest(body_hash.lower().encode(), digest.encode()):
            raise Rejected("the body does not have the hash in the URL")
    fields = MultiDict([] if body_hash is not None else _signed_fields(delivery))
    # Twilio sorts the fields by name and value, and joins them without separators.
    text = "".join(name + value for name in sorted(fields) for value in sorted(set(fields.getlist(name))))
    messages = [(url + text).encode() for url in _spellings(delivery.url)]
    require_match([found], [to_base64(mac(s, message, "sha1")) for s in delivery.secrets for message in messages])
    return True


def _signed_fields(delivery: Delivery) -> list[tuple[str, str]]:
    """
    The fields of the form.

    Twilio signs fields, not bytes.  So the body must contain nothing but fields, and they must be the
    same that a step reads from ``request.form``.

    Raises:
        Rejected: The body contains something else, or can be read in two ways.
    """
    if not delivery.body:
        return []
    content_type = parse_options_header(delivery.request.content_type)[0]
    if content_type.lower() != "application/x-www-form-urlencoded":
        raise Rejected("the signature covers the URL and a form, but the body is not declared as a form")
    try:
        text = delivery.body.decode("utf-8")
        fields = parse_qsl(text, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise Rejected("the form is not UTF-8") from None
    if len(fields) != text.count("&") + 1 or fields != list(delivery.form.items(multi=True)):
        raise Rejected("the form holds bytes that are not part of a field")
    return fields


def _spellings(url: str) -> tuple[str, ...]:
    """The URL with the scheme's default port and without it: Twilio signs one or the other."""
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
