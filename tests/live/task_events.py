"""Task events of a deployment's workers, as Flower gets them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eventually import eventually
from processes import Deployment


@contextmanager
def events_of(site: Deployment) -> Iterator[list[dict[str, Any]]]:
    """Task events, as Flower gets them, from now on."""
    heard: list[dict[str, Any]] = []
    with site.engine.celery.connection_for_read() as connection:
        receiver = site.engine.celery.events.Receiver(connection, handlers={"*": heard.append})
        thread = threading.Thread(target=lambda: receiver.capture(limit=None, timeout=None, wakeup=False), daemon=True)
        thread.start()
        with site.engine.celery.events.default_dispatcher() as dispatcher:
            # What is sent before the receiver is bound is lost: it is once anything comes.
            eventually(lambda: dispatcher.send("task-probe") or heard, 10, "events arrive")
        yield heard
        receiver.should_stop = True
        thread.join(10)
