"""``durable top``: live workers and what they run, queues with their backlog, and running steps."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from .. import duration
from ..app import Durable
from ..client import LiveProcess, Workforce, workforce
from ..display import formats
from ..store import BOUND, ClaimedAttempt, statistics
from .common import Context, as_json_option, interval_option, no_color_option
from .printing import print_json, section, table
from .terminal import Line, Terminal, of_stdout, screen

#: How many running steps are printed when the screen does not limit them.
_LISTED = 50


@click.command("top")
@interval_option("2s")
@click.option("--once", is_flag=True, help="Print once and exit.  Without a terminal, this is the default.")
@no_color_option
@as_json_option
@click.pass_obj
def top_command(context: Context, interval: float, once: bool, no_color: bool, as_json: bool) -> None:
    """Show workers, queues and running steps, and refresh them until you press Ctrl-C."""
    sys.exit(top(context.engine, interval, once=once, no_color=no_color, as_json=as_json))


def top(engine: Durable, interval_secs: float, *, once: bool, no_color: bool, as_json: bool) -> int:
    """Show it until Ctrl-C; once for programs.  Return the exit code."""
    engine.check_schema()
    terminal = of_stdout(no_color=no_color)
    found, open_runs = _read(engine)
    if as_json:
        print_json(_as_json(found, open_runs))
        return 0
    if once or not terminal.is_live:
        terminal.print(_picture(found, open_runs, _LISTED))
        return 0
    try:
        with screen() as shown:
            while True:
                terminal = of_stdout(no_color=no_color)
                shown.draw(_fitting(found, open_runs, terminal), terminal)
                time.sleep(interval_secs)
                found, open_runs = _read(engine)
    except KeyboardInterrupt:
        # This is how the command ends.
        return 0


def _read(engine: Durable) -> tuple[Workforce, dict[str, int]]:
    """The workers and queues, and how many runs are open by status; each counted up to ``BOUND``."""
    now = engine.now()
    with engine.store.read() as tx:
        found = workforce.read(engine, tx, now)
        by_name = statistics.open_by_name(tx)
    counts = dict.fromkeys(("pending", "running", "blocked"), 0)
    for (_, status), count in by_name.items():
        counts[status] += count
    return found, counts


def _fitting(found: Workforce, open_runs: dict[str, int], terminal: Terminal) -> list[Line]:
    """The picture with as many running steps as the screen has space for."""
    others = len(_picture(found, open_runs, 0))
    # The title, the header of the table, and the line about the rest.
    return _picture(found, open_runs, max(1, terminal.height - others - 4))


def _picture(found: Workforce, open_runs: dict[str, int], most: int) -> list[Line]:
    """The lines: a summary, the workers, the queues, and at most so many running steps."""
    now = found.now
    waiting = sum(queue.count for queue in found.queues)
    lines: list[Line] = [
        [("durable top", "heading"), (f"  {duration.iso(now)}", "quiet")],
        [
            (f"processes: {len(found.processes)}", "" if found.processes else "failed"),
            (f"  steps: {len(found.running)} running, {formats.number(waiting, BOUND)} waiting  runs: ", ""),
            (f"{formats.number(open_runs['pending'], BOUND)} pending, ", ""),
            (f"{formats.number(open_runs['running'], BOUND)} running, ", ""),
            (f"{formats.number(open_runs['blocked'], BOUND)} blocked", "blocked" if open_runs["blocked"] else ""),
        ],
    ]
    if found.processes:
        header = ("process", "pool", "queues", "up", "last beat", "runs now")
        lines += section("workers", table(header, [_process(process, now) for process in found.processes]))
    else:
        lines += [
            [],
            [("No worker process has sent a heartbeat lately.  Start one with `celery -A … worker`.", "failed")],
        ]
    queues = [
        (
            queue.name,
            formats.number(queue.count, BOUND),
            "-" if queue.oldest is None else formats.took(now - queue.oldest),
            str(queue.consumers),
        )
        for queue in found.queues
    ]
    drawn = table(("queue", "waiting steps", "oldest waits for", "processes"), queues)
    unserved = {i for i, queue in enumerate(found.queues, 1) if queue.count and not queue.consumers}
    lines += section(
        "queues",
        [[(line[0][0], "failed")] if i in unserved else line for i, line in enumerate(drawn)] if queues else [],
    )
    running = [_step(found, attempt) for attempt in found.running[:most]]
    lines += section("running steps", table(("step", "run", "attempt", "for", "process"), running) if running else [])
    if running and len(found.running) > most:
        lines.append([(f"and {len(found.running) - most} more", "quiet")])
    return lines


def _process(process: LiveProcess, now: int) -> tuple[str, ...]:
    worker = process.worker
    first = process.running[:1]
    runs = [f"{attempt.name} for {formats.took(now - attempt.claimed_at)}" for attempt in first]
    more = f" and {len(process.running) - 1} more" if len(process.running) > 1 else ""
    return (
        f"{worker.host}:{worker.pid}",
        worker.pool or "-",
        ", ".join(process.queues),
        formats.took(now - worker.started_at),
        f"{formats.took(now - worker.beat_at)} ago",
        "".join(runs) + more or "-",
    )


def _step(found: Workforce, attempt: ClaimedAttempt) -> tuple[str, ...]:
    took = formats.took(found.now - attempt.claimed_at)
    return (attempt.name, attempt.run_id, str(attempt.attempt), took, f"{attempt.host}:{attempt.pid}")


def _as_json(found: Workforce, open_runs: dict[str, int]) -> dict[str, Any]:
    """The same for programs; times are ISO 8601."""
    return {
        "at": duration.iso(found.now),
        "runs": open_runs,
        "workers": [
            {
                "host": process.worker.host,
                "pid": process.worker.pid,
                "pool": process.worker.pool,
                "queues": process.queues,
                "started_at": duration.iso(process.worker.started_at),
                "beat_at": duration.iso(process.worker.beat_at),
                "running": [
                    {
                        "step": attempt.name,
                        "run_id": attempt.run_id,
                        "operation": attempt.op_id,
                        "attempt": attempt.attempt,
                        "since": duration.iso(attempt.claimed_at),
                    }
                    for attempt in process.running
                ],
            }
            for process in found.processes
        ],
        "queues": [
            {
                "name": queue.name,
                "waiting": queue.count,
                "oldest_since": duration.iso(queue.oldest),
                "consumers": queue.consumers,
            }
            for queue in found.queues
        ],
    }
