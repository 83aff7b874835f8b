"""Bodies that were compressed on the way (``Content-Encoding``), decompressed in bounded memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from ..errors import BadRequestBody

#: What zlib is told of each coding; ``deflate`` is zlib's format, and some clients leave its header out.
_GZIP, _ZLIB, _RAW = 31, 15, -15
_WINDOWS = {"gzip": (_GZIP,), "x-gzip": (_GZIP,), "deflate": (_ZLIB, _RAW)}

#: Small, since zlib copies what follows a gzip member.
_PIECE = 4096


def coding_of(values: Iterable[str]) -> str | None:
    """The coding that the ``Content-Encoding`` headers name; None for none, a list where there are several."""
    names = [name.strip().lower() for value in values for name in value.split(",")]
    return ", ".join(name for name in names if name not in ("", "identity")) or None


def is_known(coding: str) -> bool:
    """Whether ``decode`` can decode it."""
    return coding in _WINDOWS


def decode(data: bytes, coding: str, limit: int) -> bytes:
    """
    *data* without its coding.

    Raises:
        BadRequestBody: It is not in that coding, the coding is unknown, or it has more than *limit* bytes.
    """
    if not is_known(coding):
        raise BadRequestBody(
            f"Content-Encoding is {coding[:100]!r}, and decoded_data() decodes gzip and deflate only.  Decompress"
            " request.data with a library for it, and limit the size of the result."
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
            f"The body ({len(data)} bytes) is not what its Content-Encoding {coding!r} says: {error}.  A proxy may have"
            " decompressed or changed it; request.data is what came in."
        ) from error


def _inflate(data: bytes, window: int, limit: int) -> bytes:
    pieces: list[bytes] = []
    at = size = 0
    while at < len(data):
        member = zlib.decompressobj(window)
        while not member.eof:
            piece = data[at : at + _PIECE]
            if not piece:
                raise BadRequestBody(f"The compressed body ({len(data)} bytes) ends early: the sender cut it off.")
            found = member.decompress(piece, limit + 1 - size)
            size += len(found)
            if size > limit:
                raise BadRequestBody(
                    f"The body ({len(data)} bytes) decompresses to more than {limit} bytes.  If the sender may send"
                    " that much, call decoded_data(max_size=...) with a larger limit."
                )
            pieces.append(found)
            at += len(piece) - len(member.unused_data)
        if window != _GZIP and at < len(data):
            raise zlib.error("something follows the compressed data")
    return b"".join(pieces)
