"""
Messages of another installation: two applications with different databases that use one queue of one broker.

Each would take the other's messages, find nothing in its own database, and drop them.  So a message carries the id of
its installation, and goes back into its queue when a worker of another one gets it.
"""

from __future__ import annotations

import time
from functools import partial
from random import Random
from typing import Any

from celery.exceptions import Reject
from sqlalchemy.exc import SQLAlchemyError

from ..broker import INSTALLATION, QUEUE, header_of
from ..engine import Engine
from ..sandbox import log_records
from ..store import installation, reason

#: How long a worker keeps such a message, so that it does not get the same one again at once: a random time between
#: these.  Brokers serve consumers in turn, so two workers in step would each get what they gave back, again and again.
PAUSE_SECS = (0.05, 0.35)
#: How often a process writes down that it has got one.
NOTE_SECS = 60.0

log = log_records.get("durable.tasks")

#: A generator of its own, since the application may seed the shared one.
_draw = Random()

#: When this process may write it down again, by installation and the monotonic clock.
_next_note: dict[str, float] = {}


def give_back(engine: Engine, request: Any) -> None:
    """Raise Celery's ``Reject`` for a message of another installation, after a pause; return for one of our own."""
    header = header_of(request)
    given, own = header.get(INSTALLATION), engine.installation
    if given is None or own is None or given == own:
        return
    queue = str(header.get(QUEUE))
    if own not in _next_note:
        log.error(
            "A message of another installation came from queue %s: an application with another database uses the same"
            " queue.  Such messages go back, which costs time.  Give each application a task_default_queue, a virtual"
            " host or a database of the broker of its own.",
            queue,
        )
    if time.monotonic() >= _next_note.get(own, 0.0):
        _next_note[own] = time.monotonic() + NOTE_SECS
        try:
            engine.store.write(partial(installation.note_foreign, queue=queue, now=engine.now()))
        except SQLAlchemyError as error:
            log.debug("The foreign message could not be written down: %s", reason(error))
    time.sleep(_draw.uniform(*PAUSE_SECS))
    raise Reject(f"a message of installation {given}", requeue=True)
