"""
The types of columns, on each database.

Columns with tokens, keys and ids compare byte by byte; otherwise MySQL would compare them without regard to case.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, LargeBinary, MetaData, String, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeEngine

metadata = MetaData()

#: What follows the type of a text column on MySQL and MariaDB.
_ASCII = "CHARACTER SET ascii COLLATE ascii_bin"
_EXACT = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


class _AsciiKey(String):
    """Like the other types here, it names MySQL's type itself: importing that dialect takes 30 ms of CPU time."""


class _ExactText(String):
    pass


class _LongText(Text):
    pass


class _LongBinary(LargeBinary):
    pass


@compiles(_AsciiKey, "mysql", "mariadb")
def _ascii_key(column_type: _AsciiKey, *_: Any, **__: Any) -> str:
    return f"VARCHAR({column_type.length}) {_ASCII}"


@compiles(_ExactText, "mysql", "mariadb")
def _exact_text(column_type: _ExactText, *_: Any, **__: Any) -> str:
    return f"VARCHAR({column_type.length}) {_EXACT}"


@compiles(_LongText, "mysql", "mariadb")
def _long_text(*_: Any, **__: Any) -> str:
    return f"LONGTEXT {_EXACT}"


@compiles(_LongBinary, "mysql", "mariadb")
def _long_binary(*_: Any, **__: Any) -> str:
    return "LONGBLOB"


def ascii_key(length: int) -> TypeEngine[str]:
    """Ids, which are ASCII."""
    return _AsciiKey(length)


def exact_text(length: int) -> TypeEngine[str]:
    """Names, tokens and keys that users choose."""
    return _ExactText(length)


def long_text() -> TypeEngine[str]:
    """Encoded values of up to 256 KiB, longer if encrypted; MySQL's TEXT is limited to 64 KiB."""
    return _LongText()


def long_binary() -> TypeEngine[bytes]:
    """Request and response bodies; MySQL's BLOB is limited to 64 KiB."""
    return _LongBinary()


def run_ref() -> Column[str]:
    return Column("run_id", ascii_key(64), nullable=False)


def op_ref() -> Column[str]:
    return Column("op_id", ascii_key(255), nullable=False)
