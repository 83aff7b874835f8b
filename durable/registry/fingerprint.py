"""
A hash of the code of a module as this process has loaded it: the version of its workflows.

It reads no file.  Comments, line numbers and paths do not count.  Another
version of Python compiles to other bytecode and counts as a change, which is
harmless.
"""

from __future__ import annotations

import hashlib
import operator
import sys
from functools import lru_cache
from types import CodeType
from typing import Any

#: By module, what it had when its hash was made, and the hash: each start of a run needs it.
_known: dict[str, tuple[list[Any], str]] = {}


def of_module(name: str) -> str:
    """The hash of the functions and classes that module *name* defines, as 16 hex digits."""
    members = dict(vars(sys.modules[name])) if name in sys.modules else {}
    values, found = list(members.values()), _known.get(name)
    if found is not None and len(found[0]) == len(values) and all(map(operator.is_, found[0], values)):
        return found[1]
    made = _hash_of(name, members)
    _known[name] = (values, made)
    return made


def _hash_of(name: str, members: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for key in sorted(members):
        module = _attribute(members[key], "__module__", None)
        if not isinstance(module, str) or module != name:
            continue
        for code in map(_code, _functions(members[key])):
            if code is not None:
                digest.update(f"{key}\n{_text(code)}\n".encode())
    return digest.hexdigest()[:16]


def _functions(member: Any) -> list[Any]:
    """What may have code: a function, the function of a step or a workflow, or all that a class has."""
    function = _attribute(member, "function", member)
    if not isinstance(member, type) or _attribute(function, "__code__", None) is not None:
        return [function]
    methods = [vars(member)[each] for each in sorted(vars(member))]
    return [_attribute(each, "__func__", each) for each in methods]  # of a static or class method


def _code(function: Any) -> CodeType | None:
    code = _attribute(function, "__code__", None)
    return code if type(code) is CodeType else None


def _attribute(value: Any, name: str, default: Any) -> Any:
    """An attribute of an object of the author's, *default* if it has none: its ``__getattr__`` may raise anything."""
    try:
        return getattr(value, name, default)
    except Exception:
        return default


def of_function(function: Any) -> str:
    """The hash of one function, as 16 hex digits."""
    return hashlib.sha256(_text(function.__code__).encode()).hexdigest()[:16]


# Cached, since a large module takes longer to hash than the rest of a start.
@lru_cache(maxsize=4096)
def _text(code: CodeType) -> str:
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {[_constant(c) for c in code.co_consts]}"


def _constant(value: object) -> str:
    if isinstance(value, CodeType):
        return _text(value)
    if isinstance(value, frozenset):
        return str(sorted(_constant(each) for each in value))
    if isinstance(value, tuple):
        return str([_constant(each) for each in value])
    return repr(value)
