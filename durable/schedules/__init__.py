"""
Schedules: runs that start at planned times, by cron expressions or intervals.

A schedule is a row that knows its next planned time.  The process with the sweep's lease fires what is due; any process
may pause, trigger or backfill.

Files, in import order::

    wall_clock.py  wall-clock times of a time zone as moments, each once
    timing.py      cron expressions and intervals: the planned times
    definition.py  checks what an author writes
    plan.py        decides what a schedule does now; pure
    fire.py        the transaction that starts the runs of planned times
    declared.py    schedules that are declared in code, and their rows
    describe.py    schedules as plain JSON
    rounds.py      what a process does for schedules in its rounds
    async_schedule.py  the calls of ``Schedule`` for asyncio
    handle.py      ``Schedule``, and how an engine makes and finds one
    functions.py   what the application calls: ``schedule``, ``create_schedule``, ``get_schedule``
"""

from .declared import registered_names
from .definition import CATCH_UPS, OVERLAPS, define
from .functions import acreate_schedule, aget_schedule, create_schedule, get_schedule, schedule
from .handle import Schedule
from .rounds import Rounds

__all__ = [
    "CATCH_UPS",
    "OVERLAPS",
    "Rounds",
    "Schedule",
    "acreate_schedule",
    "aget_schedule",
    "create_schedule",
    "define",
    "get_schedule",
    "registered_names",
    "schedule",
]
