"""
Forks: what a child process must not take over from its parent.

A fork copies the memory, but only the thread that forks.  So a lock that another thread held stays locked in the child
for ever, a thread that an object started is not there, and connections are shared with the parent.  An object with any
of these registers a method that makes it new:

    forks.call_in_child(self._begin)

The method runs in the child before anything else does.  It must not block, do I/O, or start a thread.
"""

from __future__ import annotations

import importlib
import itertools
import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import MethodType
from typing import Any

_numbers = itertools.count()
_methods: dict[int, weakref.WeakMethod[Callable[[], object]]] = {}
_functions: list[Callable[[], object]] = []


def call_in_child(reset: Callable[[], object]) -> None:
    """
    Call *reset* in each child process, right after the fork.

    A method of an object is called as long as the object lives, and does not keep it alive.
    """
    if not isinstance(reset, MethodType):
        _functions.append(reset)
        return
    number = next(_numbers)
    _methods[number] = weakref.WeakMethod(reset, lambda _: _methods.pop(number, None))


def _reset_all() -> None:
    for function in tuple(_functions):
        function()
    for reference in tuple(_methods.values()):
        method = reference()
        if method is not None:
            method()


os.register_at_fork(after_in_child=_reset_all)

# uWSGI forks its workers without Python's hooks, unless py-call-uwsgi-fork-hooks is set.  Outside of uWSGI this module
# cannot be imported; in uWSGI without a master process it raises, and nothing is forked after the import.
with suppress(Exception):
    uwsgi: Any = importlib.import_module("uwsgidecorators")
    uwsgi.postfork(_reset_all)
