"""``publish``: values that a run shows while it goes on."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from .. import codec, current
from ..registry import Value, check_value_name
from .workflow import run_context

T = TypeVar("T")


@overload
def publish(name: Value[T], value: T) -> None: ...
@overload
def publish(name: str, value: object) -> None: ...
def publish(name: str | Value[Any], value: Any) -> None:
    """
    Publish a value of the run, which ``Run.value`` reads and waits for.  Call it in a workflow or in a step.

    The latest value of a name counts.  In a workflow, it is committed with the turn.  In a step, it is committed at
    once and stays even when the step fails; in a transactional step, it is committed with the result.  An attempt that
    was given up publishes nothing.

    Args:
        name: 1 to 255 printable characters, or a ``Value``, whose type the value has to fit.
        value: What a step may return.

    Raises:
        SerializationError: The value cannot be encoded, or does not fit the type.
        TypeError, ValueError: The name is invalid.
    """
    if isinstance(name, Value):
        value = name.fit(value)
    key = check_value_name(str(name) if isinstance(name, Value) else name)
    text = codec.encode(value, key)
    step = current.running_step.get()
    if step is not None and current.workflow_loop() is None:
        step.publish(key, text)
    else:
        run_context("publish", or_in=", or in a step").publish(key, text)
