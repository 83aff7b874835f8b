"""``Value``: the name of a published value, with its type."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

from .. import codec
from ..errors import ConfigurationError

T = TypeVar("T")

#: Characters of a name.
NAME_LIMIT = 255


class Value(Generic[T]):
    """
    The name of a value that a run publishes, with the type that the value has.

    ``publish`` and ``Run.value`` take it in place of the name.  ``str(value)`` is the name.
    """

    @overload
    def __init__(self, name: str, type: type[T]) -> None: ...
    @overload
    def __init__(self, name: str, type: Any) -> None: ...
    def __init__(self, name: str, type: Any) -> None:
        """
        Args:
            name: 1 to 255 characters.
            type: Any type that pydantic validates.

        Raises:
            ConfigurationError: The name is invalid, or pydantic cannot check values against the type.
        """
        try:
            self.name = check_name(name)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"Value({name!r}): {error}") from None
        if not codec.is_checked(type):
            raise ConfigurationError(
                f"Value({name!r}, {type!r}): pydantic cannot check values against this type, so any value would pass."
                "  Use a dataclass, a TypedDict, a pydantic model or a builtin type, or the name alone for any value."
            )
        self.type = type

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Value({self.name!r}, {self.type!r})"

    def fit(self, value: Any) -> T:
        """*value*, converted to the type by pydantic.  Raises SerializationError."""
        return codec.fit(value, self.type, self.name)  # type: ignore[no-any-return]


def check_name(name: object, what: str = "published value", kind: str = "Value") -> str:
    """
    The name of a published value, or of something else that a run has by name, checked.

    Raises:
        TypeError: It is no str.
        ValueError: It is empty, too long, or cannot be stored.
    """
    if not isinstance(name, str):
        raise TypeError(f"The name of a {what} must be a str, or a {kind}, not {name!r}.")
    # Some databases pad text, so that "a" and "a " are the same name.
    if not 1 <= len(name) <= NAME_LIMIT or name != name.strip() or not name.isprintable():
        raise ValueError(
            f"The name of the {what} {name!r} must have 1 to {NAME_LIMIT} printable characters, and no spaces"
            " at its ends."
        )
    return name
