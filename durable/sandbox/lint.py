"""
Find the calls in a workflow's source that no guard sees: ``datetime.now()``, ``from time import time``.

The type ``datetime`` cannot be changed, and a function that a module imported by name before the guards were installed
is not the guarded one.  So the source of a workflow is read once.  A name in it is followed through the function's own
globals, closure and imports to the object that it stands for, and a call of one of those very objects is reported.
A name that may stand for something else is skipped, as is a function without a source file: there are no false alarms.
A call within ``with unrestricted():`` is allowed.
"""

from __future__ import annotations

import ast
import builtins
import datetime
import inspect
import linecache
import sys
import weakref
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from ..errors import ConfigurationError
from . import guards, log_records
from .restrictions import CLOCK, RESTRICTIONS

log = log_records.get("durable")

#: Types whose objects may be looked up by equality.  Comparing others could run any code.
_FUNCTIONS = (BuiltinFunctionType, FunctionType, MethodType)

#: Modules whose functions a workflow looks up at each call, and so finds the guarded ones.
_GUARDED_MODULES = {restriction.module for restriction in RESTRICTIONS if restriction.owner is None}

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)

#: What a name stands for if that is not certain.
_UNKNOWN: Any = object()


@dataclass(frozen=True)
class ForbiddenCall:
    """A call in a workflow's source that a workflow may not make."""

    where: str
    call: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.call}() reads what no replay could repeat, and no guard sees it: {self.fix}."


def check(function: FunctionType, name: str, passthrough_modules: tuple[str, ...] = ()) -> None:
    """
    Check the body of the workflow *name*, and the functions nested in it.

    Raises:
        ConfigurationError: With every such call, its line and the fix.
    """
    if guards.is_passthrough(function.__module__, passthrough_modules):
        return
    findings = _findings(function, _forbidden(), seen=None)
    if findings:
        raise ConfigurationError("\n  ".join([f"Workflow {name} cannot be replayed.", *map(str, findings)]))


_warned: weakref.WeakSet[FunctionType] = weakref.WeakSet()


def warn_once(function: FunctionType, passthrough_modules: tuple[str, ...] = ()) -> None:
    """
    Log a warning for such calls in functions of the workflow's own module that it calls by name.

    This is not an error: steps may call such a function too.
    """
    if function in _warned:
        return
    _warned.add(function)
    if guards.is_passthrough(function.__module__, passthrough_modules):
        return
    for finding in _findings(function, _forbidden(), seen=set()):
        log.warning("%s", finding)


def _forbidden() -> dict[Any, tuple[str, str]]:
    """The objects that may not be called, each with the name of the call and the fix."""
    clocks = [(datetime.datetime, name) for name in ("now", "today", "utcnow")] + [(datetime.date, "today")]
    forbidden = {getattr(owner, name): (f"{owner.__name__}.{name}", CLOCK) for owner, name in clocks}
    # Guarded functions are not among these: they refuse the call when it is made.
    return forbidden | {function: (call, fix) for function, call, fix in guards.originals()}


def _findings(
    function: FunctionType, forbidden: Mapping[Any, tuple[str, str]], seen: set[CodeType] | None
) -> list[ForbiddenCall]:
    """The calls of *forbidden* in *function*; with *seen*, also in the functions of its module that it calls."""
    found = []
    for called, call in calls_in(function):
        if isinstance(called, _FUNCTIONS) and called in forbidden:
            found.append(ForbiddenCall(f"{function.__code__.co_filename}:{call.lineno}", *forbidden[called]))
        elif (
            seen is not None
            and isinstance(called, FunctionType)
            and called.__globals__ is function.__globals__
            and called.__code__ not in seen
        ):
            seen.add(called.__code__)
            found += _findings(called, forbidden, seen)
    return found


def calls_in(function: FunctionType) -> list[tuple[Any, ast.Call]]:
    """The objects that the source of *function* calls, where they are certain, each with the call."""
    node = _parsed(function)
    if node is None:
        return []
    try:
        closure = dict(inspect.getclosurevars(function).nonlocals)
    except ValueError:  # a cell that is filled later
        closure = {}
    # A free variable whose cell is empty is no global either.
    free = dict.fromkeys(function.__code__.co_freevars, _UNKNOWN)
    names = ChainMap[str, Any]({**free, **closure}, function.__globals__, vars(builtins))
    try:
        return list(_Scope(node, names).calls())
    except RecursionError:  # generated code, nested very deeply
        return []


