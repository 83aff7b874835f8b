"""
Kinds: exceptions, with their chain, notes and attributes; an error as text and back.

An exception is rebuilt when its class is known here: ``args`` and attributes as
they were, the author's ``__init__`` not run, since ``args`` need not be what it
takes.  When its class is not known, or the rebuilt one cannot say what it is, it
becomes a ``StepFailed`` that tells the same.  Writing one never fails: an
argument that cannot be carried becomes its repr, such an attribute is left out.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from ..errors import SerializationError, StepFailed
from ..http import Request
from ..sandbox import ends_process
from . import kinds
from .decoder import NO_REQUESTS, decode
from .encoder import MAX_SIZE, Encoder, dump
from .kinds import TAG, Context, Fields, Kind, Writer, find_class, slots_of
from .refusals import Refused, shown

#: Where a rebuilt exception keeps the text of the traceback from the process where it was raised.
_REMOTE = "__durable_traceback__"
_NOT_ATTRIBUTES = (_REMOTE, "__notes__")

#: Links of a chain (causes and contexts) that are kept.
_MAX_CHAIN = 20
#: Exceptions within one, as arguments and attributes: each may hold the next in more than one place.
_MAX_HELD = 1_000
#: The most of a message, and of a traceback, that is kept, in characters.
_MAX_TEXT = 64 * 1024


@dataclass(frozen=True)
class ErrorSummary:
    """What an encoded error says, without rebuilding it."""

    error_type: str
    message: str
    traceback: str

    def __str__(self) -> str:
        return f"{self.error_type}: {self.message}" if self.message else self.error_type


def encode_error(error: BaseException) -> str:
    """The exception as JSON text.  Never fails, whatever its class does when it is asked for something."""
    try:
        text = dump(Encoder().write(error))
        if len(text) <= MAX_SIZE:
            return text
    except BaseException as trouble:
        if ends_process(trouble):
            raise
    return dump({TAG: "exception", **_outline(error), "args": [_cut(_message(error))], "traceback": _trace(error)})


def decode_error(text: str, requests: Mapping[str, Request] = NO_REQUESTS) -> BaseException:
    """The exception; a ``StepFailed`` when it cannot be rebuilt in this process."""
    try:
        error = decode(text, requests)
    except SerializationError:  # something in its arguments or attributes is not known here
        return _stand_in(json.loads(text))
    assert isinstance(error, BaseException)
    return error


def error_summary(text: str) -> ErrorSummary:
    fields = json.loads(text)
    return ErrorSummary(fields["type"], fields["message"], fields.get("traceback", ""))


# Writing


def _write(writer: Writer, error: BaseException) -> Fields:
    if writer.errors_open:
        return _write_inner(writer, error)
    writer.errors_written = 0
    return {**_write_inner(writer, error), "traceback": _trace(error)}


def _write_inner(writer: Writer, error: BaseException) -> Fields:
    """An exception that may be held by another, which tells its traceback too."""
    _refuse_rings(writer, error)
    writer.errors_open += 1
    try:
        return _written(writer, error, set())
    finally:
        writer.errors_open -= 1


def _digest(writer: Writer, error: BaseException) -> Fields:
    _refuse_rings(writer, error)
    return {"type": type(error).__qualname__, "args": _arguments(writer, error)}


def _refuse_rings(writer: Writer, error: BaseException) -> None:
    if id(error) in writer.stack or writer.errors_written >= _MAX_HELD:
        raise Refused("an exception holds itself, or too many others.")


def _written(writer: Writer, error: BaseException, seen: set[int]) -> Fields:
    """One link and those behind it; *seen* holds the links that are written, since chains may be rings."""
    writer.errors_written += 1
    seen.add(id(error))
    fields = {**_outline(error), "args": _arguments(writer, error)}
    if attributes := _attributes(writer, error):
        fields["attrs"] = attributes
    if notes := _notes(error):
        fields["notes"] = [_cut(note) for note in notes]
    if _kept(error, "__suppress_context__"):
        fields["suppress"] = True
    for key, link in (("cause", _kept(error, "__cause__")), ("context", _kept(error, "__context__"))):
        if link is not None and id(link) not in seen and len(seen) < _MAX_CHAIN:
            fields[key] = {TAG: "exception", **_written(writer, link, seen)}
    return fields


def _notes(error: BaseException) -> list[str]:
    notes = _attribute(error, "__notes__", ())
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list | tuple) else []


def _outline(error: BaseException) -> Fields:
    module, name = (type.__getattribute__(type(error), each) for each in ("__module__", "__qualname__"))
    return {"c": f"{module}:{name}", "type": name, "message": _cut(_message(error))}


def _arguments(writer: Writer, error: BaseException) -> list[Any]:
    writer.stack.append(id(error))
    written = [_carried(writer, argument) for argument in _state(error)[0]]
    writer.stack.pop()
    return written


def _carried(writer: Writer, argument: object) -> Any:
    if argument is None:
        return None
    plain = _attempt(writer, argument)
    if plain is not None:
        return plain
    # A repr may hold an address, which no replay repeats.
    return type(argument).__qualname__ if writer.for_digest else _ascii_safe(shown(argument))


def _attributes(writer: Writer, error: BaseException) -> Fields:
    writer.stack.append(id(error))
    written = {}
    for name, item in _state(error)[1].items():
        plain = None if name in _NOT_ATTRIBUTES else _attempt(writer, item)
        if plain is not None or (item is None and name not in _NOT_ATTRIBUTES):
            written[name] = plain
    writer.stack.pop()
    return written


def _attempt(writer: Writer, value: object) -> Any:
    try:
        return writer.attempt(value)
    except RecursionError:
        return None


def _state(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """
    What ``BaseException.__new__`` and the C classes' ``__init__`` were given, and the attributes.

    By ``__reduce__`` where that is Python's own: it knows of an OSError's file name, an ImportError's module.
    """
    cls: type = type(error)
    slots = {}
    for name in slots_of(cls):
        with suppress(AttributeError):  # never set
            slots[name] = object.__getattribute__(error, name)
    if isinstance(cls.__reduce__, FunctionType):
        return error.args, {**vars(error), **slots}
    reduced: Any = error.__reduce__()
    return reduced[1], {**(reduced[2] if len(reduced) > 2 and reduced[2] else {}), **slots}


def _attribute(error: BaseException, name: str, default: Any) -> Any:
    """An attribute of an author's class, whose ``__getattr__`` may raise anything: urllib's HTTPError a KeyError."""
    try:
        return getattr(error, name, default)
    except BaseException as failure:
        if ends_process(failure):
            raise
        return default


def _kept(error: BaseException, name: str) -> Any:
    """An attribute as Python keeps it, whatever the author's class has under the same name."""
    return vars(BaseException)[name].__get__(error)


