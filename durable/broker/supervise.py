"""
Run a command that must not outlive whoever started it.

::

    python -I -S leash.py GRACE COMMAND ARGUMENT ...

Whoever starts it holds the other end of its standard input and writes
nothing to it.  When that end is closed, on purpose or because the holder died
(SIGKILL too), the command gets SIGTERM, and after GRACE seconds its whole
process group SIGKILL.  A signal asks the same; asking twice kills
at once.  It ends with the command's exit code.

It runs as a script of its own that imports nothing but the standard library,
so that it is there within milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

_stops = threading.Semaphore(0)


def _kill_group(command: subprocess.Popen[bytes]) -> None:
    """Kill the command and whatever children it has left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(command.pid, signal.SIGKILL)


def _wait_for_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    _stops.release()


def _stop_when_asked(command: subprocess.Popen[bytes], grace_secs: float) -> None:
    _stops.acquire()
    command.terminate()
    _stops.acquire(timeout=grace_secs)
    _kill_group(command)


def main(grace_secs: float, arguments: list[str]) -> int:
    """Run the command; its exit code, 128 and the signal's number when a signal ended it."""
    # Inheritable descriptors go through to the command: a lock to hold, a socket to serve.
    command = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, process_group=0, close_fds=False)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda *_: _stops.release())
    threading.Thread(target=_wait_for_end_of_input, daemon=True).start()
    threading.Thread(target=_stop_when_asked, args=(command, grace_secs), daemon=True).start()
    code = command.wait()
    _kill_group(command)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    # Threads that wait for input would hold up an ordinary exit.
    os._exit(main(float(sys.argv[1]), sys.argv[2:]))
