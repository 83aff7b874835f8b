"""
The broker: messages to Celery tasks, notifications between processes, and the embedded broker.

A message carries ids and no data.  It may be lost or repeated, because the rows in SQL show what to send again.

Files, in import order::

    celery_internals.py  all code that depends on Celery's internals, and not on its documented interfaces
    celery_consumer.py   what a worker's main process knows of its consumer
    redis_clients.py     channels over Redis that keep their client
    redis_outages.py     workers over Redis that survive an outage, in spite of faults of kombu
    celery_settings.py   checks that the Celery app's settings let our messages through
    embedded.py          the embedded broker: a Valkey server of the current folder
    eta_budget.py        how many messages with an ETA may wait in workers
    notifier.py          notifications: "look at this id in SQL now"
    redis_notifier.py    notifications through Redis or Valkey
    choose_notifier.py   chooses the notifier for a broker
    progress.py          the latest message that a process has taken from each queue
    producers.py         the connections of a publisher
    redis_cluster.py     refuses a broker that is a node of a Redis Cluster
    chains.py            chains of a task that ends an operation and the turn that follows
    task_sender.py       sends a task's message with less work than Celery's apply_async
    publisher.py         sends messages to the broker, and gives up at the first error
    dispatcher.py        turns, steps and wakes as Celery messages
    supervise.py         a script that ends a command when the process that started it ends
"""

from .celery_settings import check_settings, check_url, check_worker_settings
from .choose_notifier import make_notifier
from .dispatcher import BATCH_SIZE, DRIVE, FORWARD, GRACE, WAKE, Dispatcher
from .notifier import SUBSCRIPTION_SECS, Notifier, PollingNotifier
from .producers import tries
from .progress import HEADER, INSTALLATION, OFFERS, QUEUE, Progress, Route, furthest, header_of, hops_of
from .publisher import Broker, Outgoing, Publisher
from .redis_cluster import refuse_cluster, refuse_cluster_of

__all__ = [
    "BATCH_SIZE",
    "DRIVE",
    "FORWARD",
    "GRACE",
    "HEADER",
    "INSTALLATION",
    "OFFERS",
    "QUEUE",
    "SUBSCRIPTION_SECS",
    "WAKE",
    "Broker",
    "Dispatcher",
    "Notifier",
    "Outgoing",
    "PollingNotifier",
    "Progress",
    "Publisher",
    "Route",
    "check_settings",
    "check_url",
    "check_worker_settings",
    "furthest",
    "header_of",
    "hops_of",
    "make_notifier",
    "refuse_cluster",
    "refuse_cluster_of",
    "tries",
]
