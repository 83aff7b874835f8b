"""TODO"""

from .dispatcher import DRIVE, GRACE, TOGETHER, WAKE, Dispatcher
from .notifier import EXPECT_SECS, Notifier, PollingNotifier, make_notifier
from .progress import HEADER, QUEUE, Line, Progress, furthest, header_of
from .publisher import Broker, Outgoing, Publisher, check

__all__ = [
    "DRIVE",
    "EXPECT_SECS",
    "GRACE",
    "HEADER",
    "QUEUE",
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
    "check",
    "furthest",
    "header_of",
    "make_notifier",
]
