"""
``durable doctor``: checks whether this application can work here, and reports what to change if not.

Files, in import order::

    finding.py    the result of one check, and how a check that fails becomes a result
    situation.py  reads from the store, once, what the other checks need
    servers.py    checks the database, the broker, Celery's settings and ``public_url``
    waiting.py    checks for work that cannot continue (names, keys, blocks, pauses, doubts), and counts failures
    streams.py    checks the length of streams
    limits.py     checks the limits of steps, and their slots
    workers.py    checks which workers live, answer, take messages from which queues, and have which clocks
    health.py     ``durable health``: whether the database, or the worker of this host, is well
"""

from __future__ import annotations

from ..engine import Engine
from . import health, limits, servers, situation, streams, waiting, workers
from .finding import Finding, check

__all__ = ["Finding", "examine", "health"]

#: The checks that need the database.
_CHECKS_OF_SITUATION = {
    "workers": workers.alive,
    "answers": workers.answers,
    "deaf": workers.deaf,
    "settings": servers.session_settings,
    "standbys": servers.standbys,
    "nodes": servers.nodes,
    "queues": workers.queues,
    "strangers": workers.strangers,
    "clocks": workers.clocks,
    "names": waiting.names,
    "blocked": waiting.blocked,
    "paused": waiting.paused,
    "streams": streams.streams,
    "failures": waiting.failures,
    "doubts": waiting.doubts,
    "keys": waiting.keys,
    "limits": limits.limits,
    "slots": limits.slots,
}


def examine(engine: Engine) -> list[Finding]:
    """
    Make all checks.  A check that raises an error becomes a finding that is not ok.

    Before the migration, the finding about the database is the only one: nothing else can be said, or needs to be done.

    This reads a bounded part of the work lists and asks the workers through the broker.  It takes about a second, even
    with many runs.
    """
    database = check("database", servers.database, engine)
    if not database.ok and database.fix.startswith(servers.MIGRATE):
        return [database]
    findings = [
        database,
        check("broker", servers.broker, engine),
        check("transport", servers.transport, engine),
        check("messages", servers.messages, engine),
        check("public_url", servers.public_url, engine),
    ]
    if not database.ok:
        skipped = "Not checked: this needs the database."
        return findings + [Finding(name=name, ok=False, detail=skipped) for name in _CHECKS_OF_SITUATION]
    found = situation.read(engine)
    return findings + [check(name, function, found) for name, function in _CHECKS_OF_SITUATION.items()]
