"""What a form has done, as a sentence on the page that follows.  The URL has only the form's name and numbers."""

from __future__ import annotations

from werkzeug.datastructures import MultiDict

from .filters import whole_number

_SENTENCES = {
    "cancel": "The run is asked to stop.  It can clean up first.",
    "retry": "The run is being retried with the code that is deployed now.",
    "fork": "This run goes on where the other one has stood.",
    "wake": "{count} pending sleeps of the run are over.",
    "resolve": "The step is resolved, and the run continues.",
    "resume": "The hook has the payload.",
    "pause": "The run is paused.  What runs now ends, and is recorded.",
    "pause_children": "The run and its open child runs are paused.  What runs now ends, and is recorded.",
    "unpause": "The run is not paused by itself any more.",
    "unpause_children": "The run and its child runs are not paused by themselves any more.  They go on, 100 a second.",
    "pause_workflow": "The workflow is paused.",
    "resume_workflow": "The workflow goes on, 100 runs a second.",
    "pause_queue": "The queue is paused.",
    "resume_queue": "The queue goes on, 100 runs a second.",
    "pause_receiver": "The receiver is paused.  It keeps the requests that come.",
    "resume_receiver": "The receiver goes on, 100 requests a second.",
    "bulk_pause": "{count} runs are paused.  {refused} were left as they are.",
    "bulk_resume": "{count} runs are not paused by themselves any more.  {refused} were left as they are.",
    "start": "The run is started.",
    "pause_schedule": "The schedule is paused.  Runs that go on are not stopped.",
    "resume_schedule": "The schedule goes on at its next planned time.",
    "create_schedule": "The schedule is made.  It fires at its next planned time.",
    "delete_schedule": "The schedule is deleted.  Its runs go on.",
    "backfill_schedule": "{count} runs are started.",
    "retry_request": "The request is routed again.  It has reached {count} runs.",
    "set_limit": "The limit has its new number.",
    "resume_limit": "The limit is not paused any more.",
    "bulk_cancel": "{count} runs are asked to stop.  {refused} were left as they are.",
    "bulk_retry": "{count} runs are being retried.  {refused} were left as they are.",
}

_MORE = "  More runs match: do it again to continue."


def of(given: MultiDict[str, str]) -> str | None:
    """The sentence that the parameters of a URL ask for."""
    sentence = _SENTENCES.get(given.get("done", ""))
    if sentence is None:
        return None
    numbers = {name: f"{whole_number(given, name, 0, 10**9):,}" for name in ("count", "refused")}
    return sentence.format(**numbers) + (_MORE if given.get("more") == "1" else "")
