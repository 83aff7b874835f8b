"""
Tell the exceptions that end a process from errors of the author's code.

``sys.exit()``, an author's own ``BaseException`` and a ``KeyboardInterrupt`` raised by code are errors like any other:
the attempt or the run fails with them.  Only the exceptions listed here end the process, and are passed on.
"""

from __future__ import annotations

import signal
import sys
import threading

#: Classes that end a process or a greenlet, by module.  A module that is not imported has raised nothing.
_CLASSES = {"celery.exceptions": ("WorkerShutdown", "WorkerTerminate"), "greenlet": ("GreenletExit",)}


class ProcessEnd(BaseException):
    """Raised by tests to end a simulated process without ending the real one."""


def ends_process(error: BaseException) -> bool:
    """Whether *error* ends its process or greenlet, and is not a failure of the code that raised it."""
    kind = type(error)  # isinstance() would also ask the error's own __class__
    if issubclass(kind, Exception):
        return False
    if kind is SystemExit:
        # billiard's signal handler exits a prefork child with -(256 - signal number).
        code: object = error.code  # type: ignore[attr-defined]
        return isinstance(code, int) and -256 < code <= -192
    if issubclass(kind, KeyboardInterrupt):
        # Ctrl-C: Python's own handler raises it, in the main thread.  Celery's workers handle SIGINT themselves.
        is_main = threading.current_thread() is threading.main_thread()
        return is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    imported = ((sys.modules.get(module), names) for module, names in _CLASSES.items())
    classes = (getattr(module, name) for module, names in imported if module is not None for name in names)
    return issubclass(kind, (ProcessEnd, *classes))
