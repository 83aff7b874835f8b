"""
Notifications between processes: "look at this id in SQL now".

A notification is an id.  A waiting process that receives it checks SQL at once, instead of at its next poll.  So a
notification may be lost, repeated or late.  Sending one never raises, and takes at most a second.

A small answer to a held request comes before its id, as a message of its own (``store/pushed_answers.py``).  A
process that cannot use it ignores it, and reads SQL when the id comes.

With Redis or Valkey, each process that waits has an inbox, which is a list: senders push to it, and one thread pops.
A list survives a reconnect, and pub/sub does not.  If the sender does not know which processes wait, they add
themselves to a set first (``subscribe``).  With any other broker there are no notifications, and waiting processes poll
faster (``healthy`` is false).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

#: How long a subscription lasts.
SUBSCRIPTION_SECS = 120

#: How to connect to a broker that has lists, by the scheme of its URL.
SCHEMES = {
    "redis": "tcp",
    "valkey": "tcp",
    "rediss": "tls",
    "valkeys": "tls",
    "redis+socket": "socket",
    "valkey+socket": "socket",
}

Receive = Callable[[str], None]


class Notifier(Protocol):
    """The interface of notifications for the rest of the library."""

    @property
    def healthy(self) -> bool:
        """Whether a notification sent to this process now would arrive at once, so that it may poll slowly."""

    def notify(self, holder: str, *messages: str) -> None:
        """Send these messages to the process *holder*, in this order.  Never raises, and takes at most a second."""

    def subscribe(self, subject: str, holder: str) -> None:
        """Have ``notify_subscribers(subject)`` notify *holder*, for ``SUBSCRIPTION_SECS``.  Never raises."""

    def notify_subscribers(self, subject: str) -> None:
        """Send *subject* to the processes that have subscribed to it.  Never raises."""

    def listen(self, holder: str, receive: Receive) -> None:
        """
        Call *receive*, in a thread of its own, with what is sent to *holder*, this process.

        If no thread can be started, that is logged, and the next call tries again.
        """

    def close(self) -> None:
        """Stop listening, and close the connections."""


class PollingNotifier:
    """No notifications: for brokers that have no lists."""

    healthy = False

    def notify(self, holder: str, *messages: str) -> None:
        pass

    def subscribe(self, subject: str, holder: str) -> None:
        pass

    def notify_subscribers(self, subject: str) -> None:
        pass

    def listen(self, holder: str, receive: Receive) -> None:
        pass

    def close(self) -> None:
        pass


def scheme_of(url: str) -> str:
    """Return the scheme of a broker URL, in lower case."""
    return url.partition("://")[0].lower()
