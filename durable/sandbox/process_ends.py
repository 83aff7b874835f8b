"""
The exceptions that end a process, told from those that the author's code raises.

``sys.exit()``, a ``BaseException`` of the author's and a ``KeyboardInterrupt`` that code raises are errors like any
other: the attempt, or the run, fails with them.  What ends the process is a closed list, and is passed on.
"""

from __future__ import annotations

import signal
import sys
import threading

#: Classes that end a process or a greenlet, by module.  A module that is not imported has raised nothing.
_CLASSES = {"celery.exceptions": ("WorkerShutdown", "WorkerTerminate"), "greenlet": ("GreenletExit",)}


class ProcessEnd(BaseException):
    """Raised where a test ends a process without ending the real one."""


def ends_process(error: BaseException) -> bool:
    """Whether *error* is the end of its process or greenlet, and no failure of the code that it passes through."""
    kind = type(error)  # isinstance() would ask the error's own __class__ too
    if issubclass(kind, Exception):
        return False
    if kind is SystemExit:
        return _is_exit_by_signal(error.code)  # type: ignore[attr-defined]
    if issubclass(kind, KeyboardInterrupt):
        return _may_be_ctrl_c()
    return issubclass(kind, (ProcessEnd, *_known_classes()))


def _is_exit_by_signal(code: object) -> bool:
    """What billiard's signal handler exits a prefork child with: -(256 - signal number)."""
    return isinstance(code, int) and -256 < code <= -192


def _may_be_ctrl_c() -> bool:
    """Python's own handler raises it in the main thread.  Celery's workers handle SIGINT themselves, or ignore it."""
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _known_classes() -> tuple[type, ...]:
    return tuple(
        getattr(module, name)
        for path, names in _CLASSES.items()
        if (module := sys.modules.get(path)) is not None
        for name in names
    )
