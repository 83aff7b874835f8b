"""Decompress bodies that have a ``Content-Encoding``, in bounded memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from ..errors import BadRequestBody

#: The ``wbits`` for zlib.  ``deflate`` is zlib's format, but some clients send it without its header.
_GZIP, _ZLIB, _RAW = 31, 15, -15
_WINDOWS = {"gzip": (_GZIP,), "x-gzip": (_GZIP,), "deflate": (_ZLIB, _RAW)}

#: Bytes given to zlib at once.  Few, because zlib copies what follows a gzip member.
_PIECE = 4096


def coding_of(values: Iterable[str]) -> str | None:
    """The coding that the ``Content-Encoding`` headers name, None without one.  Several are joined by a comma."""
    names = [name.strip().lower() for value in values for name in value.split(",")]
    return ", ".join(name for name in names if name not in ("", "identity")) or None


def is_known(coding: str) -> bool:
    """Whether ``decode`` supports this coding."""
    return coding in _WINDOWS


def decode(data: bytes, coding: str, limit: int) -> bytes:
    """
    Decompress *data*.

    Raises:
        BadRequestBody: If it is not in this coding, the coding is not supported, or the result exceeds *limit* bytes.
    """
    if not is_known(coding):
        raise BadRequestBody(
            f"Content-Encoding is {coding[:100]!r}, but decoded_data() supports only gzip and deflate.  Decompress"
            " request.data with a library for this coding, and limit the size of the result."
        )
    *others, last = _WINDOWS[coding]
    for window in others:
        try:
            return _inflate(data, window, limit)
        except zlib.error:
            continue
    try:
        return _inflate(data, last, limit)
    except zlib.error as error:
        raise BadRequestBody(
            f"The body ({len(data)} bytes) does not have its Content-Encoding {coding!r}: {error}.  A proxy may have"
            " decompressed or changed it; request.data has the body as it was received."
        ) from error


def _inflate(data: bytes, window: int, limit: int) -> bytes:
    pieces: list[bytes] = []
    position = size = 0
    while position < len(data):
        member = zlib.decompressobj(window)
        while not member.eof:
            piece = data[position : position + _PIECE]
            if not piece:
                raise BadRequestBody(f"The compressed body ({len(data)} bytes) ends early: the sender cut it off.")
            decompressed = member.decompress(piece, limit + 1 - size)
            size += len(decompressed)
            if size > limit:
                raise BadRequestBody(
                    f"The body ({len(data)} bytes) decompresses to more than {limit} bytes.  If the sender may send"
                    " that much, call decoded_data(max_size=...) with a larger limit."
                )
            pieces.append(decompressed)
            position += len(piece) - len(member.unused_data)
        if window != _GZIP and position < len(data):
            raise zlib.error("there is more data after the compressed data")
    return b"".join(pieces)
