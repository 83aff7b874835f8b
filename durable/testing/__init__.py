"""
For the tests of applications: workflows in memory, a clock that jumps, and crashes wherever one can happen.

docs/how-to/testing.md shows them; ``durable.testing.plugin`` has the fixtures for pytest.

Files, in import order::

    clock.py             a store whose clock is a number
    database.py          a database file with our tables
    engine.py            an engine with a given database and broker
    faults.py            where a crash happens, and which message goes astray
    histories.py         ``export`` and ``replay``
    memory_broker.py     a broker in memory
    senders.py           senders of webhook requests, and what they were answered
    worker.py            a worker that runs one message after the other
    environment.py       ``Environment``: all of these, and a web app, in one process
    invariants.py        what holds of every run that has ended
    crash_everywhere.py  ``crash_everywhere``: a workflow, with one crash at each boundary
    plugin.py            pytest's fixtures
"""

from .clock import Crashed
from .crash_everywhere import Report, crash_everywhere
from .environment import Environment
from .histories import export, replay

__all__ = ["Crashed", "Environment", "Report", "crash_everywhere", "export", "replay"]
