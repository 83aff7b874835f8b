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
        error.add_note(f"Step {name} ({event.op_id}) failed after {attempts}.")
    codec.mark_failed_step(error, name)
    return error


def child_error(event: events.ChildFailed, run_id: str, requests: Mapping[str, Request]) -> BaseException:
    """The RunFailed of a failed child run, with the original exception as its cause."""
    summary = codec.error_summary(event.error)
    failed = RunFailed(run_id, summary.error_type, summary.message, summary.traceback)
    failed.__cause__ = codec.decode_error(event.error, requests)
    return failed
