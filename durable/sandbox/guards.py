"""
Refuse the calls that no replay could repeat: sockets, files, processes, threads, clocks, randomness.

While a workflow body runs in this thread, such a call raises ``NonDeterministicCall`` before it does anything.  Most of
the calls raise one of Python's audit events, which a hook sees; the other functions are wrapped (``restrictions`` has
both lists).  A call passes if it is made

- while a module is imported, a line is logged or a warning is shown (``_EXEMPT``);
- by one of the workflow's ``passthrough_modules``, or by code that one of them calls;
- within ``with unrestricted():``.

The guards do not see ``datetime.now()``, whose type cannot be changed, and functions that a module imported by name
(``from time import time``) before ``install``.  ``lint`` looks for these in the source.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import BuiltinFunctionType, FrameType, FunctionType, MethodType
from typing import Any

from .. import current
from ..errors import ConfigurationError, NonDeterministicCall
from .restrictions import AUDIT_EVENTS, IN_A_STEP, IN_PLACE, RESTRICTIONS, Restriction
from .source_lines import calling_frames, calling_line, function_name, line_of, workflow_frames

#: Packages whose calls always pass, together with the calls of code that they call.
_EXEMPT = ("importlib", "linecache", "logging", "pdb", "traceback", "warnings", "zoneinfo")

#: Every restriction of this process, and those whose module is not imported yet, so that nothing is wrapped.
_restrictions: list[Restriction] = list(RESTRICTIONS)
_pending: list[Restriction] = list(RESTRICTIONS)
_lock = threading.Lock()
_has_audit_hook = False

_is_unrestricted: ContextVar[bool] = ContextVar("durable_unrestricted", default=False)


def install() -> None:
    """
    Put the guards in place.  They stay until the process ends.

    Each turn calls this, to wrap the functions of modules that were imported meanwhile.
    """
    if not any(restriction.module in sys.modules for restriction in _pending):
        return
    global _has_audit_hook
    with _lock:
        if not _has_audit_hook:
            _has_audit_hook = True
            sys.addaudithook(_audit)
        for restriction in list(_pending):
            owner = _owner(restriction)
            if owner is None:
                continue
            for name in restriction.names.split():
                if hasattr(owner, name):
                    _wrap(owner, name, restriction)
            _pending.remove(restriction)


def forbid(*functions: str, fix: str = IN_A_STEP) -> None:
    """
    Refuse calls of more functions in workflow bodies::

        forbid("shop.prices:current_price", fix="await the step fetch_price()")

    Call it before your workflows are imported.  It counts for this process.

    Args:
        functions: ``module:function`` or ``module:Class.method``.  The module is imported.
        fix: What to do instead, for the text of the error.

    Raises:
        ConfigurationError: If a name has another form, or names something that cannot be wrapped.
    """
    for function in functions:
        restriction = _parsed(function, fix)
        name = restriction.names
        owner = _owner(restriction)
        found = getattr(owner, name, None)
        if not callable(found):
            raise ConfigurationError(f"forbid({function!r}): there is no such function in {restriction.module}.")
        if isinstance(found, type):
            raise ConfigurationError(
                f"forbid({function!r}): this is a class.  Forbid the methods that do the work, or"
                f' "{function}.__init__".'
            )
        with _lock:
            if restriction in _restrictions:
                continue
            try:
                _wrap(owner, name, restriction)
            except TypeError as error:
                raise ConfigurationError(
                    f"forbid({function!r}): a class written in C cannot be changed ({error}).  Forbid the function"
                    " of yours that calls it."
                ) from error
            _restrictions.append(restriction)


@contextlib.contextmanager
def unrestricted() -> Iterator[None]:
    """
    Let the calls in this block pass, in the task that runs it and in tasks that it creates::

        with unrestricted():
            started = datetime.now()

    The block runs again on every replay.  Do not let its results decide what the workflow does.
    """
    outer = _is_unrestricted.get()
    _is_unrestricted.set(True)
    try:
        yield
    finally:
        # Not by a token: a parked workflow may be closed in another context.
        _is_unrestricted.set(outer)


def refuse_in_workflow(call: str, fix: str = "move it into a step") -> None:
    """Raise NonDeterministicCall if a workflow body runs in this thread.  For functions of the library itself."""
    if current.workflow_loop() is not None:
        raise NonDeterministicCall(call, fix, calling_line())


def originals() -> Iterator[tuple[Any, str, str]]:
    """The functions of modules that may never be called, without their wrappers: function, name of the call, fix."""
    for restriction in _restrictions:
        module = sys.modules.get(restriction.module)
        if module is not None and restriction.owner is None and restriction.harmless_argument is None:
            for name in restriction.names.split():
                found = getattr(module, name, None)
                if found is not None:
                    yield getattr(found, "durable_original", found), restriction.call(name), restriction.fix


def is_passthrough(module: str, passthrough_modules: tuple[str, ...]) -> bool:
    """Whether *module* is one of *passthrough_modules*, or in a package that is."""
    return any(module == each or module.startswith(f"{each}.") for each in passthrough_modules)


# Refusing


def _audit(event: str, args: tuple[Any, ...]) -> None:
    call = AUDIT_EVENTS.get(event)
    if call is None or current.workflow_loop() is None:
        return
    # ZoneInfo reads its file in C code, which has no frame.
    if not (event == "open" and "/zoneinfo/" in str(args[0])):
        _refuse(call, IN_A_STEP)


def _refuse(call: str, fix: str) -> None:
    """Raise NonDeterministicCall, unless the call may pass."""
    if _is_unrestricted.get():
        return
    # The caller is the first frame that is not of this file.
    caller: FrameType = sys._getframe(1)
    while caller.f_globals is globals() and caller.f_back is not None:
        caller = caller.f_back
    passthrough_modules = current.workflow_loop().passthrough_modules  # type: ignore[union-attr]
    for frame in workflow_frames(caller):
        module = frame.f_globals.get("__name__") or ""
        if module.partition(".")[0] in _EXEMPT or is_passthrough(module, passthrough_modules):
            return
    author, library = calling_frames(caller)
    if library is not None:
        # The author calls a library, which makes the call: name what the author wrote, who can only move that.
        call, fix = function_name(library) or call, IN_A_STEP if fix in IN_PLACE else fix
    raise NonDeterministicCall(call, fix, None if author is None else line_of(author))


# Wrapping


def _parsed(function: str, fix: str) -> Restriction:
    """The restriction of one function, by its name in ``forbid``; its module is imported."""
    module, _, path = function.partition(":")
    owner, _, name = path.rpartition(".")
    if not all(map(str.isidentifier, [*module.split("."), name, *([owner] if owner else [])])):
        raise ConfigurationError(f"forbid({function!r}): write it as module:function or module:Class.method.")
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(f"forbid({function!r}): {module} cannot be imported: {error}.") from error
    return Restriction(module=module, owner=owner or None, names=name, fix=fix)


def _owner(restriction: Restriction) -> Any:
    """The module or class that has the functions; None if it is not imported."""
    module = sys.modules.get(restriction.module)
    return getattr(module, restriction.owner, None) if restriction.owner else module


def _wrap(owner: Any, name: str, restriction: Restriction) -> None:
    """Put a guard in the place of one function."""
    found = inspect.getattr_static(owner, name, None)
    if isinstance(found, classmethod | staticmethod):
        setattr(owner, name, type(found)(_guard(found.__func__, restriction, name)))
    else:
        setattr(owner, name, _guard(getattr(owner, name), restriction, name))


def _guard(function: Any, restriction: Restriction, name: str) -> Any:
    call, fix, position = restriction.call(name), restriction.fix, restriction.harmless_argument

    def check(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        is_harmless = position is not None and (kwargs or (len(args) > position and args[position] is not None))
        if not is_harmless:
            _refuse(call, fix)

    if restriction.owner is None and isinstance(function, BuiltinFunctionType | MethodType):
        return Builtin(function, check, restriction.module, name)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if current.workflow_loop() is not None:
            check(args, kwargs)
        return function(*args, **kwargs)

    wrapper.durable_original = function  # type: ignore[attr-defined]
    return wrapper


def unguarded(function: Any) -> Any:
    """The function that a guard of ours calls; a function without one is returned as it is."""
    if type(function) is FunctionType and function.__code__.co_filename == __file__:
        return getattr(function, "durable_original", function)
    return function


class Builtin:
    """
    The guard of a builtin function, or of a bound method that a module has as a function.

    Like a builtin, and unlike a function, it does not become a method when a class has it as an attribute
    (``class Limiter: clock = time.monotonic``).  It is pickled by its name.
    """

    def __init__(self, function: Callable[..., Any], check: Callable[..., None], module: str, name: str) -> None:
        functools.update_wrapper(self, function)
        self.durable_original = function
        self._check = check
        self.__module__, self.__qualname__ = module, name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if current.workflow_loop() is not None:
            self._check(args, kwargs)
        return self.durable_original(*args, **kwargs)

    def __reduce__(self) -> str:
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<guarded {self.__module__}.{self.__qualname__}>"
