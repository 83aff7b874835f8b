"""``Stream``: the name of a stream, with the type of its items and its options."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar, overload

from .. import codec
from ..errors import ConfigurationError
from .values import check_name

T = TypeVar("T")

#: How many items of a stream stay, unless it says so itself.
KEEP = 10_000

OnRetry = Literal["keep", "discard"]
Until = Literal["run", "step"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamOptions:
    """
    The options of a stream.

    Attributes:
        keep: How many items stay; None: all.
        on_retry: What becomes of the items of a step's earlier attempts when a later one emits: keep or discard.
        until: What ends the stream: the run, or the step that emits.
    """

    keep: int | None = KEEP
    on_retry: OnRetry = "keep"
    until: Until = "run"

    def __post_init__(self) -> None:
        if self.keep is not None and (not isinstance(self.keep, int) or isinstance(self.keep, bool) or self.keep < 1):
            raise ValueError(f"keep={self.keep!r} must be a whole number from 1 on, or None to keep all items.")
        if self.on_retry not in ("keep", "discard"):
            raise ValueError(f'on_retry={self.on_retry!r} must be "keep" or "discard".')
        if self.until not in ("run", "step"):
            raise ValueError(f'until={self.until!r} must be "run" or "step".')


class Stream(Generic[T]):
    """
    The name of a stream, with the type of its items and its options.

    ``emit``, ``close_stream`` and ``Run.stream`` take it in place of the name.  ``str(stream)`` is the name.
    """

    @overload
    def __init__(
        self, name: str, type: type[T], *, keep: int | None = ..., on_retry: OnRetry = ..., until: Until = ...
    ) -> None: ...
    @overload
    def __init__(
        self, name: str, type: Any, *, keep: int | None = ..., on_retry: OnRetry = ..., until: Until = ...
    ) -> None: ...
    def __init__(
        self, name: str, type: Any, *, keep: int | None = KEEP, on_retry: OnRetry = "keep", until: Until = "run"
    ) -> None:
        """
        Args:
            name: 1 to 255 characters.
            type: Any type that pydantic validates.
            keep: How many items stay; older ones are deleted.  None: all stay.
            on_retry: ``"discard"`` deletes the items of a step's earlier attempts when the next one emits its first.
            until: ``"step"`` closes the stream with the outcome of the step that emits.

        Raises:
            ConfigurationError: The name or an option is invalid, or pydantic cannot check items against the type.
        """
        try:
            self.name = check_stream_name(name)
            self.options = StreamOptions(keep=keep, on_retry=on_retry, until=until)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"Stream({name!r}): {error}") from None
        if not codec.is_checked(type):
            raise ConfigurationError(
                f"Stream({name!r}, {type!r}): pydantic cannot check items against this type, so any item would pass."
                "  Use a dataclass, a TypedDict, a pydantic model or a builtin type, or the name alone for any item."
            )
        self.type = type

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Stream({self.name!r}, {self.type!r})"

    def fit(self, item: Any) -> T:
        """*item*, converted to the type by pydantic.  Raises SerializationError."""
        return codec.fit(item, self.type, self.name)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamItem(Generic[T]):
    """
    One item of a stream.

    Attributes:
        number: Its place in the stream, from 0 on.
        at: When it was emitted.
        value: The item.
        step_id: The step that has emitted it; None for the workflow itself.
        attempt: Which attempt of the step; None for the workflow itself.
        discards: Whether the earlier items of this step are void: an attempt has begun anew
            (``on_retry="discard"``).
    """

    number: int
    at: datetime
    value: T
    step_id: str | None
    attempt: int | None
    discards: bool


class StreamReader(Generic[T]):
    """The items of a stream: iterate over it, or over ``items()``.  Each loop begins at the first item again."""

    def __init__(self, read: Callable[[], Iterator[StreamItem[Any]]], fit: Callable[[Any], T] | None) -> None:
        self._read = read
        self._fit = fit

    def __iter__(self) -> Iterator[T]:
        """The items as they were emitted."""
        for each in self.items():
            yield each.value

    def items(self) -> Iterator[StreamItem[T]]:
        """The items with their numbers and the attempts that have emitted them."""
        for each in self._read():
            yield each if self._fit is None else replace(each, value=self._fit(each.value))


class AsyncStreamReader(Generic[T]):
    """The items of a stream in an event loop: ``async for`` over it, or over ``items()``."""

    def __init__(self, read: Callable[[], AsyncIterator[StreamItem[Any]]], fit: Callable[[Any], T] | None) -> None:
        self._read = read
        self._fit = fit

    async def __aiter__(self) -> AsyncIterator[T]:
        """The items as they were emitted."""
        async for each in self.items():
            yield each.value

    async def items(self) -> AsyncIterator[StreamItem[T]]:
        """The items with their numbers and the attempts that have emitted them."""
        async for each in self._read():
            yield each if self._fit is None else replace(each, value=self._fit(each.value))


def check_stream_name(name: object) -> str:
    """
    The name of a stream, checked.

    Raises:
        TypeError: It is no str.
        ValueError: It is empty, too long, or cannot be stored.
    """
    return check_name(name, "stream", "Stream")
