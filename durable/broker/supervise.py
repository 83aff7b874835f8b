"""
Run a command that ends when the process that started it ends.

::

    python -I -S supervise.py GRACE COMMAND ARGUMENT ...

The process that starts this script holds the other end of its standard input, and writes nothing to it.  That end is
closed on purpose, or when the process dies (by SIGKILL too).  Then the command gets SIGTERM, and after GRACE seconds
its whole process group gets SIGKILL.  SIGTERM, SIGINT or SIGHUP to this script does the same, and a second one kills at
once.  The script ends with the command's exit code.

It imports only the standard library, so that it starts within milliseconds.
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
    """Kill the command and the children that it has left."""
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
    """Run the command.  Returns its exit code, or 128 plus the number of the signal that ended it."""
    # The command gets inheritable descriptors: a lock to hold, a socket to serve.
    command = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, process_group=0, close_fds=False)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda *_: _stops.release())
    threading.Thread(target=_wait_for_end_of_input, daemon=True).start()
    threading.Thread(target=_stop_when_asked, args=(command, grace_secs), daemon=True).start()
    code = command.wait()
    _kill_group(command)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    # An ordinary exit would wait for the thread that waits for input.
    os._exit(main(float(sys.argv[1]), sys.argv[2:]))
