"""Tools for verifiers: HMACs, comparison in constant time with several secrets, and checks of timestamps."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable
from typing import Any

from ..errors import ConfigurationError
from .delivery import Delivery, Rejected

#: A timestamp.  ``int`` would also accept blanks, signs and Arabic digits.
_SECONDS = re.compile(rb"[0-9]{1,12}")


def mac(key: bytes, message: bytes, algorithm: str = "sha256") -> bytes:
    """The HMAC of *message*."""
    return hmac.new(key, message, algorithm).digest()


def require_match(found: Iterable[bytes], expected: Iterable[bytes]) -> None:
    """
    Raise Rejected unless one of the signatures *found* is one of those *expected*.

    Each is compared with each, in constant time: the duration shows only how many there are.
    """
    candidates = tuple(expected)
    matches = False
    for signature in found:
        for candidate in candidates:
            matches |= hmac.compare_digest(signature, candidate)
    if not matches:
        raise Rejected("the signature does not match")


def require_recent(delivery: Delivery, stamp: bytes, unit: float = 1.0) -> None:
    """Raise Rejected if a timestamp is further from now than the tolerance, in the past or in the future."""
    if not _SECONDS.fullmatch(stamp):
        raise Rejected("the timestamp is not a number of seconds")
    require_near(delivery, int(stamp) * unit)


def require_near(delivery: Delivery, secs: float) -> None:
    """The same for a timestamp in seconds since 1970."""
    tolerance = delivery.options["tolerance"] / 1_000_000
    if not abs(delivery.now - secs) <= tolerance:
        raise Rejected("the timestamp is too far from now")


def to_base64(digest: bytes) -> bytes:
    """*digest* in base64."""
    return base64.b64encode(digest)


def to_hex(digest: bytes) -> bytes:
    """*digest* in lower-case hexadecimal digits."""
    return digest.hex().encode("ascii")


def from_base64(text: bytes) -> bytes:
    """Decode base64; raises Rejected if it is malformed."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Rejected("the signature is not base64") from None


def from_hex(text: bytes) -> bytes:
    """Decode hexadecimal digits; raises Rejected if they are malformed."""
    try:
        return binascii.unhexlify(text)
    except binascii.Error:
        raise Rejected("the signature is not hexadecimal") from None


def ed25519_matches(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """
    Whether an Ed25519 signature matches this key and message.

    Raises:
        ConfigurationError: The key is malformed, or the package ``cryptography`` is not installed.
    """
    ed25519 = import_cryptography("hazmat.primitives.asymmetric.ed25519")
    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(public_key)
    except ValueError:
        raise ConfigurationError(f"An Ed25519 public key has 32 bytes, but this one has {len(public_key)}.") from None
    try:
        key.verify(signature, message)
    except import_cryptography("exceptions").InvalidSignature:
        return False
    return True


def import_cryptography(module: str) -> Any:
    """A module of the package ``cryptography``, which only senders that sign with a key pair need."""
    import importlib

    try:
        return importlib.import_module(f"cryptography.{module}")
    except ModuleNotFoundError:
        raise ConfigurationError(
            "This sender's signatures need the package cryptography, which is not installed.  Run"
            " pip install 'durable-celery[verify]'."
        ) from None
