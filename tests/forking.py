"""A child process of a test, made by a real fork."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def in_child(check: Callable[[], object]) -> bool:
    """Whether *check* returns something true in a child process; what it raises is printed there."""
    pid = os.fork()
    if pid == 0:
        said = False
        try:
            said = bool(check())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0 if said else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
