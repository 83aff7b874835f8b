"""
Replay: runs a workflow against its log, and returns the commands that the log lacks.

The workflow is a coroutine on our own event loop.  ``Replay`` applies one event of the log, runs the loop until nothing
is ready, then applies the next event.  The calls that the log does not record become commands.  Nothing in this room
does I/O, reads a clock, or writes an event.

Files, in import order::

    asyncio_patches.py  make asyncio deterministic, and the same in every Python version
    commands.py         the commands that a replay returns
    failures.py         failures in the log as the exceptions that a workflow gets
    unawaited.py        calls that were not awaited: the error for using one as a value, the lines for a warning
    futures.py          the loop's futures, tasks and timers
    operations.py       which operations a workflow asked for, which its log records, and how a difference reads
    parking.py          close a suspended coroutine without running its ``except Exception`` blocks
    bare_loop.py        asyncio's event loop without I/O: methods that raise, or return a constant
    mistakes.py         which errors of a body say that its code is wrong, and block its run
    task_loop.py        the deterministic event loop: callbacks, tasks and generators in an order that repeats
    loop.py             the same with a workflow's calls and timers as operations of its log
    hooks.py            hooks: queues that the log fills and the workflow awaits
    handed_over.py      the open hooks that a generation was handed over by the one before it
    question.py         ``Question``: a payload whose sender waits for a reply
    race.py             ``race``: the first outcome in the log wins
    fork_plan.py        where a run can be forked, and what its fork begins with
    bounded_map.py      ``map``: a call for each item, at most so many at the same time
    run_info.py         ``RunInfo``: the facts of a run that its workflow can see
    run_context.py      a workflow's calls as operations of its run
    execution.py        the workflow as it executes: what one event of the log does to it
    replay.py           ``Replay``: feeds a log to a workflow, and collects commands and the outcome
"""

from .commands import Command, CreateHook, OpenHook, Outcome, UnreadPayload
from .fork_plan import ForkPlan, ForkPoint, plan_fork
from .handed_over import op_ids as handed_over_op_ids
from .hooks import Hook, Webhook
from .question import METHOD as QUESTION_METHOD
from .question import Question, reply_of, reply_types, request_of, response_of
from .replay import Replay
from .run_context import CONTINUE_AT, RunContext, child_run_id, hook_digest
from .run_info import RunInfo

__all__ = [
    "CONTINUE_AT",
    "QUESTION_METHOD",
    "Command",
    "CreateHook",
    "ForkPlan",
    "ForkPoint",
    "Hook",
    "OpenHook",
    "Outcome",
    "Question",
    "Replay",
    "RunContext",
    "RunInfo",
    "UnreadPayload",
    "Webhook",
    "child_run_id",
    "handed_over_op_ids",
    "hook_digest",
    "plan_fork",
    "reply_of",
    "reply_types",
    "request_of",
    "response_of",
]
