"""
Encryption at rest: the ciphers that encrypt values before they are stored, and their keys.

Each key has an id.  The first key encrypts, all keys decrypt.  To rotate keys, put a new one first, and remove the old
one when no run is left that was encrypted with it.  Each encrypted value contains the id of its key.  ::

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

#: The syntax of a key id, which is stored with each value.
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,16}")
_REFERENCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
#: Lengths of a key and of AES-GCM's nonce, in bytes.
_KEY_SIZE = 32
_NONCE_SIZE = 12

_NEW_KEY = 'python -c "import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())"'


@runtime_checkable
class Cipher(Protocol):
    """
    A cipher for the setting ``cipher``; ``aes_gcm`` and ``fernet`` return one.

    Attributes:
        key_ids: The ids of the keys, each 1 to 16 ASCII letters, digits, ``_`` or ``-``.  The first key encrypts.
    """

    @property
    def key_ids(self) -> Sequence[str]: ...

    def encrypt(self, key_id: str, data: bytes, context: bytes) -> bytes:
        """Encrypt *data* with this key, bound to *context*: decryption with another context must fail."""

    def decrypt(self, key_id: str, token: bytes, context: bytes) -> bytes:
        """Decrypt *token*; raises any Exception when it was changed, or has another key or context."""

    def mac(self, key_id: str, data: bytes) -> bytes:
        """A MAC of *data* of 32 bytes, deterministic, with a key derived from this one."""


#: Keys by id; the first one encrypts.  A key is 32 bytes, or their base64 as text, or ``"env:NAME"`` for an environment
#: variable with the base64.  ``"env:NAME"`` in place of the mapping: the variable has ``id:key``, separated by commas.
Keys = Mapping[str, str | bytes] | str


class _Keyed:
    """The keys, and the MAC keys that are derived from them."""

    def __init__(self, keys: Keys) -> None:
        self._keys = _read(keys)
        self.key_ids: Sequence[str] = tuple(self._keys)
        self._macs = {key_id: _derived(key, b"durable mac") for key_id, key in self._keys.items()}

    def __repr__(self) -> str:
        """Shows the ids of the keys, never the keys."""
        return f"<{type(self).__name__} with {', '.join(self.key_ids)}>"

    def mac(self, key_id: str, data: bytes) -> bytes:
        return hmac.digest(self._macs[key_id], data, "sha256")


class AesGcm(_Keyed):
    """AES-256-GCM with random nonces; the context is its associated data."""

    def __init__(self, keys: Keys) -> None:
        super().__init__(keys)
        algorithm = _cryptography("hazmat.primitives.ciphers.aead").AESGCM
        self._ciphers = {key_id: algorithm(_derived(key, b"durable aes-gcm")) for key_id, key in self._keys.items()}

    def encrypt(self, key_id: str, data: bytes, context: bytes) -> bytes:
        nonce = os.urandom(_NONCE_SIZE)
        return nonce + bytes(self._ciphers[key_id].encrypt(nonce, data, context))

    def decrypt(self, key_id: str, token: bytes, context: bytes) -> bytes:
        return bytes(self._ciphers[key_id].decrypt(token[:_NONCE_SIZE], token[_NONCE_SIZE:], context))


class Fernet(_Keyed):
    """Fernet, which has no associated data: the value is encrypted together with a MAC of the context."""

    def __init__(self, keys: Keys) -> None:
        super().__init__(keys)
        algorithm = _cryptography("fernet").Fernet
        self._ciphers = {key_id: algorithm(base64.urlsafe_b64encode(key)) for key_id, key in self._keys.items()}

    def encrypt(self, key_id: str, data: bytes, context: bytes) -> bytes:
        # Remove Fernet's base64; the vault adds its own where a value is text.
        return base64.urlsafe_b64decode(self._ciphers[key_id].encrypt(self.mac(key_id, context) + data))

    def decrypt(self, key_id: str, token: bytes, context: bytes) -> bytes:
        bound: bytes = self._ciphers[key_id].decrypt(base64.urlsafe_b64encode(token))
        if not hmac.compare_digest(bound[:_KEY_SIZE], self.mac(key_id, context)):
            raise ValueError("the value belongs to another place")
        return bound[_KEY_SIZE:]


def aes_gcm(keys: Keys) -> Cipher:
    """
    AES-256-GCM for ``Durable(..., cipher=…)``.  Needs the extra ``crypto``.

    Args:
        keys: Keys by id, such as ``{"2026": "env:DURABLE_KEY_2026", "2025": "env:DURABLE_KEY_2025"}``.  The first key
            encrypts, all decrypt.  A key is 32 bytes, or their base64 as text, or the name of an environment variable
            with the base64.  ``"env:NAME"`` in place of the mapping: the variable has ``id:key``, separated by commas.

    Raises:
        ConfigurationError: A key or an id is invalid, a variable is not set, or ``cryptography`` is not installed.
    """
    return AesGcm(keys)


def fernet(keys: Keys) -> Cipher:
    """Fernet for ``Durable(..., cipher=…)``, if you have Fernet keys.  Keys and errors are as for ``aes_gcm``."""
    return Fernet(keys)


_BY_NAME = {"aes-gcm": aes_gcm, "fernet": fernet}


def from_setting(value: object) -> Cipher:
    """
    The cipher of a setting: a ``Cipher``, or the text ``aes-gcm:env:NAME`` or ``fernet:env:NAME``.

    Raises:
        ValueError: The value is something else.
        ConfigurationError: The keys are invalid.
    """
    if isinstance(value, str):
        name, _, keys = value.strip().partition(":")
        if name not in _BY_NAME or not _REFERENCE.fullmatch(keys):
            raise ValueError(f"as text it is {' or '.join(f'{name}:env:NAME' for name in _BY_NAME)}")
        return _BY_NAME[name](keys)
    if not isinstance(value, Cipher):
        raise ValueError("it must be durable.cipher.aes_gcm(keys), fernet(keys), or a Cipher of your own")
    _check_ids(value.key_ids)
    return value


def _read(keys: Keys) -> dict[str, bytes]:
    """The keys as bytes, by id."""
    by_id: dict[str, str | bytes] = {}
    if isinstance(keys, str):
        for pair in _variable(keys).split(","):
            key_id, colon, key = pair.strip().partition(":")
            if not colon:
                raise ConfigurationError(f"cipher: the variable in {keys!r} must have id:key, separated by commas.")
            by_id[key_id] = key
    else:
        by_id.update(keys)
    _check_ids(tuple(by_id))
    return {key_id: _key(key_id, key) for key_id, key in by_id.items()}


def _check_ids(ids: Sequence[str]) -> None:
    bad = [each for each in ids if not isinstance(each, str) or not _KEY_ID.fullmatch(each)]
    if bad or not ids:
        raise ConfigurationError(
            f"cipher: {bad[0]!r} is not a key id: use 1 to 16 characters of A-Z, a-z, 0-9, _ and -."
            if bad
            else "cipher: it has no key.  The first key encrypts, all keys decrypt."
        )


def _variable(reference: str) -> str:
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ConfigurationError(
            'cipher: text must be "env:NAME", where NAME is an environment variable that has the keys.'
        )
    value = os.environ.get(match[1], "").strip()
    if not value:
        raise ConfigurationError(
            f"cipher: the environment variable {match[1]} is not set.  This makes a new key: {_NEW_KEY}"
        )
    return value


def _key(key_id: str, given: object) -> bytes:
    if isinstance(given, str):
        text = _variable(given) if given.startswith("env:") else given.strip()
        try:
            given = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            given = None
    if not isinstance(given, bytes) or len(given) != _KEY_SIZE:
        raise ConfigurationError(
            f"cipher: the key {key_id!r} is not {_KEY_SIZE} bytes, or their base64.  This makes a new key: {_NEW_KEY}"
        )
    return given


def _derived(key: bytes, purpose: bytes) -> bytes:
    """Derive a key for one purpose: HKDF (RFC 5869) with one block and no salt."""
    extracted = hmac.digest(b"\0" * _KEY_SIZE, key, "sha256")
    return hmac.digest(extracted, purpose + b"\x01", "sha256")


def _cryptography(module: str) -> Any:
    try:
        return importlib.import_module(f"cryptography.{module}")
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"cipher needs the package {missing.name!r}, which is not installed: pip install 'durable-celery[crypto]'."
        ) from None