def _message(error: BaseException) -> str:
    try:
        return _ascii_safe(str(error))
    except BaseException as failure:
        if ends_process(failure):
            raise
        return f"(its __str__ raised {type(failure).__name__})"


def _trace(error: BaseException) -> str:
    """The traceback here; before it the one from where it was raised, if that was another process."""
    remote = _attribute(error, _REMOTE, "")
    try:
        here = "".join(traceback.format_exception(error))
    except BaseException as failure:
        if ends_process(failure):
            raise
        told = _outline(error)
        here = _frames(error) + f"{told['type']}: {told['message']}\n"
        here += f"(its notes, causes and details could not be shown: {type(failure).__name__})\n"
    if remote and _kept(error, "__traceback__") is None:
        return str(remote)
    if remote:
        here = f"{remote}\nThat was raised in another process, and reached this one:\n\n{here}"
    return _cut(_ascii_safe(here))


def _frames(error: BaseException) -> str:
    """The lines of the author's code, without asking the error anything."""
    calls = traceback.format_tb(_kept(error, "__traceback__"))
    return "".join(["Traceback (most recent call last):\n", *calls])


def _ascii_safe(text: str) -> str:
    """Without lone surrogates, so that it can be written as it is."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _cut(text: str) -> str:
    if len(text) <= _MAX_TEXT:
        return text
    half = _MAX_TEXT // 2
    return f"{text[:half]}\n… ({len(text) - 2 * half} characters) …\n{text[-half:]}"


# Reading


def _read(_context: Context, fields: Fields) -> BaseException:
    error = _rebuilt(fields)
    error.__dict__[_REMOTE] = fields.get("traceback", "")
    if "notes" in fields or not _takes_notes(error):
        error.__dict__["__notes__"] = [*fields.get("notes", ())]
    # Not by assignment, which the author's class may forbid: that of a frozen dataclass does.
    object.__setattr__(error, "__cause__", fields.get("cause"))
    object.__setattr__(error, "__context__", fields.get("context", fields.get("cause")))
    object.__setattr__(error, "__suppress_context__", fields.get("suppress", False))
    return error


def _takes_notes(error: BaseException) -> bool:
    """Whether ``add_note`` works: it looks for notes and sets them, and an author's class may forbid either."""
    try:
        hasattr(error, "__notes__")
    except BaseException as failure:
        if ends_process(failure):
            raise
        return False
    return not isinstance(type(error).__setattr__, FunctionType)


def _rebuilt(fields: Fields) -> BaseException:
    try:
        error = _revived(find_class(fields["c"], Exception), fields["args"], fields.get("attrs", {}))
        _ = str(error), repr(error)  # these may need an attribute that was left out
    except BaseException as failure:
        if ends_process(failure):
            raise
        return _stand_in(fields)
    return error


def _revived(cls: Any, args: list[Any], attributes: Fields) -> Exception:
    error = cls.__new__(cls, *args)
    _c_init(cls)(error, *args)
    for name, item in attributes.items():
        object.__setattr__(error, name, item)
        getattr(error, name)
    assert isinstance(error, Exception)
    return error


def _c_init(cls: type) -> Any:
    """The ``__init__`` of the nearest class written in C, which keeps its state outside ``__dict__``."""
    inits = (vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base))
    return next(init for init in inits if not isinstance(init, FunctionType))


def _stand_in(fields: Fields) -> StepFailed:
    return StepFailed(fields["type"], fields["message"], fields.get("traceback", ""))


def _plain(fields: Fields) -> Fields:
    return {"type": fields["type"], "message": fields["message"]}


kinds.add_family(Kind("exception", _write, _read, _digest, _plain), lambda cls: issubclass(cls, BaseException))
