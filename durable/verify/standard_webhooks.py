"""
Standard Webhooks and Svix, which sign in the same way.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hmac

from ..errors import ConfigurationError
from ..http import Request
from .delivery import Delivery, Rejected
from .presets import Secrets, Span, Verification, preset, references, to_micros
from .signatures import ed25519_matches, from_base64, mac, require_recent, to_base64

#: Further signatures are ignored: each costs a comparison, which is expensive with a key pair.
_MOST_SIGNATURES = 16


def _key(request: Request) -> str | None:
    return request.headers.get("webhook-id") or request.headers.get("svix-id")


def _check(delivery: Delivery) -> bool:
    keys = [_read_key(secret) for secret in delivery.secrets]
    names = "webhook" if "webhook-id" in delivery.headers else "svix"
    stamp = delivery.header(f"{names}-timestamp")
    require_recent(delivery, stamp)
    number = delivery.header(f"{names}-id")
    # Dots separate the signed parts.  With a dot in the id, text could be moved between the id and the body.
    if b"." in number:
        raise Rejected("the id has a dot")
    message = b".".join([number, stamp, delivery.body])
    found = delivery.header(f"{names}-signature").split(b" ")[:_MOST_SIGNATURES]
    return any([_matches(key, is_public, signature, message) for key, is_public in keys for signature in found])


def _read_key(secret: bytes) -> tuple[bytes, bool]:
    """The key, and whether it is a public key."""
    is_public = secret.startswith(b"whpk_")
    try:
        key = base64.b64decode(secret.removeprefix(b"whsec_").removeprefix(b"whpk_"), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise ConfigurationError("The secret of a Standard Webhooks sender must be base64, after whsec_ or whpk_.")
    return key, is_public


def _matches(key: bytes, is_public: bool, signature: bytes, message: bytes) -> bool:
    version, _, value = signature.partition(b",")
    if is_public and version == b"v1a":
        try:
            return ed25519_matches(key, from_base64(value), message)
        except Rejected:
            return False
    return version == b"v1" and not is_public and hmac.compare_digest(value, to_base64(mac(key, message)))


def _verification(by: str, secrets: Secrets, tolerance: Span) -> Verification:
    return Verification(by=by, references={"secret": references(secrets)}, options={"tolerance": to_micros(tolerance)})


@preset("standard_webhooks", _check, key=_key)
def standard_webhooks(secrets: Secrets, *, tolerance: Span = "5m") -> Verification:
    """Standard Webhooks: a secret that begins with ``whsec_``, or a public key (Ed25519) with ``whpk_``."""
    return _verification("standard_webhooks", secrets, tolerance)


@preset("svix", _check, key=_key)
def svix(secrets: Secrets, *, tolerance: Span = "5m") -> Verification:
    """Svix: the same as Standard Webhooks; the names of the headers may begin with ``svix-``."""
    return _verification("svix", secrets, tolerance)