def _parsed(function: FunctionType) -> _Function | None:
    """The syntax tree of a function, with the line numbers of its file; None if there is no source for it."""
    code = function.__code__
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, function.__globals__)[code.co_firstlineno - 1 :]
    if not lines:
        return None
    # The "if" lets an indented function keep its indentation.
    header = "if True:\n" if lines[0][:1].isspace() else ""
    source, tree = header + "".join(inspect.getblock(lines)), None
    for _ in range(3):
        try:
            tree = ast.parse(source)
            break
        except (SyntaxError, RecursionError):  # for example a lambda in the middle of a statement
            return None
        except SystemError:
            # Seen on Python 3.11.7, "AST constructor recursion depth mismatch": the next try works (CPython gh-106905).
            continue
    if tree is None:
        return None
    ast.increment_lineno(tree, code.co_firstlineno - 1 - header.count("\n"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            name, first = "<lambda>", node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # The line of a function's code is that of its first decorator.
            name, first = node.name, min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        else:
            continue
        if (name, first) == (code.co_name, code.co_firstlineno):
            found.append(node)
    return found[0] if len(found) == 1 else None


class _Scope:
    """A function or class in the source, and what the names in it stand for where that is certain."""

    def __init__(self, node: _Function | ast.ClassDef, outer: ChainMap[str, Any]) -> None:
        body = node.body if isinstance(node.body, list) else [node.body]
        self._nodes = list(_without_nested_scopes(body))
        bound = [(name, value) for each in self._nodes for name, value in _bindings(each)]
        if not isinstance(node, ast.ClassDef):
            bound += [(each.arg, _UNKNOWN) for each in ast.walk(node.args) if isinstance(each, ast.arg)]
        local: dict[str, Any] = {}
        for name, value in bound:
            # A name with two values may have either.
            local[name] = _UNKNOWN if name in local else value
        self._names = outer.new_child(local)
        self._body = body

    def calls(self) -> Iterator[tuple[Any, ast.Call]]:
        """The objects called in this scope and in those nested in it, each with the call."""
        yield from self._calls_in(self._body)

    def _calls_in(self, nodes: Iterable[ast.AST]) -> Iterator[tuple[Any, ast.Call]]:
        for node in nodes:
            if isinstance(node, ast.Call):
                called = self._value(node.func)
                if called is not _UNKNOWN:
                    yield called, node
            if isinstance(node, ast.With) and any(self._is_unrestricted(item.context_expr) for item in node.items):
                continue
            if isinstance(node, _SCOPES):
                yield from self._calls_in(_outside_body(node))
                yield from _Scope(node, self._names).calls()
            else:
                yield from self._calls_in(ast.iter_child_nodes(node))

    def _is_unrestricted(self, expression: ast.expr) -> bool:
        return isinstance(expression, ast.Call) and self._value(expression.func) is guards.unrestricted

    def _value(self, expression: ast.expr) -> Any:
        """The object that a name, or an attribute of one, stands for."""
        if isinstance(expression, ast.Name):
            return self._names.get(expression.id, _UNKNOWN)
        if not isinstance(expression, ast.Attribute):
            return _UNKNOWN
        owner = self._value(expression.value)
        # Only of modules, datetime and date: reading an attribute of other objects could run any code.
        if isinstance(owner, ModuleType) and owner.__name__ not in _GUARDED_MODULES:
            return vars(owner).get(expression.attr, _UNKNOWN)
        if owner is datetime.datetime or owner is datetime.date:
            return getattr(owner, expression.attr, _UNKNOWN)
        return _UNKNOWN


def _without_nested_scopes(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes and those below them that belong to the same scope; of a nested scope only its own node."""
    for node in nodes:
        yield node
        inner = _outside_body(node) if isinstance(node, _SCOPES) else ast.iter_child_nodes(node)
        yield from _without_nested_scopes(inner)


def _outside_body(node: ast.AST) -> list[ast.AST]:
    """What a function or class evaluates in the scope around it: decorators, defaults, base classes."""
    if isinstance(node, ast.ClassDef):
        return [*node.decorator_list, *node.bases, *node.keywords]
    assert isinstance(node, _Function)
    defaults = [*node.args.defaults, *(default for default in node.args.kw_defaults if default is not None)]
    return [*([] if isinstance(node, ast.Lambda) else node.decorator_list), *defaults]


def _bindings(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """The names that a node binds in its scope, each with its value if it is an imported module or class."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            value = sys.modules.get(alias.name if alias.asname else alias.name.partition(".")[0], _UNKNOWN)
            yield alias.asname or alias.name.partition(".")[0], value
    elif isinstance(node, ast.ImportFrom):
        module = None if node.level else sys.modules.get(node.module or "")
        for alias in node.names:
            value = vars(module).get(alias.name, _UNKNOWN) if module is not None else _UNKNOWN
            # A function that is imported while the workflow runs is the guarded one.
            certain = isinstance(value, ModuleType | type) or value is guards.unrestricted
            yield alias.asname or alias.name, value if certain else _UNKNOWN
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id, _UNKNOWN
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
        if node.name is not None:
            yield node.name, _UNKNOWN
    elif isinstance(node, ast.MatchAs | ast.MatchStar | ast.MatchMapping):
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name is not None:
            yield name, _UNKNOWN
    elif isinstance(node, ast.Global | ast.Nonlocal):
        yield from ((name, _UNKNOWN) for name in node.names)
