"""A function's signature that binds arguments quickly, since a replay binds those of every call again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

_USUAL = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Signature(inspect.Signature):
    """``inspect.Signature`` with a fast path.  Unusual signatures and wrong calls are left to ``inspect``."""

    def bind(self, /, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        """The arguments by parameter name.  Raises TypeError where the call itself would."""
        bound = self._bound(args, kwargs)
        return super().bind(*args, **kwargs) if bound is None else inspect.BoundArguments(self, bound)

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The arguments in the order of the parameters; None when the fast path does not apply."""
        names = self._names
        if len(args) > self._positional:
            return None
        given = dict(zip(names, args, strict=False))
        if kwargs:
            by_name = {**kwargs, **given}
            given = {name: by_name[name] for name in names if name in by_name}
            if len(given) != len(args) + len(kwargs):
                return None  # an argument is given twice, or is unknown
        return given if self._required <= given.keys() else None

    @functools.cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(self.parameters)

    @functools.cached_property
    def _positional(self) -> int:
        """How many arguments may be given by position; -1 when a parameter is of an unusual kind."""
        kinds = [each.kind for each in self.parameters.values()]
        return kinds.count(_USUAL[0]) if set(kinds) <= set(_USUAL) else -1

    @functools.cached_property
    def _required(self) -> frozenset[str]:
        return frozenset(each.name for each in self.parameters.values() if each.default is each.empty)
