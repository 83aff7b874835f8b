"""
Encryption at rest: what turns values into what the database keeps, and the keys that do it.

A cipher has keys, each under an id.  The first one writes, all of them read: to rotate, put a new key first; an old
one goes when no run that was written with it is left.  Each value says the id of its key, so that nothing depends on
which key is the first one today.

::

    Durable(celery, cipher=aes_gcm({"2026": "env:DURABLE_KEY_2026", "2025": "env:DURABLE_KEY_2025"}))
"""

from __future__ import annotations

import base64
import binascii
import hmac
import importlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from .errors import ConfigurationError

#: What an id of a key may be: it stands in the database, before each value.
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,16}")
_REFERENCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
#: Bytes of a key, and of AES-GCM's nonce.
_KEY_SIZE = 32
_NONCE_SIZE = 12

_NEW_KEY = 'python -c "import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())"'


@runtime_checkable
class Cipher(Protocol):
    """
    What the setting ``cipher`` takes; ``aes_gcm`` and ``fernet`` make one.

    Attributes:
        key_ids: 1 to 16 ASCII letters, digits, ``_`` or ``-`` each.  The first one writes, all read.
    """

    @property
    def key_ids(self) -> Sequence[str]: ...

    def encrypt(self, key_id: str, data: bytes, context: bytes) -> bytes:
        """*data* under that key, bound to *context*: with another context it must not be decrypted."""

    def decrypt(self, key_id: str, token: bytes, context: bytes) -> bytes:
        """What ``encrypt`` was given; any Exception when *token* is not of this key and context, or was changed."""

    def mac(self, key_id: str, data: bytes) -> bytes:
        """32 bytes that say nothing of *data*, always the same: a MAC under a key of its own."""


#: The keys by id, the first one writes: each ``"env:NAME"``, 32 bytes as base64 in text, or 32 bytes.  ``"env:NAME"``
#: for all of them: the variable holds ``id:key``, several separated by commas.
Keys = Mapping[str, str | bytes] | str


class _Keyed:
    """The keys, and what is derived from each."""

    def __init__(self, keys: Keys) -> None:
        self._keys = _read(keys)
        self.key_ids: Sequence[str] = tuple(self._keys)
        self._macs = {key_id: _derived(key, b"durable mac") for key_id, key in self._keys.items()}

    def __repr__(self) -> str:
        """Without the keys."""
        return f"<{type(self).__name__} with {', '.join(self.key_ids)}>"

    def mac(self, key_id: str, data: bytes) -> bytes:
        return hmac.digest(self._macs[key_id], data, "sha256")


class AesGcm(_Keyed):
    """AES-256-GCM with random nonces; the context is its associated data."""

    def __init__(self, keys: Keys) -> None:
        super().__init__(keys)
        made = _cryptography("hazmat.primitives.ciphers.aead").AESGCM
        self._ciphers = {key_id: made(_derived(key, b"durable aes-gcm")) for key_id, key in self._keys.items()}

    def encrypt(self, key_id: str, data: bytes, context: bytes) -> bytes:
        nonce = os.urandom(_NONCE_SIZE)
        return nonce + bytes(self._ciphers[key_id].encrypt(nonce, data, context))

    def decrypt(self, key_id: str, token: bytes, context: bytes) -> bytes:
        return bytes(self._ciphers[key_id].decrypt(token[:_NONCE_SIZE], token[_NONCE_SIZE:], context))


class Fernet(_Keyed):
    """Fernet, which knows no associated data: a MAC of the context is encrypted with the value, and compared."""

    def __init__(self, keys: Keys) -> None:
        super().__init__(keys)
        made = _cryptography("fernet").Fernet
        self._ciphers = {key_id: made(base64.urlsafe_b64encode(key)) for key_id, key in self._keys.items()}

    def encrypt(self, key_id: str, data: bytes, context: bytes) -> bytes:
        # Fernet's own base64 is taken off: the vault knows whether it needs one.
        return base64.urlsafe_b64decode(self._ciphers[key_id].encrypt(self.mac(key_id, context) + data))

    def decrypt(self, key_id: str, token: bytes, context: bytes) -> bytes:
        bound: bytes = self._ciphers[key_id].decrypt(base64.urlsafe_b64encode(token))
        if not hmac.compare_digest(bound[:_KEY_SIZE], self.mac(key_id, context)):
            raise ValueError("it is of another place")
        return bound[_KEY_SIZE:]


