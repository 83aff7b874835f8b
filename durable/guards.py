"""
What a workflow body may not call: sockets, files, processes, clocks, randomness.

A replay could not repeat the outcome, so the call raises ``NonDeterministicCall``
before it does anything.  Most of it is Python's own audit events; clocks and
randomness have none, so a few functions are wrapped.  Everything passes
through unless a workflow's loop runs in this thread, and also while a module
is imported, a line is logged or a warning is shown, whoever's body did it.

What escapes: ``datetime.now()`` (its type cannot be changed), and functions
that a module took by name (``from time import time``) before ``install``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from . import current
from .errors import NonDeterministicCall

_IN_A_STEP = "move it into a step"
_CLOCK = "use durable.now(), which is the same on every replay"
_RANDOM = "use durable.random(), which draws the same on every replay"

#: Audit events, and what their calls are named in the error.
_AUDITED = {
    "open": "open",
    "os.fork": "os.fork",
    "os.forkpty": "os.forkpty",
    "os.listdir": "os.listdir",
    "os.mkdir": "os.mkdir",
    "os.exec": "os.exec",
    "os.posix_spawn": "os.posix_spawn",
    "os.remove": "os.remove",
    "os.rename": "os.rename",
    "os.rmdir": "os.rmdir",
    "os.scandir": "os.scandir",
    "os.spawn": "os.spawn",
    "os.system": "os.system",
    "socket.__new__": "socket.socket",
    "socket.connect": "socket.connect",
    "socket.getaddrinfo": "socket.getaddrinfo",
    "socket.gethostbyname": "socket.gethostbyname",
    "socket.sendto": "socket.sendto",
    "sqlite3.connect": "sqlite3.connect",
    "subprocess.Popen": "subprocess.Popen",
}

#: Functions by module that are wrapped, with the fix that the error names.
_WRAPPED: dict[str, tuple[str, str]] = {
    "time": ("time time_ns monotonic monotonic_ns perf_counter perf_counter_ns", _CLOCK),
    "random": (
        "random randint randrange choice choices sample shuffle uniform gauss getrandbits randbytes",
        _RANDOM,
    ),
    "uuid": ("uuid1 uuid4", "use durable.uuid4(), which is the same on every replay"),
    "os": ("urandom", _RANDOM),
    "secrets": ("token_bytes token_hex token_urlsafe randbelow randbits choice", _IN_A_STEP),
}

#: Modules whose calls, and those below them, are let through.
_EXEMPT = ("importlib", "linecache", "logging", "traceback", "warnings", "zoneinfo")


def _refuse(call: str, fix: str) -> None:
    if current.workflow_loop() is None:
        return
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] in _EXEMPT:
            return
        if module == "durable.loop":
            break
        frame = frame.f_back
    raise NonDeterministicCall(call, fix)


def _audit(event: str, _args: tuple[Any, ...]) -> None:
    call = _AUDITED.get(event)
    if call is not None:
        _refuse(call, _IN_A_STEP)


def _guarded(function: Callable[..., Any], call: str, fix: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if current.workflow_loop() is not None:
            _refuse(call, fix)
        return function(*args, **kwargs)

    return guarded


def _wrap(module_name: str, names: str, fix: str) -> None:
    # The core imports none of these modules.  Whoever wants to call one has: `sys.modules` holds it.
    module = sys.modules.get(module_name)
    for name in names.split() if module is not None else ():
        setattr(module, name, _guarded(getattr(module, name), f"{module_name}.{name}", fix))


_installed: list[bool] = []


def install() -> None:
    """Put the guards in place, once per process.  They cannot be taken away again."""
    if _installed:
        return
    _installed.append(True)
    _wrap("time", "sleep", "await durable.sleep(...)")
    for module_name, (names, fix) in _WRAPPED.items():
        _wrap(module_name, names, fix)
    sys.addaudithook(_audit)
