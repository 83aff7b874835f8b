"""
A workflow body is refused what no replay could repeat: sockets, files, processes, threads, clocks, randomness.

The call raises ``NonDeterministicCall`` before it does anything.  Most of it is Python's own audit
events; what has none is wrapped (``guarded`` has the lists).  Everything passes through unless a
workflow's loop runs in this thread, and also while a module is imported, a line is logged or a
warning is shown, whoever's body did it.

What escapes: ``datetime.now()`` (its type cannot be changed), and functions that a module took by
name (``from time import time``) before ``install``.  ``lint`` looks for these.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, FrameType, MethodType
from typing import Any

from .. import current
from ..current import workflow_loop
from ..errors import NonDeterministicCall
from .restrictions import AUDITED, GUARDED, IN_A_STEP, IN_PLACE, Guarded
from .source_lines import calling_line, line_of

#: Modules whose calls, and those below them, are let through.
_EXEMPT = ("importlib", "linecache", "logging", "pdb", "traceback", "warnings", "zoneinfo")

#: What is not loaded yet, so not wrapped.
_missing: list[Guarded] = list(GUARDED)
_lock = threading.Lock()
_audited: list[bool] = []


def install() -> None:
    """
    Put the guards in place.  They cannot be taken away again.

    Doing it again costs nothing, and wraps what was imported meanwhile.
    """
    if not any(guarded.module in sys.modules for guarded in _missing):
        return
    with _lock:
        if not _audited:
            _audited.append(True)
            sys.addaudithook(_audit)
        for guarded in list(_missing):
            if _wrap(guarded):
                _missing.remove(guarded)


def stock() -> Iterator[tuple[Any, str, str]]:
    """The functions that may never be called, as they are without a guard: object, name of the call, fix."""
    for guarded in GUARDED:
        if guarded.module in sys.modules and guarded.owner is None and guarded.given is None:
            for name in guarded.names.split():
                found = getattr(sys.modules[guarded.module], name, None)
                if found is not None:
                    yield getattr(found, "durable_stock", found), guarded.call(name), guarded.fix


def _audit(event: str, args: tuple[Any, ...]) -> None:
    call = AUDITED.get(event)
    if call is not None and current.workflow_loop() is not None and not _is_time_zone(event, args):
        _refuse(call, IN_A_STEP)


def _is_time_zone(event: str, args: tuple[Any, ...]) -> bool:
    """ZoneInfo reads its file in C, where no frame tells of it."""
    return event == "open" and "/zoneinfo/" in str(args[0])


def _refuse(call: str, fix: str) -> None:
    caller = _caller()
    frame: FrameType | None = caller
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] in _EXEMPT:
            return
        if module == "durable.replay.loop":
            break
        frame = frame.f_back
    where = calling_line(caller)
    raise NonDeterministicCall(call, IN_A_STEP if fix in IN_PLACE and where != line_of(caller) else fix, where)


def _caller() -> FrameType:
    """Who made the call: the first frame that is none of this file's."""
    frame = sys._getframe(1)
    while frame.f_globals is globals() and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _wrap(guarded: Guarded) -> bool:
    """Wrap the functions; False where they are not there yet."""
    module = sys.modules.get(guarded.module)
    owner = getattr(module, guarded.owner, None) if guarded.owner else module
    if owner is None:
        return False
    for name in guarded.names.split():
        function = getattr(owner, name, None)
        if function is not None:
            setattr(owner, name, _guard(function, guarded, name))
    return True


def _guard(function: Any, guarded: Guarded, name: str) -> Any:
    check = _check(guarded, name)
    if guarded.owner is None and isinstance(function, BuiltinFunctionType | MethodType):
        return Builtin(function, check, guarded.module, name)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if current.workflow_loop() is not None:
            check(args, kwargs)
        return function(*args, **kwargs)

    wrapper.durable_stock = function  # type: ignore[attr-defined]
    return wrapper


def _check(guarded: Guarded, name: str) -> Callable[[tuple[Any, ...], dict[str, Any]], None]:
    call, given, fix = guarded.call(name), guarded.given, guarded.fix

    def check(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        harmless = given is not None and (kwargs or (len(args) > given and args[given] is not None))
        if not harmless:
            _refuse(call, fix)

    return check


class Builtin:
    """
    Stands for a builtin function, or a bound method, in its module.

    Like these, and unlike a function, it does not become a method where a class keeps it
    (``class Limiter: clock = time.monotonic``); it is pickled by its name.
    """

    def __init__(self, function: Callable[..., Any], check: Callable[..., None], module: str, name: str) -> None:
        functools.update_wrapper(self, function)
        self.durable_stock = function
        self._check = check
        self.__module__, self.__qualname__ = module, name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if current.workflow_loop() is not None:
            self._check(args, kwargs)
        return self.durable_stock(*args, **kwargs)

    def __reduce__(self) -> str:
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<guarded {self.__module__}.{self.__qualname__}>"


def refuse_in_workflow(call: str, fix: str = "move it into a step") -> None:
    """Raise NonDeterministicCall when a workflow body is running in this thread."""
    if workflow_loop() is not None:
        raise NonDeterministicCall(call, fix, calling_line())