def aes_gcm(keys: Keys) -> Cipher:
    """
    AES-256-GCM for ``Durable(..., cipher=…)``.  Needs the extra ``crypto``.

    Args:
        keys: By id, the first one writes, all read: ``{"2026": "env:DURABLE_KEY_2026", …}``.  A key is 32 bytes, as
            base64 where it is text.  ``"env:NAME"`` alone: the variable holds ``id:key``, several with commas.

    Raises:
        ConfigurationError: A key or an id that is none, a variable that is not set, or no ``cryptography``.
    """
    return AesGcm(keys)


def fernet(keys: Keys) -> Cipher:
    """Fernet for ``Durable(..., cipher=…)``, where keys of it are kept already.  Keys and errors: as ``aes_gcm``."""
    return Fernet(keys)


_BY_NAME = {"aes-gcm": aes_gcm, "fernet": fernet}


def from_setting(value: object) -> Cipher:
    """
    The cipher of the setting: one that was made, or ``aes-gcm:env:NAME``, ``fernet:env:NAME``.

    Raises:
        ValueError: It is neither.  ConfigurationError: Its keys are none.
    """
    if isinstance(value, str):
        name, _, keys = value.strip().partition(":")
        if name not in _BY_NAME or not _REFERENCE.fullmatch(keys):
            raise ValueError(f"as text it is {' or '.join(f'{known}:env:NAME' for known in _BY_NAME)}")
        return _BY_NAME[name](keys)
    if not isinstance(value, Cipher):
        raise ValueError("it must be durable.cipher.aes_gcm(keys), fernet(keys), or a Cipher of your own")
    _check_ids(value.key_ids)
    return value


def _read(keys: Keys) -> dict[str, bytes]:
    known = _all_from_environment(keys) if isinstance(keys, str) else dict(keys)
    _check_ids(tuple(known))
    return {key_id: _key(key_id, key) for key_id, key in known.items()}


def _check_ids(ids: Sequence[str]) -> None:
    bad = [each for each in ids if not isinstance(each, str) or not _KEY_ID.fullmatch(each)]
    if bad or not ids:
        raise ConfigurationError(
            f"cipher: {bad[0]!r} cannot name a key: use 1 to 16 of A-Z, a-z, 0-9, _ and -."
            if bad
            else "cipher: it has no key.  The first one writes, all of them read."
        )


def _all_from_environment(reference: str) -> dict[str, str]:
    """The keys of a variable: ``id:key,id:key``."""
    found = {}
    for pair in _variable(reference).split(","):
        key_id, colon, key = pair.strip().partition(":")
        if not colon:
            raise ConfigurationError(
                f"cipher: {reference!r} has to hold id:key, several with commas, the first writes."
            )
        found[key_id] = key
    return found


def _variable(reference: str) -> str:
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ConfigurationError('cipher: keys as text are "env:NAME", the name of a variable that holds them.')
    value = os.environ.get(match[1], "").strip()
    if not value:
        raise ConfigurationError(f"cipher: the environment variable {match[1]} is not set.  Set it, or: {_NEW_KEY}")
    return value


def _key(key_id: str, given: object) -> bytes:
    if isinstance(given, str):
        text = _variable(given) if given.startswith("env:") else given.strip()
        try:
            given = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            given = None
    if not isinstance(given, bytes) or len(given) != _KEY_SIZE:
        raise ConfigurationError(f"cipher: the key {key_id!r} is not {_KEY_SIZE} bytes of base64.  For one: {_NEW_KEY}")
    return given


def _derived(key: bytes, purpose: bytes) -> bytes:
    """A key for one purpose (HKDF, RFC 5869, of one block and without a salt)."""
    extracted = hmac.digest(b"\0" * _KEY_SIZE, key, "sha256")
    return hmac.digest(extracted, purpose + b"\x01", "sha256")


def _cryptography(module: str) -> Any:
    try:
        return importlib.import_module(f"cryptography.{module}")
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"cipher needs the package {missing.name!r}, which is not installed: pip install 'durable-celery[crypto]'."
        ) from None
