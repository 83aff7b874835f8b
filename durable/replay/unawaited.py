"""
Calls that a workflow did not await: the error for using one as a value, and the lines for the warning at the end.

A call of a step returns at once, and ``await`` gives its result.  Without ``await``, ``if charge(x):`` would always be
true, and nothing would wait for ``sleep("1s")`` on a line of its own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection, Generator
from types import CodeType
from typing import Any, NoReturn

from ..errors import NotAwaited
from ..sandbox import calling_line

#: Uses of a value that fail for a call, and the methods by which Python asks for them.
_USES = {
    "tested as a condition": "__bool__",
    "used in arithmetic": "__add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __matmul__ __rmatmul__ __truediv__"
    " __rtruediv__ __floordiv__ __rfloordiv__ __mod__ __rmod__ __divmod__ __rdivmod__ __pow__ __rpow__ __lshift__"
    " __rlshift__ __rshift__ __rrshift__ __and__ __rand__ __or__ __ror__ __xor__ __rxor__ __neg__ __pos__ __abs__"
    " __invert__ __int__ __float__ __complex__ __index__ __round__ __trunc__ __floor__ __ceil__",
    "compared": "__lt__ __le__ __gt__ __ge__",
    "iterated over": "__iter__ __len__ __contains__ __reversed__",
    "indexed": "__getitem__ __setitem__ __delitem__",
    "formatted as text": "__str__ __format__",
}


#: Sets an attribute of a future or a task that may be an ``AwaitOnly``.
set_own = object.__setattr__


class Unawaited:
    """The calls of a run that it has not awaited, by the ordinal of their future."""

    def __init__(self) -> None:
        # The path of the calling task, the call as text, and the instruction that made it.
        self._calls: dict[int, tuple[str, str, CodeType, int]] = {}
        #: Called with an ordinal when a call is awaited, cancelled, or given to asyncio.
        self.forget: Callable[[int, None], object] = self._calls.pop

    def add(self, call: AwaitOnly, path: str, called: str, frames: int) -> None:
        """
        Add a call of the task *path*.

        Args:
            called: The name of what was called.
            frames: How many frames the author's line is above the caller of this method.
        """
        set_own(call, "called", called)
        set_own(call, "unawaited", self)
        # The line is found when it is needed: replays add each of thousands of steps.
        frame = sys._getframe(frames + 1)
        self._calls[call.ordinal] = (path, called, frame.f_code, frame.f_lasti)

    def forget_task(self, path: str) -> None:
        """Forget the calls of a task that failed or was cancelled: it may not have come to its ``await``."""
        for ordinal in [each for each, (by, *_) in self._calls.items() if by == path]:
            del self._calls[ordinal]

    def lines(self, unfinished: Collection[str]) -> list[str]:
        """
        The calls that were never awaited, each as ``charge(...) (file:line)`` and once.

        Args:
            unfinished: The paths of tasks that go on, and may await their calls.
        """
        made = (each for each in self._calls.values() if each[0] not in unfinished)
        return list(dict.fromkeys(f"{shown(called)} ({_place(code, at)})" for _, called, code, at in made))

    def __bool__(self) -> bool:
        return bool(self._calls)


class AwaitOnly:
    """
    A future that may be awaited, kept, hashed and given to asyncio, and that raises NotAwaited as any other value.

    durable sets its own attributes with ``set_own``: ``__setattr__`` refuses the author's, and is slow.

    Attributes:
        called: The name of what was called.
        unawaited: Where the call is noted until it is awaited.
    """

    ordinal: int
    called = ""
    unawaited = Unawaited()

    def __await__(self) -> Generator[Any, None, Any]:
        self.unawaited.forget(self.ordinal, None)
        return asyncio.Future.__await__(self)  # type: ignore[arg-type]

    def add_done_callback(self, *args: Any, **kwargs: Any) -> None:
        """Note that asyncio, or the author, waits for the call."""
        self.unawaited.forget(self.ordinal, None)
        super().add_done_callback(*args, **kwargs)  # type: ignore[misc]

    def result(self) -> Any:
        self.unawaited.forget(self.ordinal, None)
        return super().result()  # type: ignore[misc]

    def exception(self) -> Any:
        self.unawaited.forget(self.ordinal, None)
        return super().exception()  # type: ignore[misc]

    def cancel(self, msg: Any | None = None) -> bool:
        self.unawaited.forget(self.ordinal, None)
        return super().cancel(msg=msg)  # type: ignore[misc, no-any-return]

    def __eq__(self, other: object) -> bool:
        if self is other or other is None or asyncio.isfuture(other):
            return self is other  # as a list of futures compares them
        raise NotAwaited(shown(self.called), "compared", calling_line())

    def __hash__(self) -> int:
        return self.ordinal

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise NotAwaited(shown(self.called), f"asked for its attribute {name!r}", calling_line())

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_"):  # asyncio sets those
            raise NotAwaited(shown(self.called), f"given an attribute {name!r}", calling_line())
        super().__setattr__(name, value)


def _refusal(use: str) -> Callable[..., NoReturn]:
    def refuse(self: AwaitOnly, *args: object) -> NoReturn:
        raise NotAwaited(shown(self.called), use, calling_line())

    return refuse


for _use, _names in _USES.items():
    for _name in _names.split():
        setattr(AwaitOnly, _name, _refusal(_use))


def shown(name: str) -> str:
    """A call as text: ``charge(...)``."""
    return f"{name.rpartition('.')[2]}(...)"


def _place(code: CodeType, instruction: int) -> str:
    """``file:line`` of an instruction of *code*."""
    found = (line for start, end, line in code.co_lines() if start <= instruction < end and line)
    return f"{code.co_filename}:{next(found, code.co_firstlineno)}"
