"""
What the store does with values on their way in and out: encryption, and large values by reference.

Every value passes through here at the store's edge, and through nothing else.  Without a cipher a value of up to
``LIMIT`` is stored as it is, which costs one look at its length.  What is stored otherwise begins with ``~``, which no
JSON does::

    ~s.<key id>.<base64>                             sealed: encrypted
    ~r.<key id>.<check>.<digest>.<size>              a reference into the payload store
    ~p.<text>                                        plain; of a head only, whose body is framed

A reference has an empty key id and check where there is no cipher.  The check tells a wrong key from a payload that
was changed.  Bodies are bytes, of which any may be a stranger's: they are framed, by the same marks, where their head
begins with ``~``, and nowhere else.

Reading is two things: ``unseal`` does no I/O and leaves references as they are; ``fetch`` reads what they refer to.
A reference is written back as it is: it is only ever of its own run.
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

#: The largest value that is stored beside others, and that a turn loads with its events: characters, or bytes.
LIMIT = 256 * 1024

MARK = "~"
REFERENCE = "~r."
_SEALED = "~s."
_PLAIN = "~p."

#: The option of a connection under which ``of`` finds the vault of its store.
OPTION = "durable_vault"


class Reference(NamedTuple):
    """What stands in a row for a large value."""

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
    """The key of what is stored beginning with *text*; empty for a reference without one."""
    return text[len(_SEALED) :].partition(".")[0]


class Body(NamedTuple):
    """A body that was not fetched, and its size in bytes."""

    reference: str
    size: int


def of(tx: Connection) -> Vault:
    """The vault of the store that opened this connection."""
    vault: Vault = tx.get_execution_options()[OPTION]
    return vault


class Vault:
    """One store's: its cipher, if it has one, and its payload store."""

    def __init__(self, cipher: Cipher | None = None, payloads: PayloadStore | None = None) -> None:
        self.cipher = cipher
        self.payloads: PayloadStore = payloads or SqlPayloads()
        #: The longest text that is stored as it is.
        self.plain_up_to = LIMIT if cipher is None else -1
        #: The database's clock; the store sets it.
        self.now: Callable[[], int] = lambda: 0

    # Texts

    def seal(self, tx: Connection, run_id: str, place: str, text: str | None) -> str | None:
        """A value as it is stored.  *place* is where in the run: an operation, or a column's name."""
        if text is None or len(text) <= self.plain_up_to or text[:1] == MARK:
            return text
        data = text.encode("utf-8")
        if len(text) > LIMIT:
            return str(self._stow(tx, run_id, data))
        return self._sealed(data, run_id, place)

    def unseal(self, run_id: str, place: str, text: str | None) -> str | None:
        """
        The value that ``seal`` was given; a reference where it is large, for ``fetch``.

        Raises:
            DecryptionError: This process cannot read it.
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
        A value whole: what a reference refers to, else *text* itself.

        Raises:
            PayloadMissing: It is not there, or not what was stored.  DecryptionError: This process cannot read it.
        """
        if text is None or text[:3] != REFERENCE:
            return text
        return self._fetched(tx, run_id, Reference.parse(text)).decode("utf-8")

    # Heads and bodies

    def seal_body(self, tx: Connection, run_id: str, place: str, head: str, body: bytes) -> tuple[str, bytes]:
        """A head and a body as they are stored."""
        if self.cipher is None:
            if len(body) <= LIMIT:
                return head, body
            return _PLAIN + head, str(self._stow(tx, run_id, body)).encode("ascii")
        sealed = self._sealed(head.encode("utf-8"), run_id, f"{place} head")
        if len(body) > LIMIT:
            return sealed, str(self._stow(tx, run_id, body)).encode("ascii")
        key_id, token = self._encrypted(body, run_id, f"{place} body")
        return sealed, f"{_SEALED}{key_id}.".encode("ascii") + token

    def unseal_body(self, run_id: str, place: str, head: str, body: bytes) -> tuple[str, bytes | Body]:
        """What ``seal_body`` was given, a large body unfetched.  Errors: as ``unseal``."""
        if head[:1] != MARK:
            return head, body
        plain = head[len(_PLAIN) :] if head.startswith(_PLAIN) else self.unseal(run_id, f"{place} head", head)
        assert plain is not None
        if body.startswith(REFERENCE.encode("ascii")):
            reference = Reference.parse(body.decode("ascii"))
            self._require_key(reference, run_id)
            return plain, Body(str(reference), reference.size)
        key_id, _, token = body[len(_SEALED) :].partition(b".")
        return plain, self._decrypted(key_id.decode("ascii"), token, run_id, f"{place} body")

    def fetch_body(self, tx: Connection, run_id: str, body: bytes | Body) -> bytes:
        """A body whole.  Errors: as ``fetch``."""
        return self._fetched(tx, run_id, Reference.parse(body.reference)) if isinstance(body, Body) else body

    # Digests

    def keyed(self, digest: str) -> str:
        """What calls are compared by, as it is stored: with a cipher a MAC, by which no argument can be guessed."""
        return digest if self.cipher is None else self._keyed(self.cipher, self.cipher.key_ids[0], digest)

    def is_digest(self, recorded: str, digest: str, run_id: str) -> bool:
        """Whether *recorded* is what ``keyed`` made of this digest, by whatever key; DecryptionError: not by ours."""
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
        """Store the large ones among values of a run outside now, where no transaction is kept open meanwhile."""
        if not self.payloads.is_outside:
            return
        for value in values:
            if value is not None and len(value) > LIMIT:
                self._stow(None, run_id, value if isinstance(value, bytes) else value.encode("utf-8"))

    def _stow(self, tx: Connection | None, run_id: str, data: bytes) -> Reference:
        key_id = "" if self.cipher is None else self.cipher.key_ids[0]
        reference = Reference(key_id, self._check(key_id), self._address(key_id, run_id, data), len(data))
        token = data if not key_id else self._encrypted(data, run_id, reference.digest)[1]
        self.payloads.put(tx, run_id, reference.digest, token, self.now())
        return reference

    def _fetched(self, tx: Connection, run_id: str, reference: Reference) -> bytes:
        self._require_key(reference, run_id)
        token = self.payloads.get(tx, run_id, reference.digest)
        if token is None and self.payloads.is_outside:
            # It was stored before the setting was given.
            token = SqlPayloads().get(tx, run_id, reference.digest)
        if token is None:
            raise PayloadMissing(run_id, reference.digest, "is not there")
        try:
            data = self._decrypted(reference.key_id, token, run_id, reference.digest) if reference.key_id else token
        except DecryptionError:
            # The key is the right one.
            data = b""
        if self._address(reference.key_id, run_id, data) != reference.digest:
            raise PayloadMissing(run_id, reference.digest, "is there and is not what was stored")
        return data

    def _require_key(self, reference: Reference, run_id: str) -> None:
        """DecryptionError unless the key is here, and is the one that the value was stored with."""
        key_id = reference.key_id
        if not key_id:
            return
        known = self.cipher is not None and key_id in self.cipher.key_ids
        if not known or self._check(key_id) != reference.check:
            raise self._unreadable(key_id, run_id)

    def _check(self, key_id: str) -> str:
        return "" if not key_id or self.cipher is None else self.cipher.mac(key_id, b"check").hex()[:8]

    def _address(self, key_id: str, run_id: str, data: bytes) -> str:
        """The digest of a payload: with a cipher a MAC, so that nobody can tell what has it by guessing."""
        named = b"payload " + run_id.encode("ascii") + b"\0" + data
        if not key_id or self.cipher is None:
            return hashlib.sha256(named).hexdigest()
        return self.cipher.mac(key_id, named).hex()


def _context(run_id: str, place: str) -> bytes:
    """What an encrypted value is bound to: moved to another run, or another operation, it cannot be read."""
    return f"durable\0{run_id}\0{place}".encode()
