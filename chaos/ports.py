"""Waiting for things to be so, and finding ports for them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def listens(port: int) -> bool:
    """Return whether a process accepts connections on the port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def until(condition: Callable[[], object], what: str, deadline_secs: float = 60.0) -> None:
    """Return once *condition* holds; TimeoutError saying *what* was waited for."""
    deadline = time.monotonic() + deadline_secs
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {deadline_secs:g} s: {what}")
        time.sleep(0.02)
