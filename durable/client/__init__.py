"""
Runs from outside: start them, watch them, steer them, and resume their hooks.

The Python functions, the command line and the control routes all end here.

Files, in import order::

    hooks.py     payloads for hooks, and answers to webhook requests
    operate.py   wake a run, retry it, resolve a step in doubt
    pending.py   what a run waits for now
    describe.py  runs and hooks as plain JSON
    run.py       ``Client``: what the handle of a run asks for
    sessions.py  the caller's SQLAlchemy session, for a start in its transaction
    start.py     starts a run, or another one like it
"""

from .hooks import HookInfo
from .run import Client
from .start import Options

__all__ = [
    "Client",
    "HookInfo",
    "Options",
]
