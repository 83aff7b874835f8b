"""The table of kinds; how classes are named and found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from types import MemberDescriptorType
from typing import Any, Protocol, get_args, get_origin

from ..errors import SerializationError

#: The key that marks a JSON object as a tagged value.
TAG = "$"

#: What decoding needs beside the text: the recorded requests by id.
Context = Mapping[str, Any]
Fields = dict[str, Any]


class Writer(Protocol):
    """
    What a kind may use of the encoder that writes a value (``encoder.Encoder``).

    Attributes:
        for_digest: Whether the text is for comparing calls.
        stack: The ids of the containers that are being written, outermost first.
        errors_open, errors_written: How many exceptions are being written now, and how many were since the outermost
            of these.
    """

    for_digest: bool
    stack: list[int]
    errors_open: int
    errors_written: int

    def write(self, value: Any) -> Any: ...

    def items(self, owner: object, items: Iterable[Any]) -> list[Any]: ...

    def fields(self, owner: object, fields: Iterable[tuple[str, Any]]) -> Fields: ...

    def attempt(self, value: object) -> Any: ...


class Kind:
    """
    How values of one kind are written and read.  Each kind is a subclass.

    Attributes:
        tag: The name of the kind in the text.
    """

    tag: str

    def matches(self, cls: type) -> bool:
        """Whether instances of *cls*, a class that was not added with a kind, are of this kind."""
        return False

    def write(self, writer: Writer, value: Any) -> Fields:
        """The fields of the tagged object, as plain JSON.  A kind that ``Encoder.write`` writes itself has none."""
        raise NotImplementedError(self.tag)

    def digest(self, writer: Writer, value: Any) -> Fields:
        """As ``write``, for comparing calls: leaves out what a harmless deploy may change."""
        return self.write(writer, value)

    def read(self, context: Context, fields: Fields) -> Any:
        """The value, from decoded fields."""
        raise NotImplementedError(self.tag)

    def plain(self, fields: Fields) -> Any:
        """The value as plain JSON for people, from fields that are plain JSON."""
        return fields.get("v")


class ConvertedKind(Kind):
    """Values that one function converts to something that can be encoded, and another function converts back."""

    def __init__(self, tag: str, to_plain: Callable[[Any], Any], from_plain: Callable[[Any], Any]) -> None:
        self.tag = tag
        self.to_plain = to_plain
        self.from_plain = from_plain

    def write(self, writer: Writer, value: Any) -> Fields:
        return {"v": writer.write(self.to_plain(value))}

    def read(self, context: Context, fields: Fields) -> Any:
        return self.from_plain(fields["v"])


#: Modules that add the kinds of pydantic's types.  Importing pydantic is slow, and many processes have no such value.
_OF_PYDANTIC = (".models", ".pydantic_types")

_by_tag: dict[str, Kind] = {}
_by_class: dict[type, Kind] = {}


def add(kind: Kind, *classes: type) -> None:
    """
    Write instances of exactly these *classes* as *kind*.

    Instances of other classes are of the kind that ``matches`` them and was added first.
    """
    _by_tag[kind.tag] = kind
    for cls in classes:
        _by_class[cls] = kind
    kind_of.cache_clear()


def register(tag: str, cls: type, to_plain: Callable[[Any], Any], from_plain: Callable[[Any], Any]) -> None:
    """Write *cls* as *tag*: ``to_plain`` returns anything that can be encoded, ``from_plain`` gets it back."""
    add(ConvertedKind(tag, to_plain, from_plain), cls)


@lru_cache(maxsize=4096)
def kind_of(cls: type) -> Kind | None:
    """The kind of instances of *cls*; None if they cannot be encoded."""
    if "pydantic" in sys.modules:
        load_pydantic()
    return _by_class.get(cls) or next((kind for kind in _by_tag.values() if kind.matches(cls)), None)


def kind_by_tag(tag: object) -> Kind:
    """The kind with this tag; SerializationError if this process does not have it."""
    if isinstance(tag, str) and tag not in _by_tag:
        load_pydantic()
    kind = _by_tag.get(tag) if isinstance(tag, str) else None
    if kind is None:
        raise SerializationError(
            "value",
            f"its kind {tag!r} is unknown: it was written by a newer version of durable-celery, or by a module"
            " that is not imported in this process.",
        )
    return kind


def load_pydantic() -> None:
    """Import pydantic, and add the kinds of its types.  Otherwise the first value that needs them does."""
    for name in _OF_PYDANTIC:
        import_module(name, __package__)


#: Classes of ours that have moved, by their name in recorded rows.  They are still written under that name, so that
#: this code reads the rows of older releases, and older processes read new rows during a deploy.
RECORDED_NAMES = {
    "durable.context:StepMetadata": "durable.context.step:StepMetadata",
    "durable.context:WorkflowMetadata": "durable.context.workflow:WorkflowMetadata",
    "durable.hooks:HookInfo": "durable.client.hooks:HookInfo",
}
_RECORDED_AS = {now: recorded for recorded, now in RECORDED_NAMES.items()}


def class_path(cls: type) -> str:
    """``module:qualname``, or the recorded name of a class that has moved."""
    path = f"{cls.__module__}:{cls.__qualname__}"
    return _RECORDED_AS.get(path, path)


def path_to(cls: Any) -> str | None:
    """
    The path by which ``find_class`` finds *cls*; None if there is none.

    The path of a parametrized pydantic model that no module names is ``module:Box[builtins:int]``.  A parameter may be
    an alias of a class, ``list[int]``.
    """
    if not isinstance(cls, type):
        generic, parameters = get_origin(cls), get_args(cls)
    elif _leads_to(class_path(cls), cls):
        return class_path(cls)
    else:
        metadata: Any = getattr(cls, "__pydantic_generic_metadata__", None) or {"origin": None, "args": ()}
        generic, parameters = metadata["origin"], metadata["args"]
    if not isinstance(generic, type):
        return None
    paths = [path_to(each) for each in (generic, *parameters)]
    if None in paths:
        return None
    path = f"{paths[0]}[{','.join(map(str, paths[1:]))}]"
    return path if not isinstance(cls, type) or _leads_to(path, cls) else None


def _leads_to(path: str, cls: type) -> bool:
    try:
        return find_class(path) is cls
    except SerializationError:
        return False


@lru_cache(maxsize=4096)
def slots_of(cls: type) -> tuple[str, ...]:
    """The names of the attributes that instances of *cls* have in ``__slots__``."""
    return tuple(
        name
        for base in cls.__mro__
        if "__slots__" in vars(base)
        for name, attribute in vars(base).items()
        if isinstance(attribute, MemberDescriptorType)
    )


def find_class(path: str, base: type = object) -> type:
    """
    The class with this path, in a module that is already imported.

    Raises:
        SerializationError: If the module is not imported, or has no class of this name.
    """
    if ":" in path.partition("[")[2]:
        made = _find_parametrized(path)
        if isinstance(made, type) and issubclass(made, base):
            return made
        raise SerializationError("value", f"class {path} is not of the recorded kind any more.")
    module_name, _, qualname = RECORDED_NAMES.get(path, path).partition(":")
    module = sys.modules.get(module_name)
    if module is None:
        raise SerializationError(
            "value",
            f"class {qualname} is in module {module_name!r}, which is not imported in this process."
            "  Import it in the module that creates the engine; decoding imports nothing.",
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


def _find_parametrized(path: str) -> Any:
    """The class of a path such as ``module:Box[builtins:int]``, or an alias such as ``list[int]``."""
    generic, _, parameters = path.partition("[")
    if ":" not in parameters:
        return find_class(path)
    found: Any = find_class(generic)
    paths, depth = [""], 0
    for character in parameters.removesuffix("]"):
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "," and depth == 0:
            paths.append("")
        else:
            paths[-1] += character
    try:
        return found[tuple(map(_find_parametrized, paths))]
    except TypeError as error:
        raise SerializationError("value", f"class {generic} does not take these parameters: {error}") from error
