"""
The methods of asyncio's event loop that do not depend on the run: they raise, or return a constant.

A workflow's loop does no I/O and has no threads, signals, processes or settings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from ..errors import NonDeterministicCall
from ..sandbox import calling_line

#: Methods of ``asyncio.AbstractEventLoop``.
REFUSED_METHODS = [
    "add_reader",
    "add_writer",
    "add_signal_handler",
    "call_soon_threadsafe",
    "close",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "getaddrinfo",
    "getnameinfo",
    "remove_reader",
    "remove_signal_handler",
    "remove_writer",
    "run_forever",
    "run_in_executor",
    "run_until_complete",
    "sendfile",
    "set_debug",
    "set_default_executor",
    "set_task_factory",
    "shutdown_asyncgens",
    "shutdown_default_executor",
    "sock_accept",
    "sock_connect",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendfile",
    "sock_sendto",
    "start_tls",
    "stop",
    "subprocess_exec",
    "subprocess_shell",
]


def refusal(name: str) -> Callable[..., NoReturn]:
    """A method that raises NonDeterministicCall."""

    def refuse(self: object, *args: Any, **kwargs: Any) -> NoReturn:
        raise NonDeterministicCall(f"loop.{name}", where=calling_line())

    return refuse


class BareLoop(asyncio.AbstractEventLoop):
    """An event loop without I/O.  Subclasses add futures, tasks, callbacks and the time."""

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> None:
        return None

    def set_exception_handler(self, handler: object) -> None:
        return None

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)


for _name in REFUSED_METHODS:
    setattr(BareLoop, _name, refusal(_name))
