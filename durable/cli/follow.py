"""``durable runs list --follow``: the list again and again, on a terminal, or as one line for each change."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from ..app import Durable
from .printing import print_json, runs_table, table_row
from .terminal import of_stdout, printable, screen

Runs = Sequence[dict[str, Any]]


def follow(engine: Durable, read: Callable[[], Runs], interval_secs: float, *, no_color: bool, as_json: bool) -> None:
    """
    Show the runs that *read* returns until Ctrl-C.

    A terminal shows the list.  Without a terminal, or with *as_json*, each run is a line, and a line again when its
    status changes.
    """
    try:
        if of_stdout(no_color=no_color).is_live and not as_json:
            with screen() as shown:
                while True:
                    terminal = of_stdout(no_color=no_color)
                    shown.draw(runs_table(read(), engine.now()), terminal)
                    time.sleep(interval_secs)
        _print_changes(engine, read, interval_secs, as_json)
    except KeyboardInterrupt:
        # This is how the command ends.
        return


def _print_changes(engine: Durable, read: Callable[[], Runs], interval_secs: float, as_json: bool) -> None:
    statuses: dict[str, str] = {}
    while True:
        found = read()
        for run in reversed(found):
            if statuses.get(run["id"]) == run["status"]:
                continue
            if as_json:
                print_json(run)
            else:
                click.echo(printable("  ".join(table_row(run, engine.now()))))
        statuses = {run["id"]: run["status"] for run in found}
        time.sleep(interval_secs)
