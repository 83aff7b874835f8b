"""
What a workflow body may not do, and how it is stopped from doing it.

A workflow body runs again at each turn, so it must not read a clock, a file or a socket.  The guards refuse such calls
while a body runs; lint finds the calls in its source that no guard can see.  This room does not know runs or logs.

Applications use two of its names: ``forbid`` and ``unrestricted`` (docs/how-to/workflows.md, "Guards").

Files, in import order::

    garbage.py       the garbage collector, off while a workflow body runs
    source_lines.py  the author's line, ``file:line``, for errors and diffs
    process_ends.py  which exceptions end a process, and are not errors of the author's code
    log_records.py   log records of workflows and steps: each once, with the id of its run
    restrictions.py  the list of calls that are refused, and what to do instead
    guards.py        refuses those calls while a workflow body runs
    lint.py          finds those calls in a workflow's source before it runs
    continuing.py    finds calls of ``continue_as_new`` in the source that do not fit the workflow
"""

from .garbage import collector
from .guards import forbid, refuse_in_workflow, unguarded, unrestricted
from .process_ends import ProcessEnd, ends_process
from .source_lines import calling_line, raising_line, waiting_line

__all__ = [
    "ProcessEnd",
    "calling_line",
    "collector",
    "ends_process",
    "forbid",
    "raising_line",
    "refuse_in_workflow",
    "unguarded",
    "unrestricted",
    "waiting_line",
]
