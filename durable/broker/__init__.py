"""
The broker: messages to Celery tasks, notifications between processes, and the embedded broker.

A message carries ids and no data.  It may be lost or repeated, since SQL says what has to be sent again.

Files, in import order::

    celery_internals.py  all that rests on how Celery works inside, and not on its documented interfaces
    celery_settings.py   checks that the Celery app's settings let our messages through
    embedded.py          the embedded broker: a Valkey server of the current folder
    eta_budget.py        how many messages with an ETA may wait in workers
    notifier.py          notifications: "look at this id in SQL now"
    progress.py          the latest message that a process has taken from each queue
    publisher.py         hands messages to the broker, and gives up at the first error
    dispatcher.py        turns, steps and waits as Celery messages; the only place that builds chains
    supervise.py         a script that ends a command when the process that started it ends
"""

from .celery_settings import check_settings, check_worker_settings
from .dispatcher import DRIVE, GRACE, TOGETHER, WAKE, Dispatcher
from .notifier import SUBSCRIPTION_SECS, Notifier, PollingNotifier, make_notifier
from .progress import HEADER, QUEUE, Line, Progress, furthest, header_of
from .publisher import Broker, Outgoing, Publisher

__all__ = [
    "DRIVE",
    "GRACE",
    "HEADER",
    "QUEUE",
    "SUBSCRIPTION_SECS",
    "TOGETHER",
    "WAKE",
    "Broker",
    "Dispatcher",
    "Line",
    "Notifier",
    "Outgoing",
    "PollingNotifier",
    "Progress",
    "Publisher",
    "check_settings",
    "check_worker_settings",
    "furthest",
    "header_of",
    "make_notifier",
]
