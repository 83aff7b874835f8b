"""A function's signature that binds arguments quickly, since a replay binds those of every call again."""

from __future__ import annotations

import inspect
from typing import Any

_USUAL = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Signature(inspect.Signature):
    """``inspect.Signature`` with a fast path.  Unusual signatures and wrong calls are left to ``inspect``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        parameters = self.parameters.values()
        kinds = [each.kind for each in parameters]
        self._names = tuple(self.parameters)
        self._required = frozenset(each.name for each in parameters if each.default is each.empty)
        #: How many arguments may be given by position; -1 when a parameter is of an unusual kind.
        self._positional = kinds.count(_USUAL[0]) if set(kinds) <= set(_USUAL) else -1

    def bind(self, /, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        """The arguments by parameter name.  Raises TypeError where the call itself would."""
        if len(args) <= self._positional:
            given = dict(zip(self._names, args, strict=False))
            if kwargs:
                by_name = {**kwargs, **given}
                # In the order of the parameters.
                given = {name: by_name[name] for name in self._names if name in by_name}
            # With fewer than all, an argument is given twice, or is unknown.
            is_whole = not kwargs or len(given) == len(args) + len(kwargs)
            if is_whole and self._required <= given.keys():
                return inspect.BoundArguments(self, given)
        return super().bind(*args, **kwargs)
