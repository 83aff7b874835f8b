"""
Kinds: exceptions, with their chain, notes and attributes.  Also an error as text, and back.

An exception is rebuilt if its class is imported in this process: with the same ``args`` and attributes, and without
running the author's ``__init__``, which may take other arguments than ``args``.  If its class is not imported, or the
rebuilt exception raises in ``str`` or ``repr``, it becomes a ``StepFailed`` with the same type name, message and
traceback.  Encoding an exception never fails: an argument that cannot be encoded becomes its repr, and an attribute
that cannot be encoded is left out.
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
from .refusals import Unencodable, shown

#: The attribute of a rebuilt exception that has the text of its traceback in the process that raised it.
_REMOTE = "__durable_traceback__"
#: The attribute of an exception that a step has failed with, in the workflow that awaits the step: the step's name.
_STEP = "__durable_step__"

#: The most causes and contexts of a chain that are kept.
_MAX_CHAIN = 20
#: The most exceptions within one, as arguments and attributes.  Each may contain the next in several places.
_MAX_HELD = 1_000
#: The most characters of a message, and of a traceback, that are kept.
_MAX_TEXT = 64 * 1024


@dataclass(frozen=True)
class ErrorSummary:
    """The type, message and traceback of an encoded error, without rebuilding it."""

    error_type: str
    message: str
    traceback: str

    def __str__(self) -> str:
        return f"{self.error_type}: {self.message}" if self.message else self.error_type


def encode_error(error: BaseException) -> str:
    """The exception as JSON text.  Never fails, whatever the methods of its class do."""
    try:
        text = dump(Encoder().write(error))
        if len(text) <= MAX_SIZE:
            return text
    except BaseException as failure:
        if ends_process(failure):
            raise
    return dump({TAG: "exception", **_outline(error), "args": [_cut(_message(error))], "traceback": _trace(error)})


def decode_error(text: str, requests: Mapping[str, Request] = NO_REQUESTS) -> BaseException:
    """The exception; a ``StepFailed`` if it cannot be rebuilt in this process."""
    try:
        error = decode(text, requests)
    except SerializationError:  # this process lacks a class of its arguments or attributes
        return _stand_in(json.loads(text))
    assert isinstance(error, BaseException)
    return error


def error_summary(text: str) -> ErrorSummary:
    """The summary of an encoded error."""
    fields = json.loads(text)
    return ErrorSummary(fields["type"], fields["message"], fields.get("traceback", ""))


def mark_failed_step(error: BaseException, step: str) -> None:
    """Mark a decoded exception as the one that a step of this name has failed with.  The mark is not encoded."""
    error.__dict__[_STEP] = step


def failed_step(error: BaseException) -> str | None:
    """The name of the step that has failed with this very exception; None for any other exception."""
    step = _attribute(error, _STEP, None)
    return step if isinstance(step, str) else None


def find_step_error(error: BaseException) -> tuple[BaseException, str] | None:
    """Find the exception of a step in a chain of causes and contexts, and in groups; with the step's name."""
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        step = failed_step(found)
        if step is not None:
            return found, step
        links = [_base_attribute(found, f"__{key}__") for key in ("cause", "context")]
        waiting += [link for link in (*links, *members(found)) if link is not None]
    return None


def members(error: BaseException) -> tuple[BaseException, ...]:
    """The exceptions of a group, whatever the author's class makes of them; none for any other exception."""
    if not issubclass(type(error), BaseExceptionGroup):
        return ()
    found: tuple[BaseException, ...] = vars(BaseExceptionGroup)["exceptions"].__get__(error)
    return found


def remote_traceback(error: BaseException) -> str:
    """The traceback of a decoded exception in the process that raised it; empty for one that was raised here."""
    return str(_attribute(error, _REMOTE, ""))


class ExceptionKind(Kind):
    """Exceptions with their chain, notes and attributes."""

    tag = "exception"

    def matches(self, cls: type) -> bool:
        return issubclass(cls, BaseException)

    def write(self, writer: Writer, value: BaseException) -> Fields:
        is_outermost = not writer.errors_open
        if is_outermost:
            writer.errors_written = 0
        _refuse_cycles(writer, value)
        writer.errors_open += 1
        try:
            fields = _written(writer, value, set())
        finally:
            writer.errors_open -= 1
        if is_outermost:
            # It shows the exceptions within this one too.
            fields["traceback"] = _trace(value)
        return fields

    def digest(self, writer: Writer, value: BaseException) -> Fields:
        _refuse_cycles(writer, value)
        return {"type": type(value).__qualname__, "args": _arguments(writer, value, _state(value)[0])}

    def read(self, context: Context, fields: Fields) -> BaseException:
        error = _rebuilt(fields)
        error.__dict__[_REMOTE] = fields.get("traceback", "")
        try:
            hasattr(error, "__notes__")
            takes_notes = not isinstance(type(error).__setattr__, FunctionType)
        except BaseException as failure:
            if ends_process(failure):
                raise
            takes_notes = False
        # ``add_note`` reads and sets the attribute, and an author's class may forbid either.
        if "notes" in fields or not takes_notes:
            error.__dict__["__notes__"] = [*fields.get("notes", ())]
        # Not by assignment, which the author's class may forbid, as a frozen dataclass does.
        object.__setattr__(error, "__cause__", fields.get("cause"))
        object.__setattr__(error, "__context__", fields.get("context", fields.get("cause")))
        object.__setattr__(error, "__suppress_context__", fields.get("suppress", False))
        return error

    def plain(self, fields: Fields) -> Fields:
        return {"type": fields["type"], "message": fields["message"]}


