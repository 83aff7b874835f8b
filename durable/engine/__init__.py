"""
What a process has: the engine, its settings, its identity, its caches and its watchdogs.

An engine is passed to every function that needs it.  Making one does no I/O.

Files, in import order::

    celery_defaults.py  settings of Celery that the engine sets where the application leaves them unset
    interrupts.py       raises an exception in another thread, and repairs what that leaves
    loop_calls.py       calls that an event loop waits for
    completions.py      waiting for runs to end
    webhook_counts.py   what webhooks have refused and received twice, until it is written
    flusher.py          adds what a web process has measured to the totals
    forwarder.py        how long a message waits that another worker can handle
    known_waits.py      the waits of the runs whose replay the process keeps
    later.py            calls that the process makes a moment later
    process.py          which process this is, and whether another one still lives
    replay_cache.py     replays that a process keeps, so that a turn feeds only new events
    pauses.py            what is paused by name, as this process knows it
    settings.py         the settings: names, defaults, and where a value comes from
    quick_steps.py      which steps are quick
    first_turns.py      sends the first turns of new runs, those of several in one message
    timer.py            the thread that checks turns and attempts which may be over their time
    watchdog.py         stops a workflow body that takes too long in one turn
    stuck_runs.py       the runs whose code this process can neither stop nor close
    deadlines.py        stops an attempt that takes longer than its step's timeout
    run_handlers.py     the application's functions that are called when a run has failed or is blocked
    stream_writer.py    collects what the steps of this process emit, and writes many items in one transaction
    made_once.py        a part that is made at its first use, once
    parts.py            ``EngineParts``: what an engine is made of; each part is made at its first use
    engine.py           ``Engine``: what an engine does with them, for one application
"""

from .celery_defaults import transport_defaults
from .completions import Completion, Completions, NextCheck, Waiting, wait_in_loop, wait_in_thread
from .deadlines import Limit, grace
from .engine import Engine
from .first_turns import FirstTurns
from .interrupts import has_threads
from .known_waits import KnownWait
from .loop_calls import LoopCalls, Returned, advance
from .process import ProcessIdentity, identify, is_gone, versions
from .replay_cache import Checkout, Kept, unclosable
from .run_handlers import CALL_TIME
from .settings import EXIT
from .stream_writer import Buffer, StreamWriter, count_emitted, warn_of_dropped
from .watchdog import TurnWatch, Watchdog

__all__ = [
    "CALL_TIME",
    "EXIT",
    "Buffer",
    "Checkout",
    "Completion",
    "Completions",
    "Engine",
    "FirstTurns",
    "Kept",
    "KnownWait",
    "Limit",
    "LoopCalls",
    "NextCheck",
    "ProcessIdentity",
    "Returned",
    "StreamWriter",
    "TurnWatch",
    "Waiting",
    "Watchdog",
    "advance",
    "count_emitted",
    "grace",
    "has_threads",
    "identify",
    "is_gone",
    "transport_defaults",
    "unclosable",
    "versions",
    "wait_in_loop",
    "wait_in_thread",
    "warn_of_dropped",
]
