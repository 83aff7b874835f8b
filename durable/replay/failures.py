"""The exceptions that a workflow gets from the failures in its log."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from .. import codec, events
from ..errors import RunFailed, StepFailed
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
        error.add_note(StepNote(f"Step {name} ({event.op_id}) failed after {attempts}.", name))
    return error


class StepNote(str):
    """The note of an error that a step failed with.  It marks the error as long as the workflow has it."""

    step: str

    def __new__(cls, text: str, step: str) -> StepNote:
        """
        Args:
            step: The step's name.
        """
        note = super().__new__(cls, text)
        note.step = step
        return note


def failed_step(error: BaseException) -> str | None:
    """The name of the step that failed with this very error; None for an error that did not come from a step."""
    try:
        notes = list(getattr(error, "__notes__", ()))
    except Exception:  # the class is the author's
        return None
    return next((note.step for note in notes if isinstance(note, StepNote)), None)


def child_error(event: events.ChildFailed, run_id: str, requests: Mapping[str, Request]) -> BaseException:
    """The RunFailed of a failed child run, with the original exception as its cause."""
    summary = codec.error_summary(event.error)
    failed = RunFailed(run_id, summary.error_type, summary.message, summary.traceback)
    failed.__cause__ = codec.decode_error(event.error, requests)
    return failed


def find_step_error(error: BaseException) -> tuple[BaseException, str] | None:
    """Find the error of a step in an error's chain of causes and contexts, and in groups; with the step's name."""
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        step = failed_step(found)
        if step is not None:
            return found, step
        links = (found.__cause__, found.__context__, *getattr(found, "exceptions", ()))
        waiting += [link for link in links if isinstance(link, BaseException)]
    return None
