"""The runs whose code this process can neither stop nor close: which they are, and what becomes of the process."""

from __future__ import annotations

import os
import signal
import threading

from ..errors import DurableError, TurnTooLong
from ..replay import Replay
from ..sandbox import log_records
from .replay_cache import unclosable
from .watchdog import Watchdog

log = log_records.get("durable")


class StuckRuns(dict[str, DurableError]):
    """By run, why it has to be blocked; housekeeping blocks it."""

    def __init__(self) -> None:
        super().__init__()
        #: Whether this process may be killed when nothing stops its turn: a prefork child runs nothing else.
        self.may_kill_process = False

    def put_away(self, replay: Replay, watchdog: Watchdog) -> None:
        """Park a replay that was kept; note the run if its body cannot be closed."""
        fault: DurableError | None
        try:
            watchdog.watch(replay.info.run_id).run(replay.park)
            fault = unclosable(replay)
        except TurnTooLong as error:
            fault = error
        if fault is not None:
            self[replay.info.run_id] = fault

    def give_up(self, reason: TurnTooLong) -> None:
        """Deal with a turn that nothing stops: kill a prefork child, or else lose the thread."""
        if not self.may_kill_process:
            self[reason.run_id] = reason
            log.error("%s  Nothing stops it: its thread is lost until this process ends.", reason)
            return
        # The timer comes first, since the turn may hold the lock of a log handler.
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGKILL)).start()
        log.error("%s  Nothing stops it: this process is killed.", reason)
