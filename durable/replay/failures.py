"""
What the log's text becomes on its way to the author's functions: arguments, and errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from .. import codec, events
from ..errors import RunFailed, StepFailed
from ..http import Request


def step_error(event: events.StepFailedEvent, name: str, requests: Mapping[str, Request]) -> BaseException:
    """What a failed step raises in the workflow, with a note that says which it was."""
    error: BaseException = codec.decode_error(event.error, requests)
    if isinstance(error, StopIteration):  # no future takes it
        summary = codec.error_summary(event.error)
        error = StepFailed(summary.error_type, summary.message, summary.traceback)
    if isinstance(error, StepFailed):
        error.attempts = event.attempt
    attempts = f"{event.attempt} attempt{'s' if event.attempt != 1 else ''}"
    with suppress(Exception):  # its class is the author's
        error.add_note(f"Step {name} ({event.op_id}) failed after {attempts}.")
    return error


def child_error(event: events.ChildFailed, run_id: str, requests: Mapping[str, Request]) -> BaseException:
    """What a failed child run raises in the workflow, with the original as its cause."""
    summary = codec.error_summary(event.error)
    failed = RunFailed(run_id, summary.error_type, summary.message, summary.traceback)
    failed.__cause__ = codec.decode_error(event.error, requests)
    return failed
