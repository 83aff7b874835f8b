"""
What asyncio offers a coroutine and a workflow's loop does not: whatever reaches out of it, or would stop it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from .errors import NonDeterministicCall
from .lines import calling_line

#: Methods of ``asyncio.AbstractEventLoop``.
REFUSED = [
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
    """A method that refuses to be called."""

    def refuse(self: object, *args: Any, **kwargs: Any) -> NoReturn:
        raise NonDeterministicCall(f"loop.{name}", where=calling_line())

    return refuse