# Writing


def _refuse_cycles(writer: Writer, error: BaseException) -> None:
    if id(error) in writer.stack or writer.errors_written >= _MAX_HELD:
        raise Unencodable("an exception contains itself, or too many others.")


def _written(writer: Writer, error: BaseException, seen: set[int]) -> Fields:
    """One exception with its causes and contexts.  *seen* has the ids of those written: a chain may be a cycle."""
    writer.errors_written += 1
    seen.add(id(error))
    args, attributes = _state(error)
    fields = {**_outline(error), "args": _arguments(writer, error, args)}

    writer.stack.append(id(error))
    written = {}
    for name, item in attributes.items():
        if name in (_REMOTE, _STEP, "__notes__"):
            continue
        plain = _attempt(writer, item)
        if plain is not None or item is None:
            written[name] = plain
    writer.stack.pop()
    if written:
        fields["attrs"] = written

    notes = _attribute(error, "__notes__", ())
    if isinstance(notes, list | tuple) and (texts := [_cut(note) for note in notes if isinstance(note, str)]):
        fields["notes"] = texts
    if _base_attribute(error, "__suppress_context__"):
        fields["suppress"] = True
    for key in ("cause", "context"):
        link = _base_attribute(error, f"__{key}__")
        if link is not None and id(link) not in seen and len(seen) < _MAX_CHAIN:
            fields[key] = {TAG: "exception", **_written(writer, link, seen)}
    return fields


def _outline(error: BaseException) -> Fields:
    module, name = (type.__getattribute__(type(error), each) for each in ("__module__", "__qualname__"))
    return {"c": f"{module}:{name}", "type": name, "message": _cut(_message(error))}


def _arguments(writer: Writer, error: BaseException, args: tuple[Any, ...]) -> list[Any]:
    """The arguments of *error*; instead of one that cannot be encoded, its repr."""
    writer.stack.append(id(error))
    written = []
    for argument in args:
        plain = _attempt(writer, argument)
        if plain is None and argument is not None:
            # A repr may contain an address, which differs on each replay.
            plain = type(argument).__qualname__ if writer.for_digest else _ascii_safe(shown(argument))
        written.append(plain)
    writer.stack.pop()
    return written


def _attempt(writer: Writer, value: object) -> Any:
    try:
        return writer.attempt(value)
    except RecursionError:
        return None


def _state(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """
    The arguments for ``BaseException.__new__`` and the C classes' ``__init__``, and the attributes.

    From ``__reduce__`` if that is Python's own, because it includes an OSError's file name and an ImportError's module.
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
    """An attribute, or *default* if reading it raises anything; urllib's HTTPError raises KeyError."""
    try:
        return getattr(error, name, default)
    except BaseException as failure:
        if ends_process(failure):
            raise
        return default


def _base_attribute(error: BaseException, name: str) -> Any:
    """An attribute of BaseException itself, also if the author's class has another of the same name."""
    return vars(BaseException)[name].__get__(error)


def _message(error: BaseException) -> str:
    try:
        return _ascii_safe(str(error))
    except BaseException as failure:
        if ends_process(failure):
            raise
        return f"(its __str__ raised {type(failure).__name__})"


def _trace(error: BaseException) -> str:
    """The traceback in this process, after the traceback of the process that raised it if that was another."""
    remote = _attribute(error, _REMOTE, "")
    try:
        local = "".join(traceback.format_exception(error))
    except BaseException as failure:
        if ends_process(failure):
            raise
        # Without calling methods of the error.
        calls = traceback.format_tb(_base_attribute(error, "__traceback__"))
        outline = _outline(error)
        local = f"Traceback (most recent call last):\n{''.join(calls)}{outline['type']}: {outline['message']}\n"
        local += f"(its notes, causes and details could not be shown: {type(failure).__name__})\n"
    if remote and _base_attribute(error, "__traceback__") is None:
        return str(remote)
    if remote:
        local = f"{remote}\nThat was raised in another process, and reached this one:\n\n{local}"
    return _cut(_ascii_safe(local))


def _ascii_safe(text: str) -> str:
    """The text without lone surrogates, so that it can be encoded as it is."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _cut(text: str) -> str:
    if len(text) <= _MAX_TEXT:
        return text
    half = _MAX_TEXT // 2
    return f"{text[:half]}\n… ({len(text) - 2 * half} characters) …\n{text[-half:]}"


# Reading


def _rebuilt(fields: Fields) -> BaseException:
    """The exception without its chain and notes; a ``StepFailed`` if its class is missing or does not work."""
    try:
        cls: Any = find_class(fields["c"], Exception)
        args = fields["args"]
        error = cls.__new__(cls, *args)
        # The ``__init__`` of the nearest class written in C sets the state that is not in ``__dict__``.
        inits = (vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base))
        next(init for init in inits if not isinstance(init, FunctionType))(error, *args)
        for name, item in fields.get("attrs", {}).items():
            object.__setattr__(error, name, item)
            getattr(error, name)
        assert isinstance(error, Exception)
        _ = str(error), repr(error)  # either may need an attribute that was left out
    except BaseException as failure:
        if ends_process(failure):
            raise
        return _stand_in(fields)
    return error


def _stand_in(fields: Fields) -> StepFailed:
    return StepFailed(fields["type"], fields["message"], fields.get("traceback", ""))


kinds.add(ExceptionKind())
