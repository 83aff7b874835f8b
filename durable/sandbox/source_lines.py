"""
The author's line of code, ``file:line``, for errors and diffs.

Between the author's line and ours are frames of asyncio, of the rest of the standard library, and of packages that the
author calls.  A frame is the author's if its code is not installed as a package, or belongs to the same package as the
workflow.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import Any

#: The folder of this package.  The file of a frame decides, because some functions of ours have asyncio's globals.
_OURS = __file__.rpartition("/sandbox/")[0] + "/"
_ASYNCIO = asyncio.__file__.rpartition("/")[0] + "/"
_STANDARD = _ASYNCIO.removesuffix("asyncio/")

#: The module whose frame is below every frame of a workflow: what is below it belongs to the worker.
BOTTOM = "durable.replay.replay"


def calling_line(frame: FrameType | None = None) -> str | None:
    """The author's innermost line in the stack of *frame*, by default the caller's."""
    author, _ = calling_frames(frame or sys._getframe(1))
    return None if author is None else line_of(author)


def calling_frames(frame: FrameType) -> tuple[FrameType | None, FrameType | None]:
    """The author's innermost frame in the stack of *frame*, and the frame of the library function that it calls."""
    return _authors([each for each in workflow_frames(frame) if not _is_ours(each)])


def raising_line(error: BaseException) -> str | None:
    """The author's innermost line in the traceback of *error*."""
    lines: dict[FrameType, int] = {}
    traceback: TracebackType | None = vars(BaseException)["__traceback__"].__get__(error)
    while traceback is not None:
        if not _is_ours(traceback.tb_frame):
            lines[traceback.tb_frame] = traceback.tb_lineno
        traceback = traceback.tb_next
    author, _ = _authors(list(reversed(lines)))
    return None if author is None else f"{author.f_code.co_filename}:{lines[author]}"


def _authors(stack: Sequence[FrameType]) -> tuple[FrameType | None, FrameType | None]:
    """The author's innermost frame of a stack, innermost first, and the frame that it calls."""
    callee = None
    for each in stack:
        if _package(each) == _package(stack[-1]) or not _is_installed(each):
            return each, callee
        callee = each
    return None, None


def function_name(frame: FrameType) -> str | None:
    """
    The name of a frame's function as callers write it: ``requests.get``, ``pathlib.Path.read_text``.

    None for a private function, such as a method that an operator calls.
    """
    module, path = str(frame.f_globals.get("__name__", "")), frame.f_code.co_qualname.removesuffix(".__init__")
    if not all(part.isidentifier() and not part.startswith("_") for part in path.split(".")):
        return None
    # A package usually hands its functions on: requests.get is written in requests.api.
    package, first = _package(frame), path.partition(".")[0]
    shared = getattr(sys.modules.get(package), first, None)
    return f"{package if getattr(shared, '__module__', None) == module else module}.{path}"


def waiting_line(coro: Any) -> str | None:
    """The author's line at which the suspended coroutine *coro* waits."""
    line, awaited = None, coro
    # Follow what each coroutine awaits, from the outermost to the innermost.
    while awaited is not None:
        frame = next((f for n in ("cr", "gi", "ag") if (f := getattr(awaited, f"{n}_frame", None))), None)
        if frame is not None and not _is_ours(frame):
            line = line_of(frame)
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return line


def line_of(frame: FrameType) -> str:
    """The line that a frame executes, as ``file:line``."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def workflow_frames(frame: FrameType) -> Iterator[FrameType]:
    """*frame* and its callers, innermost first, up to where the workflow's part of the stack ends."""
    caller: FrameType | None = frame
    while caller is not None and caller.f_globals.get("__name__") != BOTTOM:
        yield caller
        caller = caller.f_back


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith((_OURS, _ASYNCIO, "<frozen "))


def _is_installed(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return name.startswith(_STANDARD) or "/site-packages/" in name or "/dist-packages/" in name
