"""
Replay: a workflow and its log in, what to do next out.

The workflow is a coroutine on an event loop of ours.  One event of the log is applied, the loop runs until nothing
moves, then the next event is applied.  What the workflow asks for and the log does not have becomes a command.  Nothing
here does I/O, reads a clock, or writes an event.

Files, in import order::

    asyncio_patches.py  makes asyncio deterministic where it is not, and equal between Python versions
    commands.py         what a replay can ask for
    failures.py         errors of the log as the exceptions that a workflow sees
    futures.py          the loop's futures, tasks and timers
    operations.py       which operation is which, what the log records of each, and how a difference reads
    parking.py          closes a suspended coroutine without running the author's handlers
    loop.py             the deterministic event loop
    hooks.py            queues of payloads that the log fills and the author awaits
    race.py             ``race``: the first outcome in the log wins
    run_context.py      the author's calls as operations of one run
    replay.py           ``Replay``: feeds a log to a workflow, and collects commands and the outcome
"""

from .commands import Command, CreateHook, Outcome
from .hooks import Hook, Webhook
from .replay import Replay
from .run_context import RunContext, RunInfo, child_run_id

__all__ = [
    "Command",
    "CreateHook",
    "Hook",
    "Outcome",
    "Replay",
    "RunContext",
    "RunInfo",
    "Webhook",
    "child_run_id",
]
