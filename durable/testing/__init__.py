"""
For the tests of applications: run workflows in memory, move the clock, and crash at every boundary.

docs/how-to/testing.md shows how to use it; ``durable.testing.plugin`` has the fixtures for pytest.

Files, in import order::

    clock.py             a store whose clock is a number
    database.py          a database file with the library's tables
    engine.py            an engine with a given database and broker
    faults.py            a crash at a boundary, or a message that is lost, repeated or late
    histories.py         ``export`` and ``replay``
    memory_broker.py     a broker in memory
    senders.py           send webhook requests, and record the responses
    worker.py            a worker that runs one message after the other
    environment.py       ``Environment``: all of these, and a web app, in one process
    invariants.py        what must hold for every run that has ended
    crash_everywhere.py  ``crash_everywhere``: run a workflow with a crash at each boundary
    plugin.py            pytest's fixtures
"""

from .clock import Crashed
from .crash_everywhere import Report, crash_everywhere
from .environment import Environment
from .histories import export, replay

__all__ = ["Crashed", "Environment", "Report", "crash_everywhere", "export", "replay"]
