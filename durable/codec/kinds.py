"""The table of kinds, and how classes are named and found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..errors import SerializationError

if TYPE_CHECKING:
    from .writing import Writer

#: The key that marks a JSON object as a tagged value.
TAG = "$"

#: What decoding needs besides the text: the recorded requests by id.
Context = Mapping[str, Any]
Fields = dict[str, Any]


def _value_field(fields: Fields) -> Any:
    return fields.get("v")


@dataclass(frozen=True, slots=True)
class Kind:
    """
    How one kind of value is written and read.

    Attributes:
        write: The fields beside the tag, as plain JSON.
        read: The value, from fields that are decoded already.
        digest: As ``write``, for comparing calls: without what harmless deploys change.
        plain: From fields that are plain JSON already: the value as plain JSON, for people.
    """

    tag: str
    write: Callable[[Writer, Any], Fields]
    read: Callable[[Context, Fields], Any]
    digest: Callable[[Writer, Any], Fields] | None = None
    plain: Callable[[Fields], Any] = _value_field


_by_tag: dict[str, Kind] = {}
_by_class: dict[type, Kind] = {}
_families: list[tuple[Callable[[type], bool], Kind]] = []


def add(kind: Kind, *classes: type) -> None:
    """Carry the instances of exactly these classes as *kind*."""
    _by_tag[kind.tag] = kind
    for cls in classes:
        _by_class[cls] = kind
    kind_of.cache_clear()


def add_family(kind: Kind, holds: Callable[[type], bool]) -> None:
    """Carry the instances of each class for which *holds* is true; an earlier family goes first."""
    _by_tag[kind.tag] = kind
    _families.append((holds, kind))
    kind_of.cache_clear()


def register(tag: str, cls: type, to_plain: Callable[[Any], Any], from_plain: Callable[[Any], Any]) -> None:
    """Carry *cls* as *tag*; ``to_plain`` gives anything that can be encoded, ``from_plain`` takes it back."""

    def write(writer: Writer, value: Any) -> Fields:
        return {"v": writer.write(to_plain(value))}

    add(Kind(tag, write, lambda _context, fields: from_plain(fields["v"])), cls)


@lru_cache(maxsize=4096)
def kind_of(cls: type) -> Kind | None:
    """The kind that carries instances of *cls*, None when they are not carried."""
    if cls in _by_class:
        return _by_class[cls]
    return next((kind for holds, kind in _families if holds(cls)), None)


def kind_by_tag(tag: object) -> Kind:
    kind = _by_tag.get(tag) if isinstance(tag, str) else None
    if kind is None:
        raise SerializationError(
            "value",
            f"its kind {tag!r} is unknown here: it was written by a newer durable-celery, or by a module"
            " that is not imported in this process.",
        )
    return kind


def class_path(cls: type) -> str:
    """``module:qualname``"""
    return f"{cls.__module__}:{cls.__qualname__}"


def find_class(path: str, base: type = object) -> type:
    """
    The class of this path, in a module that is already imported.

    Raises:
        SerializationError: When the module, or a class of this name in it, is not there.
    """
    module_name, _, qualname = path.partition(":")
    module = sys.modules.get(module_name)
    if module is None:
        raise SerializationError(
            "value",
            f"class {qualname} is of module {module_name!r}, which is not imported in this process."
            "  Import it in the module that makes the engine; decoding never imports.",
        )
    found: Any = module
    for name in qualname.split("."):
        # Not getattr: a module's __getattr__ may import.
        found = getattr(found, "__dict__", {}).get(name)
    if not isinstance(found, type) or not issubclass(found, base):
        raise SerializationError(
            "value",
            f"module {module_name!r} has no class {qualname} any more.  Keep the name as an alias until the"
            " runs that recorded it have ended.",
        )
    return found
