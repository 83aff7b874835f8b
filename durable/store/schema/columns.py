"""
The types of columns, on each database.

Columns with tokens, keys and ids compare byte by byte; otherwise MySQL would compare them without regard to case.
"""

from __future__ import annotations

from sqlalchemy import Column, LargeBinary, MetaData, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

metadata = MetaData()


def ascii_key(length: int) -> TypeEngine[str]:
    """Ids, which are ASCII."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
    )


def exact_text(length: int) -> TypeEngine[str]:
    """Names, tokens and keys that users choose."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def long_text() -> TypeEngine[str]:
    """Encoded values of up to 256 KiB, longer if encrypted; MySQL's TEXT is limited to 64 KiB."""
    return Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


def long_binary() -> TypeEngine[bytes]:
    """Request and response bodies; MySQL's BLOB is limited to 64 KiB."""
    return LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def run_ref() -> Column[str]:
    return Column("run_id", ascii_key(64), nullable=False)


def op_ref() -> Column[str]:
    return Column("op_id", ascii_key(255), nullable=False)
