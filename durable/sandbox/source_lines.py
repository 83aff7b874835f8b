"""
Which line is the author's: ``file:line`` for errors and diffs.

Between an author's line and ours lie asyncio, the rest of the standard library, and packages that the
author calls.  What counts as the author's is whatever is installed nowhere, and the package of the
workflow itself, wherever that is.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

#: Where this package is.  A frame's file tells, and not its globals: some functions of ours have those of asyncio.
_OURS = __file__.rpartition("/sandbox/")[0] + "/"
_ASYNCIO = asyncio.__file__.rpartition("/")[0] + "/"
_STANDARD = _ASYNCIO.removesuffix("asyncio/")

#: Where a workflow's part of a stack ends and the worker's begins.
_BOTTOM = "durable.replay.replay"


def calling_line(frame: FrameType | None = None) -> str | None:
    """The author's innermost line in the stack of *frame*, by default the caller's."""
    stack = [each for each in _stack(frame or sys._getframe(1)) if not _is_ours(each)]
    if not stack:
        return None
    package = _package(stack[-1])
    found = next((each for each in stack if _package(each) == package or not _is_installed(each)), stack[-1])
    return line_of(found)


def waiting_line(coro: Any) -> str | None:
    """Where the suspended coroutine *coro* waits, in the author's own code."""
    lines = [line_of(frame) for frame in _awaiting(coro) if not _is_ours(frame)]
    return lines[-1] if lines else None


def line_of(frame: FrameType) -> str:
    """``file:line`` at which a frame is."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _stack(frame: FrameType) -> Iterator[FrameType]:
    """The frames of a workflow, innermost first."""
    current: FrameType | None = frame
    while current is not None and current.f_globals.get("__name__") != _BOTTOM:
        yield current
        current = current.f_back


def _awaiting(awaited: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of what it awaits, outermost first."""
    while awaited is not None:
        frame = next((f for n in ("cr", "gi", "ag") if (f := getattr(awaited, f"{n}_frame", None))), None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith((_OURS, _ASYNCIO, "<frozen "))


def _is_installed(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return name.startswith(_STANDARD) or "/site-packages/" in name or "/dist-packages/" in name
