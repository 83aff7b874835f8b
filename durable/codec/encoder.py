"""
Encode: one pass turns the value into plain JSON, then ``json`` writes it.

Each call of a step pays for this pass.  ``Encoder.write`` therefore compares a value's exact type, the most common
types first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from math import isfinite
from typing import Any

from ..errors import SerializationError
from . import kinds
from .kinds import TAG, Fields
from .refusals import Unencodable, part_of, why_failed, why_not

#: The longest text of a value.  A text over 256 KiB is stored in parts, but all of it is in memory at once.
MAX_SIZE = 64 * 1024 * 1024
#: How deep a value may be nested.  Decoding it must not overflow the stack, of which the caller uses a part.
MAX_DEPTH = 150

_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep.  Flatten it, or pass a reference."

#: Larger ints are written in hex, for which Python has no limit of digits (sys.set_int_max_str_digits).
_BIG = 2**1024
#: Two lone surrogates that JSON's escapes would join into one character.
_PAIR = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")

dump = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode
_dump_sorted = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False, sort_keys=True).encode


def encode(value: object, path: str = "value") -> str:
    """
    *value* as JSON text.

    Args:
        path: The name of the value in errors.

    Raises:
        SerializationError: With the path to the part that cannot be encoded; also if the value contains itself, is
            nested too deeply, or is too large.
    """
    return text_of(written(Encoder(), value, path), path)


def written(writer: Encoder, value: object, path: str) -> Any:
    """*value* as plain JSON, written by *writer*."""
    try:
        return writer.write(value)
    except Unencodable as refused:
        raise SerializationError(path + refused.path, refused.reason) from refused.__cause__
    except RecursionError:
        raise SerializationError(path, _TOO_DEEP) from None


def text_of(plain: object, path: str) -> str:
    """Plain JSON as text; SerializationError if it is too large."""
    try:
        text = dump(plain)
    except RecursionError:
        raise SerializationError(path, _TOO_DEEP) from None
    if len(text) > MAX_SIZE:
        raise SerializationError(
            path,
            f"it takes {len(text)} bytes; the limit is {MAX_SIZE}.  Store it elsewhere and pass a reference.",
        )
    return text


def canonical_text(plain: object) -> str:
    """Plain JSON as text that does not depend on the order of keys."""
    return _dump_sorted(plain)


class Encoder:
    """Turns one value into plain JSON.  With ``for_digest`` it writes the form by which calls are compared."""

    def __init__(self, *, for_digest: bool = False) -> None:
        self.for_digest = for_digest
        #: The ids of the containers that are being written, outermost first.
        self.stack: list[int] = []
        #: How many exceptions are being written now, and how many since the outermost of these: see ``failures``.
        self.errors_open = 0
        self.errors_written = 0

    def write(self, value: Any) -> Any:
        """*value* as plain JSON."""
        cls: type = type(value)
        if cls is str:
            return value if value.isascii() or not _PAIR.search(value) else {TAG: "str", "v": _PAIR.split(value)}
        if cls is int:
            return value if -_BIG < value < _BIG else {TAG: "int", "v": hex(value)}
        if value is None or cls is bool:
            return value
        if cls is float:
            return value if isfinite(value) else {TAG: "float", "v": repr(value)}
        if cls is dict:
            for key in value:
                if type(key) is not str or key == TAG or not (key.isascii() or not _PAIR.search(key)):
                    return self._pairs(value)
            return self.fields(value, value.items())
        if cls is list:
            return self.items(value, value)
        kind = kinds.kind_of(cls)
        if kind is None:
            raise Unencodable(why_not(value))
        try:
            return {TAG: kind.tag, **(kind.digest if self.for_digest else kind.write)(self, value)}
        except (Unencodable, RecursionError):
            raise
        except Exception as error:  # an author's class may raise anything while its content is read
            raise Unencodable(why_failed(value, error)) from error

    def items(self, owner: object, items: Iterable[Any]) -> list[Any]:
        """The *items* of *owner*, as a list."""
        self._enter(owner)
        done: list[Any] = []
        try:
            for item in items:
                done.append(self.write(item))
        except Unencodable as refused:
            refused.under(f"[{len(done)}]")
            raise
        self.stack.pop()
        return done

    def fields(self, owner: object, fields: Iterable[tuple[str, Any]]) -> Fields:
        """The named *fields* of *owner*, as an object."""
        self._enter(owner)
        done: Fields = {}
        name = ""
        try:
            for name, item in fields:
                done[name] = self.write(item)
        except Unencodable as refused:
            refused.under(part_of(name))
            raise
        self.stack.pop()
        return done

    def attempt(self, value: object) -> Any:
        """*value* as plain JSON; None if it cannot be encoded (and for None itself)."""
        depth = len(self.stack)
        try:
            return self.write(value)
        except Unencodable:
            del self.stack[depth:]
            return None

    def _pairs(self, owner: dict[Any, Any]) -> Fields:
        """A dict whose keys cannot be the keys of a JSON object, as a list of pairs."""
        self._enter(owner)
        done: list[list[Any]] = []
        key: Any = None
        try:
            for key, item in owner.items():
                hash(key)  # it may have changed since it was added, and the decoder needs its hash
                done.append([self.write(key), self.write(item)])
        except Unencodable as refused:
            refused.under(part_of(key))
            raise
        except TypeError as error:
            raise Unencodable(why_failed(owner, error)) from error
        self.stack.pop()
        return {TAG: "dict", "v": sorted(done, key=canonical_text) if self.for_digest else done}

    def _enter(self, owner: object) -> None:
        """Add a container to the stack; Unencodable if it is nested too deeply, or contains itself."""
        self.stack.append(id(owner))
        if len(self.stack) <= MAX_DEPTH:
            return
        outer: set[int] = set()
        for depth, mark in enumerate(self.stack):
            if mark in outer:
                raise Unencodable(
                    "it contains itself, which JSON cannot express.  Pass an id, or break the cycle.", depth
                )
            outer.add(mark)
        raise Unencodable(_TOO_DEEP, 8)
