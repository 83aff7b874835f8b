"""The exceptions that a workflow gets from the failures in its log."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from .. import codec, events
from ..errors import StepFailed
from ..http import Request


def step_error(event: events.StepFailedEvent, name: str, requests: Mapping[str, Request]) -> BaseException:
    """The exception of a failed step, with a note that names the step."""
    error: BaseException = codec.decode_error(event.error, requests)
    if isinstance(error, StopIteration):  # a future does not accept one
        summary = codec.error_summary(event.error)
        error = StepFailed(summary.error_type, summary.message, summary.traceback)
    if isinstance(error, StepFailed):
        error.attempts = event.attempt
    attempts = f"{event.attempt} attempt{'s' if event.attempt != 1 else ''}"
    with suppress(Exception):  # the class is the author's, and may not take notes
        error.add_note(f"Step {name} ({event.op_id}) failed after {attempts}.")
    codec.mark_failed_step(error, name)
    return error


def find_step_error(error: BaseException) -> tuple[BaseException, str] | None:
    """Find the error of a step in an error's chain of causes and contexts, and in groups; with the step's name."""
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        step = codec.failed_step(found)
        if step is not None:
            return found, step
        links = (found.__cause__, found.__context__, *getattr(found, "exceptions", ()))
        waiting += [link for link in links if isinstance(link, BaseException)]
    return None
