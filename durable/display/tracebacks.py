"""Tracebacks as people read them: the author's frames, and those of durable folded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

_PACKAGE = str(Path(__file__).parents[1])
_FRAME = re.compile(r'^( *)File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>.+))?$')
#: Where code lies that the author did not write.
_INSTALLED = re.compile(r"[/\\](site-packages|dist-packages|python3\.\d+)[/\\]|^<frozen ")


def fold(text: str) -> str:
    """The traceback with one line, ``[4 frames of durable]``, for frames of durable that follow each other."""
    folded: list[str] = []
    for is_ours, group in groupby(_parts(text), key=lambda part: _is_ours(part[0])):
        frames = list(group)
        if is_ours:
            indent = re.match(" *", frames[0][0])
            count = f"{len(frames)} frame{'s' if len(frames) > 1 else ''}"
            folded.append(f"{indent[0] if indent else ''}[{count} of durable]")
        else:
            folded += [line for part in frames for line in part]
    return "\n".join(folded)


def authors_line(text: str) -> tuple[str, int, str] | None:
    """
    The file, the line and the function of the author's last frame before the error was raised.

    A traceback that crossed processes begins with that of the process that raised the error.  None when the traceback
    has no frame of the author.
    """
    raised, _, _ = text.partition("\nThat was raised in another process")
    frames = [match for line in raised.splitlines() if (match := _FRAME.match(line))]
    written = [match for match in frames if not _is_ours(match[0]) and not _INSTALLED.search(match["file"])]
    if not written:
        return None
    last = written[-1]
    return last["file"], int(last["line"]), last["function"] or ""


def _parts(text: str) -> Iterator[list[str]]:
    """The lines of a traceback: a frame with the source lines below it, or a single line of other text."""
    frame: list[str] = []
    indent = 0
    for line in text.splitlines():
        if (match := _FRAME.match(line)) is not None:
            if frame:
                yield frame
            frame, indent = [line], len(match[1])
        elif frame and line.startswith(" " * (indent + 1)):
            frame.append(line)
        else:
            if frame:
                yield frame
                frame = []
            yield [line]
    if frame:
        yield frame


def _is_ours(line: str) -> bool:
    """Whether a line begins a frame in durable, in this process or in another one that has durable installed."""
    match = _FRAME.match(line)
    if match is None:
        return False
    file = match["file"]
    return file.startswith((f"{_PACKAGE}/", f"{_PACKAGE}\\")) or "site-packages/durable/" in file
