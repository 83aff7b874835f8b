"""
Encryption of values, and large values by reference: how a value is stored in a row.

Every value passes through this file when it is written and when it is read.  Without a cipher, a value of up to
``LIMIT`` characters is stored as it is; that costs one comparison of its length.  Every other value begins with a mark.
The marks begin with ``~``, with which no JSON text begins::

    ~s.<key id>.<base64>                             encrypted
    ~r.<key id>.<check>.<digest>.<size>              a reference into the payload store
    ~p.<text>                                        plain; only for a head whose body has a mark

A reference has an empty key id and check when there is no cipher.  The check distinguishes a wrong key from a payload
that was changed.

A body is bytes that anyone may have sent, so its first bytes prove nothing.  Its head decides: a body has a mark if,
and only if, its head begins with ``~``.

``unseal`` decrypts without I/O and leaves references as they are; ``fetch`` reads what a reference refers to.  A
reference belongs to one run, and is written back unchanged.

Why a mark, and no ``key_id`` column: values are in ten columns of six tables, and digests inside the JSON of ``data``.
Columns would double these ten, nearly all of them NULL; the migration would rewrite every encrypted row; and during a
rolling deploy the old processes would read ciphertext without a mark as JSON.  The one query that needs key ids
(``backlog.encrypted_heads``) reads 20 characters each of a bounded number of rows.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

from sqlalchemy import Connection

from ..cipher import Cipher
from ..errors import DecryptionError, PayloadMissing
from .payloads import PayloadStore, SqlPayloads

#: The largest value that is stored in the row itself, in characters or bytes.  A turn loads it with its events.
LIMIT = 256 * 1024

MARK = "~"
REFERENCE = "~r."
_SEALED = "~s."
_PLAIN = "~p."

#: The execution option of a connection that has the vault of its store.
OPTION = "durable_vault"


class Reference(NamedTuple):
    """What a row has in place of a large value."""

    key_id: str
    check: str
    digest: str
    size: int

    def __str__(self) -> str:
        return f"{REFERENCE}{self.key_id}.{self.check}.{self.digest}.{self.size}"

    @classmethod
    def parse(cls, text: str) -> Reference:
        key_id, check, digest, size = text[len(REFERENCE) :].split(".")
        return cls(key_id, check, digest, int(size))


def is_large(text: str | None) -> bool:
    """Whether a value is stored by reference."""
    return text is not None and len(text) > LIMIT


def key_id_of(text: str) -> str:
    """The key id of a stored value that begins with *text*; empty for a reference without a key."""
    return text[len(_SEALED) :].partition(".")[0]


class UnfetchedBody(NamedTuple):
    """A large body that was not fetched, and its size in bytes."""

    reference: str
    size: int


def of(tx: Connection) -> Vault:
    """The vault of the store that opened this connection."""
    vault: Vault = tx.get_execution_options()[OPTION]
    return vault


class Vault:
    """The cipher, if there is one, and the payload store of one store."""

    def __init__(self, cipher: Cipher | None = None, payloads: PayloadStore | None = None) -> None:
        self.cipher = cipher
        self.payloads: PayloadStore = payloads or SqlPayloads()
        #: Length of the longest text that is stored as it is; -1 with a cipher, which encrypts every text.
        self.plain_up_to = LIMIT if cipher is None else -1
        #: The database's clock; the store sets it.
        self.now: Callable[[], int] = lambda: 0

    # Texts

    def seal(self, tx: Connection, run_id: str, place: str, text: str | None) -> str | None:
        """A value as it is stored.  *place* names it within its run: an operation, or a column's name."""
        if text is None or len(text) <= self.plain_up_to or text[:1] == MARK:
            return text
        data = text.encode("utf-8")
        if len(text) > LIMIT:
            return str(self._store(tx, run_id, data))
        return self._sealed(data, run_id, place)

    def unseal(self, run_id: str, place: str, text: str | None) -> str | None:
        """
        The value that ``seal`` was given; a large value stays a reference, for ``fetch``.

        Raises:
            DecryptionError: This process does not have the key.
        """
        if text is None or text[:1] != MARK:
            return text
        if text.startswith(REFERENCE):
            self._require_key(Reference.parse(text), run_id)
            return text
        key_id, _, token = text[len(_SEALED) :].partition(".")
        return self._decrypted(key_id, binascii.a2b_base64(token), run_id, place).decode("utf-8")

    def fetch(self, tx: Connection, run_id: str, text: str | None) -> str | None:
        """
        The large value that a reference refers to; any other *text* unchanged.

        Raises:
            PayloadMissing: The value is gone, or is not what was stored.
            DecryptionError: This process does not have the key.
        """
        if text is None or text[:3] != REFERENCE:
            return text
        return self._fetched(tx, run_id, Reference.parse(text)).decode("utf-8")

    # Heads and bodies

    def seal_body(self, tx: Connection | None, run_id: str, place: str, head: str, body: bytes) -> tuple[str, bytes]:
        """A head and a body as they are stored; a body of up to ``LIMIT`` bytes needs no transaction."""
        if self.cipher is None:
            if len(body) <= LIMIT:
                return head, body
            return _PLAIN + head, str(self._store(tx, run_id, body)).encode("ascii")
        sealed = self._sealed(head.encode("utf-8"), run_id, f"{place} head")
        if len(body) > LIMIT:
            return sealed, str(self._store(tx, run_id, body)).encode("ascii")
        key_id, token = self._encrypted(body, run_id, f"{place} body")
        return sealed, f"{_SEALED}{key_id}.".encode("ascii") + token

    def unseal_body(self, run_id: str, place: str, head: str, body: bytes) -> tuple[str, bytes | UnfetchedBody]:
        """What ``seal_body`` was given; a large body is not fetched.  Raises what ``unseal`` raises."""
        if head[:1] != MARK:
            return head, body
        plain = head[len(_PLAIN) :] if head.startswith(_PLAIN) else self.unseal(run_id, f"{place} head", head)
        assert plain is not None
        if body.startswith(REFERENCE.encode("ascii")):
            reference = Reference.parse(body.decode("ascii"))
            self._require_key(reference, run_id)
            return plain, UnfetchedBody(str(reference), reference.size)
        key_id, _, token = body[len(_SEALED) :].partition(b".")
        return plain, self._decrypted(key_id.decode("ascii"), token, run_id, f"{place} body")

    def fetch_body(self, tx: Connection, run_id: str, body: bytes | UnfetchedBody) -> bytes:
        """The body; fetches a large one.  Raises what ``fetch`` raises."""
        return self._fetched(tx, run_id, Reference.parse(body.reference)) if isinstance(body, UnfetchedBody) else body

    # Digests

    def keyed(self, digest: str) -> str:
        """A digest of arguments as it is stored; with a cipher a MAC, so that nobody can guess arguments from it."""
        return digest if self.cipher is None else self._keyed(self.cipher, self.cipher.key_ids[0], digest)

    def is_digest(self, recorded: str, digest: str, run_id: str) -> bool:
        """Whether ``keyed`` made *recorded* from *digest*, with any of our keys; DecryptionError for another key."""
        if not recorded.startswith("h."):
            return recorded == digest
        key_id = recorded.split(".")[1]
        if self.cipher is None or key_id not in self.cipher.key_ids:
            raise self._unreadable(key_id, run_id)
        return recorded == self._keyed(self.cipher, key_id, digest)

    def _keyed(self, cipher: Cipher, key_id: str, digest: str) -> str:
        return f"h.{key_id}.{cipher.mac(key_id, b'digest ' + digest.encode('ascii')).hex()[:40]}"

    # Encryption

    def _sealed(self, data: bytes, run_id: str, place: str) -> str:
        key_id, token = self._encrypted(data, run_id, place)
        return f"{_SEALED}{key_id}.{binascii.b2a_base64(token, newline=False).decode('ascii')}"

    def _encrypted(self, data: bytes, run_id: str, place: str) -> tuple[str, bytes]:
        assert self.cipher is not None
        key_id = self.cipher.key_ids[0]
        return key_id, self.cipher.encrypt(key_id, data, _context(run_id, place))

    def _decrypted(self, key_id: str, token: bytes, run_id: str, place: str) -> bytes:
        if self.cipher is None or key_id not in self.cipher.key_ids:
            raise self._unreadable(key_id, run_id)
        try:
            return self.cipher.decrypt(key_id, token, _context(run_id, place))
        except Exception as error:
            raise self._unreadable(key_id, run_id) from error

    def _unreadable(self, key_id: str, run_id: str) -> DecryptionError:
        return DecryptionError(key_id, () if self.cipher is None else self.cipher.key_ids, run_id)

    # Payloads

    def store_early(self, run_id: str, values: Iterable[str | bytes | None]) -> None:
        """Store the large ones among *values* now if the payload store is outside: no transaction waits for it."""
        if not self.payloads.is_outside:
            return
        for value in values:
            if value is not None and len(value) > LIMIT:
                self._store(None, run_id, value if isinstance(value, bytes) else value.encode("utf-8"))

    def _store(self, tx: Connection | None, run_id: str, data: bytes) -> Reference:
        key_id = "" if self.cipher is None else self.cipher.key_ids[0]
        reference = Reference(key_id, self._check(key_id), self._address(key_id, run_id, data), len(data))
        token = data if not key_id else self._encrypted(data, run_id, reference.digest)[1]
        self.payloads.put(tx, run_id, reference.digest, token, self.now())
        return reference

    def _fetched(self, tx: Connection, run_id: str, reference: Reference) -> bytes:
        self._require_key(reference, run_id)
        token = self.payloads.get(tx, run_id, reference.digest)
        if token is None and self.payloads.is_outside:
            # The value was stored before payload_url was set.
            token = SqlPayloads().get(tx, run_id, reference.digest)
        if token is None:
            raise PayloadMissing(run_id, reference.digest, "is not there")
        try:
            data = self._decrypted(reference.key_id, token, run_id, reference.digest) if reference.key_id else token
        except DecryptionError:
            # ``_require_key`` has checked the key, so the payload was changed: the comparison below fails.
            data = b""
        if self._address(reference.key_id, run_id, data) != reference.digest:
            raise PayloadMissing(run_id, reference.digest, "is there and is not what was stored")
        return data

    def _require_key(self, reference: Reference, run_id: str) -> None:
        """Raise DecryptionError unless this process has the key that the value was stored with."""
        key_id = reference.key_id
        if not key_id:
            return
        has_key = self.cipher is not None and key_id in self.cipher.key_ids
        if not has_key or self._check(key_id) != reference.check:
            raise self._unreadable(key_id, run_id)

    def _check(self, key_id: str) -> str:
        return "" if not key_id or self.cipher is None else self.cipher.mac(key_id, b"check").hex()[:8]

    def _address(self, key_id: str, run_id: str, data: bytes) -> str:
        """The digest that names a payload; with a cipher it is a MAC, so that nobody can guess the value from it."""
        named = b"payload " + run_id.encode("ascii") + b"\0" + data
        if not key_id or self.cipher is None:
            return hashlib.sha256(named).hexdigest()
        return self.cipher.mac(key_id, named).hex()


def _context(run_id: str, place: str) -> bytes:
    """What an encrypted value is bound to: copied to another run or operation, it cannot be decrypted."""
    return f"durable\0{run_id}\0{place}".encode()
