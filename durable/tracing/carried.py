"""
What a run carries with it from its start into its steps, as one text in the run's row.

The text is JSON: what the propagator of OpenTelemetry has injected, by header name, and the values of the context
variables that the application has chosen.
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from .. import codec

#: The longest text that a run carries, in characters: every step reads it.
LIMIT = 16 * 1024

_NOT_SET: Any = object()


@dataclass(frozen=True, slots=True)
class Carried:
    """
    What a run carries.

    Attributes:
        headers: What the propagator has injected, by header name.
        variables: Encoded values of context variables, by name.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    def to_text(self) -> str | None:
        """
        Return the text for the run's row; None when there is nothing to carry.

        Raises:
            ValueError: The context variables are too long.
        """
        if not self.headers and not self.variables:
            return None
        text = json.dumps({"headers": dict(self.headers), "variables": dict(self.variables)}, separators=(",", ":"))
        if len(text) <= LIMIT:
            return text
        if not self.variables:
            # Baggage that is too long costs the run its trace, and nothing else.
            return None
        sizes = ", ".join(f"{name} ({len(value)} characters)" for name, value in self.variables.items())
        raise ValueError(
            f"The context variables and the trace context of a run take {len(text)} characters, and {LIMIT} are"
            f" allowed, because every step reads them.  The variables are {sizes}.  Pass large values as arguments."
        )


@lru_cache(maxsize=1024)
def parse(text: str | None) -> Carried:
    """Return what ``to_text`` has made a text of."""
    found = json.loads(text) if text else {}
    return Carried(found.get("headers", {}), found.get("variables", {}))


class ContextVariables:
    """The context variables of the application whose values cross from ``start`` into the run's steps."""

    def __init__(self, variables: Sequence[contextvars.ContextVar[Any]] = ()) -> None:
        self._variables = {each.name: each for each in variables}

    def capture(self) -> dict[str, str]:
        """
        Return the values that are set in the current context, encoded.

        Raises:
            SerializationError: A value has no JSON form.
        """
        if not self._variables:
            return {}
        current = contextvars.copy_context()
        found = {name: current.get(each, _NOT_SET) for name, each in self._variables.items()}
        return {
            name: codec.encode(value, f"contextvars.{name}") for name, value in found.items() if value is not _NOT_SET
        }

    def entered(self, text: str | None) -> AbstractContextManager[None]:
        """
        Set the variables to the values that a run carries, for the block.

        Raises:
            SerializationError: A value cannot be read here, because its class is missing.
        """
        values = parse(text).variables if self._variables else {}
        set_here = [
            (variable, variable.set(codec.decode(values[name])))
            for name, variable in self._variables.items()
            if name in values
        ]
        return _Entered(set_here)


class _Entered(AbstractContextManager[None]):
    """
    Resets variables at the end of the block.

    This is no generator, because contextlib would set the traceback of an error that leaves the block, and an
    author's frozen exception refuses that.
    """

    def __init__(self, set_here: list[tuple[contextvars.ContextVar[Any], contextvars.Token[Any]]]) -> None:
        self._set_here = set_here

    def __exit__(self, *_: object) -> None:
        for variable, token in reversed(self._set_here):
            variable.reset(token)
