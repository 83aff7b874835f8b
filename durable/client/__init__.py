"""
Runs from outside: start them, watch them, cancel or retry them, and resume their hooks.

The Python functions, the command line and the control routes all call this room.

Files, in import order::

    hooks.py           payloads for hooks, and answers to webhook requests
    audited.py         entries of the audit: begun before an action, finished with what came of it
    limits.py          limits of steps: who waits, and their numbers at run time
    pending.py         what a run waits for now
    timeline.py        the rows and bars of a run's timeline
    run_view.py        one run as a person watches it
    describe.py        runs and hooks as plain JSON
    replies.py         questions: payloads whose sender waits for the reply
    operate.py         end a run's sleeps, retry it, resolve a step in doubt
    details.py         the steps of a run, its failure, and its log with the values
    values.py          the published values of a run as plain JSON
    streams.py         reads the streams of a run: item by item as they come, or as plain JSON
    read_tokens.py     signed texts that permit a browser to read some streams and values of one run
    workforce.py       live processes, what they run, and the queues
    child_report.py    the end of a child run, as the run that awaits it has it
    new_run.py         a new run: its row, its arguments, its limits
    run_limits.py      the limits of a new run, and the admission of runs that wait
    sessions.py        the caller's SQLAlchemy session, for a start in its transaction
    start.py           starts a run, or repeats one
    start_many.py      starts many runs of one workflow
    arrival.py         a request to a receiver before it is recorded: its route, and the run that it may start
    placement.py       where a request to a receiver belongs: a run that it starts or resumes, or none
    receive.py         requests to receivers: each recorded with what it does to runs
    route_again.py     routes a recorded request again
    child_runs.py      does something to the child runs of a run, and to theirs
    pauses.py          pauses and resumes runs, workflows, queues and receivers
    fork_hooks.py      the hooks of a fork: their tokens, and their rows
    fork.py            forks a run, or retries it
    run.py             ``Client``: what the methods of ``Run`` do
    bulk.py            what is done to many runs, batch by batch
    run_lists.py       ``list_runs``: runs that match a filter, and what is done to all of them
    receiver_lists.py  receivers and their requests as plain JSON
"""

from . import bulk, child_report, fork, pauses, run_limits
from .bulk import OPEN
from .hooks import HookInfo, new_request_id
from .new_run import make_row
from .placement import TooManyPending
from .receive import KeyReused, Reception
from .run import Client
from .run_lists import AsyncRunList, RunList, matching_ids
from .run_view import RunView
from .start import Options
from .workforce import LiveProcess, Workforce

__all__ = [
    "OPEN",
    "AsyncRunList",
    "Client",
    "HookInfo",
    "KeyReused",
    "LiveProcess",
    "Options",
    "Reception",
    "RunList",
    "RunView",
    "TooManyPending",
    "Workforce",
    "bulk",
    "child_report",
    "fork",
    "make_row",
    "matching_ids",
    "new_request_id",
    "pauses",
    "run_limits",
]
