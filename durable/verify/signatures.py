"""What signatures have in common: bytes compared in constant time, several secrets, a window of time."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import ConfigurationError
from .delivery import Delivery, Rejected

#: Digits, and no more of them than a moment has; ``int`` would take blanks, signs and Arabic digits.
_SECONDS = re.compile(rb"[0-9]{1,12}")


def mac(key: bytes, message: bytes, algorithm: str = "sha256") -> bytes:
    """The HMAC of *message*."""
    return hmac.new(key, message, algorithm).digest()


def require_fit(found: Iterable[bytes], expected: Iterable[bytes]) -> None:
    """
    Rejected unless one of the signatures *found* is one of those *expected*.

    Each is compared with each, in constant time: how long it takes tells only how many there are.
    """
    candidates = tuple(expected)
    fits = False
    for signature in found:
        for candidate in candidates:
            fits |= hmac.compare_digest(signature, candidate)
    if not fits:
        raise Rejected("the signature does not fit")


def require_recent(delivery: Delivery, stamp: bytes, unit: float = 1.0) -> None:
    """Rejected for a moment further from now than the tolerance, in the past or in the future."""
    if not _SECONDS.fullmatch(stamp):
        raise Rejected("the timestamp is not a number of seconds")
    require_near(delivery, int(stamp) * unit)


def require_near(delivery: Delivery, secs: float) -> None:
    """The same for a moment that has been read."""
    tolerance = delivery.options["tolerance"] / 1_000_000
    if not abs(delivery.now - secs) <= tolerance:
        raise Rejected("the timestamp is too far from now")


def b64(digest: bytes) -> bytes:
    return base64.b64encode(digest)


def hexed(digest: bytes) -> bytes:
    return digest.hex().encode("ascii")


def unb64(text: bytes) -> bytes:
    """The bytes of a base64 text; Rejected for another."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Rejected("the signature is not base64") from None


def unhexed(text: bytes) -> bytes:
    """The bytes of a hexadecimal text; Rejected for another."""
    try:
        return binascii.unhexlify(text)
    except binascii.Error:
        raise Rejected("the signature is not hexadecimal") from None


def ed25519_fits(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """
    Whether an Ed25519 signature is that of this key.

    Raises:
        ConfigurationError: The key is none, or the package ``cryptography`` is missing.
    """
    ed25519 = needs_cryptography("hazmat.primitives.asymmetric.ed25519")
    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(public_key)
    except ValueError:
        raise ConfigurationError(f"An Ed25519 public key has 32 bytes, this one has {len(public_key)}.") from None
    return _verifies(lambda: key.verify(signature, message))


def _verifies(verify: Callable[[], None]) -> bool:
    invalid = needs_cryptography("exceptions").InvalidSignature
    try:
        verify()
    except invalid:
        return False
    return True


def needs_cryptography(module: str) -> Any:
    """A module of the package ``cryptography``, which is wanted only where a sender signs with a key pair."""
    import importlib

    try:
        return importlib.import_module(f"cryptography.{module}")
    except ModuleNotFoundError:
        raise ConfigurationError(
            "Signatures of this kind are verified by the package cryptography, which is not installed:"
            " pip install 'durable-celery[verify]'."
        ) from None
