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


def _kill_group(command: subprocess.Popen[bytes]) -> None:
    """Kill the command and the children that it has left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(command.pid, signal.SIGKILL)


def main(grace_secs: float, arguments: list[str]) -> int:
    """Run the command.  Returns its exit code, or 128 plus the number of the signal that ended it."""
    stops = threading.Semaphore(0)

    def wait_for_end_of_input() -> None:
        while os.read(0, 4096):
            pass
        stops.release()

    def stop_when_asked() -> None:
        stops.acquire()
        command.terminate()
        stops.acquire(timeout=grace_secs)  # a second request to stop kills at once
        _kill_group(command)

    # The command gets inheritable descriptors: a lock to hold, a socket to serve.
    command = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, process_group=0, close_fds=False)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda *_: stops.release())
    threading.Thread(target=wait_for_end_of_input, daemon=True).start()
    threading.Thread(target=stop_when_asked, daemon=True).start()
    code = command.wait()
    _kill_group(command)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    # An ordinary exit would wait for the thread that waits for input.
    os._exit(main(float(sys.argv[1]), sys.argv[2:]))
