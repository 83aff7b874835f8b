"""
What no guard sees while a workflow runs is looked for in its code: ``datetime.now()``, ``from time import time``.

The type ``datetime`` cannot be changed, and a function that a module took by name before the guards
came is not the guarded one.  So the code of a workflow is read once for calls whose name leads, through
the function's own globals, closure and imports, to one of those very objects.  A call is found where a
name is loaded and a call begins at the same column.  What cannot be resolved is passed over: there are
no false alarms, and no source file is read.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import dis
import inspect
import itertools
import sys
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from ..errors import ConfigurationError
from . import guards, log_records
from .restrictions import CLOCK, GUARDED

log = log_records.get("durable")

#: Types of which an equal object is looked up; asking others to compare themselves could run anything.
_FUNCTIONS = (BuiltinFunctionType, FunctionType, MethodType)

#: Modules whose functions are looked up at each call, so that the guarded ones are found.
_GUARDED = {guarded.module for guarded in GUARDED if guarded.owner is None}

_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_CALLS = ("CALL", "CALL_KW", "CALL_FUNCTION_EX")

_MISSING: Any = object()


@dataclass(frozen=True)
class Finding:
    """A call that a workflow's code makes and may not make."""

    where: str
    call: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.call}() reads what no replay could repeat, and no guard sees it: {self.fix}."


def check(function: FunctionType, name: str) -> None:
    """
    Look at the body of the workflow *name*, and at the functions nested in it.

    Raises:
        ConfigurationError: With every such call, its line and the fix.
    """
    found = _findings(function, _known(), seen=None)
    if found:
        raise ConfigurationError("\n  ".join([f"Workflow {name} cannot be replayed.", *map(str, found)]))


_warned: weakref.WeakSet[FunctionType] = weakref.WeakSet()


def warn_once(function: FunctionType) -> None:
    """
    Log a warning for such calls in functions of its own module that the workflow calls by name.

    No error: such a helper may have a step for another caller, and ask there.
    """
    if function in _warned:
        return
    _warned.add(function)
    for finding in _findings(function, _known(), seen=set()):
        log.warning("%s", finding)


def _known() -> dict[Any, tuple[str, str]]:
    """The objects that may not be called: name of the call, fix."""
    moments = [(datetime.datetime, name) for name in ("now", "today", "utcnow")] + [(datetime.date, "today")]
    known = {getattr(owner, name): (f"{owner.__name__}.{name}", CLOCK) for owner, name in moments}
    # A guarded one is not among them: it refuses by itself.
    return known | {function: (call, fix) for function, call, fix in guards.stock()}


def _findings(
    function: FunctionType, known: Mapping[Any, tuple[str, str]], seen: set[CodeType] | None
) -> list[Finding]:
    """The calls of *known* in *function*; with *seen*, also in the functions of its module that it calls."""
    found = []
    for code, called, line in _calls(function.__code__, _closure(function), function.__globals__):
        if isinstance(called, _FUNCTIONS) and called in known:
            found.append(Finding(f"{code.co_filename}:{line}", *known[called]))
        elif seen is not None and _is_helper(called, function) and called.__code__ not in seen:
            seen.add(called.__code__)
            found += _findings(called, known, seen)
    return found


def _is_helper(called: Any, caller: FunctionType) -> bool:
    return isinstance(called, FunctionType) and called.__globals__ is caller.__globals__


def _closure(function: FunctionType) -> dict[str, Any]:
    try:
        return dict(inspect.getclosurevars(function).nonlocals)
    except ValueError:  # a cell that is filled later
        return {}


def _calls(code: CodeType, outer: Mapping[str, Any], module: Mapping[str, Any]) -> Iterator[tuple[CodeType, Any, int]]:
    """What the code, and the code nested in it, calls by names: where, the object, the line."""
    instructions = [each for each in dis.get_instructions(code) if each.opname != "EXTENDED_ARG"]
    names = _Names(_imports(instructions), outer, module)
    calls = {_start(each) for each in instructions if each.opname in _CALLS}
    value = _MISSING
    for each, following in itertools.pairwise(instructions):
        value = names.load(each, value)
        if value is not _MISSING and following.opname not in _ATTRIBUTES and _start(each) in calls:
            yield code, value, _start(each)[0] or 0
    inner = {name: value for name, value in outer.items() if name not in code.co_cellvars}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _calls(constant, inner, module)


def _start(instruction: dis.Instruction) -> tuple[int | None, int | None]:
    """Line and column of an expression; the column is None in code that was compiled without."""
    positions = instruction.positions
    if positions is None or positions.col_offset is None:
        return (None, id(instruction))  # begins where no other does
    return (positions.lineno, positions.col_offset)


class _Names:
    """What the names in one function's code stand for, where that is certain."""

    def __init__(self, imported: Mapping[str, Any], outer: Mapping[str, Any], module: Mapping[str, Any]) -> None:
        self._imported = imported
        self._outer = outer
        self._module = module

    def load(self, instruction: dis.Instruction, before: Any) -> Any:
        """What the instruction puts on the stack, after one that put *before* there."""
        name, operation = _names(instruction)[-1], instruction.opname
        if operation == "LOAD_GLOBAL":
            return self._module.get(name, getattr(builtins, name, _MISSING))
        if operation == "LOAD_DEREF":
            return self._outer.get(name, _MISSING)
        if "LOAD_FAST" in operation:
            return self._imported.get(name, _MISSING)
        if operation in _ATTRIBUTES:
            return _attribute(before, name)
        return _MISSING


def _imports(instructions: list[dis.Instruction]) -> dict[str, Any]:
    """Local names that get a value once, by an import."""
    stored = collections.Counter(name for each in instructions for name in _stored(each))
    found: dict[str, Any] = {}
    module = value = _MISSING
    for n, each in enumerate(instructions):
        if each.opname == "IMPORT_NAME":
            module = value = _imported(each.argval, *(before.argval for before in instructions[n - 2 : n]))
        elif each.opname == "IMPORT_FROM":
            value = vars(module).get(each.argval, _MISSING) if isinstance(module, ModuleType) else _MISSING
        else:
            for name in _stored(each)[:1]:
                # A function that is imported while the workflow runs is the guarded one.
                if stored[name] == 1 and isinstance(value, ModuleType | type):
                    found[name] = value
            value = _MISSING
    return found


def _imported(name: str, level: Any, names: Any) -> Any:
    """The module that ``import name`` gives; of ``import a.b`` and relative ones it is not certain."""
    return _MISSING if level or (names is None and "." in name) else sys.modules.get(name, _MISSING)


def _stored(instruction: dis.Instruction) -> tuple[str, ...]:
    """The local names that an instruction stores; from Python 3.13 on it may do two things at once."""
    if "STORE_FAST" not in instruction.opname:
        return ()
    names = _names(instruction)
    return names if instruction.opname == "STORE_FAST_STORE_FAST" else names[:1]


def _names(instruction: dis.Instruction) -> tuple[str, ...]:
    value = instruction.argval
    return value if isinstance(value, tuple) and value else (str(value),)


def _attribute(owner: Any, name: str) -> Any:
    """An attribute of a module, or of ``datetime`` and ``date``: looking at others could run anything."""
    if isinstance(owner, ModuleType) and owner.__name__ not in _GUARDED:
        return vars(owner).get(name, _MISSING)
    return getattr(owner, name, _MISSING) if owner in (datetime.datetime, datetime.date) else _MISSING
