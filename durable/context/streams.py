"""``emit`` and ``close_stream``: items that a run shows one after the other while it goes on."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar, overload

from .. import codec, current
from ..errors import SerializationError
from ..registry import Stream, StreamOptions, check_stream_name
from .workflow import run_context

T = TypeVar("T")

#: The longest item, in characters of JSON text: as long as a value may be that is stored in its own row.
MOST_CHARACTERS = 256 * 1024

#: Few options are in use, and each item has some.
_options = lru_cache(maxsize=64, typed=True)(StreamOptions)


@overload
def emit(stream: Stream[T], item: T) -> None: ...
@overload
def emit(stream: str, item: object, *, keep: int | None = ..., on_retry: str = ..., until: str = ...) -> None: ...
def emit(stream: str | Stream[Any], item: Any, **options: Any) -> None:
    """
    Add an item to a stream of the run, which ``Run.stream`` reads.  Call it in a workflow or in a step.

    In a workflow, the item is committed with the turn.  In a step, it is written within 50 ms and before the step's
    result, and stays when the step fails; in a transactional step, it is committed with the result.  What an attempt
    that was given up emits is dropped, and so is what comes after the end of the stream.

    Args:
        stream: 1 to 255 printable characters, or a ``Stream``, whose type the item has to fit.
        item: What a step may return; encoded at most 256 KiB.
        options: ``keep``, ``on_retry`` and ``until``, as ``Stream`` takes them; only with the name as a text.

    Raises:
        SerializationError: The item cannot be encoded, is too large, or does not fit the type.
        TypeError, ValueError: The name or an option is invalid.
    """
    if isinstance(stream, Stream):
        if options:
            raise TypeError(f"emit({stream!r}, …, {next(iter(options))}=…): the Stream has the options.")
        chosen, item = stream.options, stream.fit(item)
    else:
        chosen = _options(**options)
    name = check_stream_name(str(stream) if isinstance(stream, Stream) else stream)
    text = codec.encode(item, name)
    if len(text) > MOST_CHARACTERS:
        raise SerializationError(
            name,
            f"an item of this stream has {len(text)} characters when encoded, and may have {MOST_CHARACTERS}.  Emit"
            " smaller items, or store the data elsewhere and emit where it is.",
        )
    _emit(name, text, chosen, "emit")


def close_stream(stream: str | Stream[Any]) -> None:
    """
    Close a stream of the run, so that its readers end.  Call it in a workflow or in a step.

    What is emitted to a closed stream is dropped.  Without this call a stream ends with the run.

    Raises:
        TypeError, ValueError: The name is invalid.
    """
    chosen = stream.options if isinstance(stream, Stream) else _options()
    name = check_stream_name(str(stream) if isinstance(stream, Stream) else stream)
    _emit(name, None, chosen, "close_stream")


def _emit(name: str, text: str | None, options: StreamOptions, call: str) -> None:
    step = current.running_step.get()
    if step is not None and current.workflow_loop() is None:
        step.emit(name, text, options)
    else:
        run_context(call, or_in=", or in a step").emit(name, text, options)
