"""
What ``durable doctor`` looks at: whether this application can work here, and what to change if not.

===========  =======================================================================
finding      what a look comes to
servers      database and schema, broker and its transport options, Celery's settings, ``public_url``
situation    what the store says of workers and of what waits, read once
workers      who is alive, answers through the broker, on which queues, by what clock
waiting      names that no live worker knows, blocked runs, steps in doubt, keys
===========  =======================================================================
"""

from __future__ import annotations

from ...engine import Engine
from . import servers, situation, waiting, workers
from .finding import Finding, look

__all__ = ["Finding", "examine"]

_BY_THE_STORE = {
    "workers": workers.alive,
    "answers": workers.answers,
    "queues": workers.queues,
    "clocks": workers.clocks,
    "names": waiting.names,
    "blocked": waiting.blocked,
    "doubts": waiting.doubts,
    "keys": waiting.keys,
}


def examine(engine: Engine) -> list[Finding]:
    """
    Look at everything; a look that cannot be taken is a finding that is not ok.

    Reads a bounded part of the work lists and asks the workers through the broker: about a second,
    however many runs there are.
    """
    database = look("database", servers.database, engine)
    findings = [
        database,
        look("broker", servers.broker, engine),
        look("transport", servers.transport, engine),
        look("messages", servers.messages, engine),
        look("public_url", servers.public_url, engine),
    ]
    if not database.ok:
        unseen = "Not looked at: the database comes first."
        return findings + [Finding(name=name, ok=False, detail=unseen) for name in _BY_THE_STORE]
    seen = situation.read(engine)
    return findings + [look(name, check, seen) for name, check in _BY_THE_STORE.items()]
