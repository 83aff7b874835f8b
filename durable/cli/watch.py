"""``durable runs watch``: follow a run until it ends, as a picture on a terminal, or as one line for each event."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click

from .. import duration, events
from ..app import Durable
from ..client import RunView, describe, run_view
from ..display import formats
from ..events import Event
from ..store import RunStatus
from .chart import draw
from .printing import print_json, section, waiting_table
from .run_details import print_run, read_run
from .terminal import Line, Terminal, of_stdout, printable, screen

#: The exit code for each status with which a run ends.
EXIT_CODES = {RunStatus.COMPLETED: 0, RunStatus.FAILED: 3, RunStatus.CANCELLED: 4}
#: The exit code after Ctrl-C, as shells have it.
INTERRUPTED = 130

#: How many operations are read for a terminal, and how many events at once for lines.
_OPERATIONS = 200
_EVENTS = 1_000


def watch(engine: Durable, run_id: str, interval_secs: float, *, no_color: bool, as_json: bool) -> int:
    """Follow the run, and its next generations; return the exit code of the command."""
    terminal = of_stdout(no_color=no_color)
    try:
        while True:
            if terminal.is_live and not as_json:
                last = _redraw(engine, run_id, interval_secs, no_color)
            else:
                last = _print_events(engine, run_id, interval_secs, as_json)
            if last.run.status != RunStatus.CONTINUED:
                break
            run_id = _next_generation(engine, run_id)
        if terminal.is_live and not as_json:
            print_run(*read_run(engine, run_id, operations=_OPERATIONS), terminal)
    except KeyboardInterrupt:
        return INTERRUPTED
    return EXIT_CODES[RunStatus(last.run.status)]


def _next_generation(engine: Durable, run_id: str) -> str:
    """Return the id of the generation after this one, or of the last one if that was deleted."""
    ids = [run.id for run in engine.get_run(run_id).generations()]
    place = ids.index(run_id) + 1 if run_id in ids else -1
    return ids[place] if place < len(ids) else ids[-1]


def _redraw(engine: Durable, run_id: str, interval_secs: float, no_color: bool) -> RunView:
    """Show the run on the terminal's second screen until it has ended."""
    looks = _looks(engine, run_id, interval_secs, _OPERATIONS)
    # An unknown run is refused before the screen changes.
    view = next(looks)
    if view.run.ended:
        return view
    with screen() as shown:
        while not view.run.ended:
            terminal = of_stdout(no_color=no_color)
            shown.draw(_picture(view, terminal), terminal)
            view = next(looks)
    return view


def _print_events(engine: Durable, run_id: str, interval_secs: float, as_json: bool) -> RunView:
    """Print each event of the run, from its first one, until it has ended."""
    seq, names, was_blocked = 0, dict[str, str](), False
    for view in _looks(engine, run_id, interval_secs, 1):
        # Read after the run's row: when the row says that the run has ended, its last event is in the log.
        while new := run_view.events_after(engine, run_id, seq, _EVENTS):
            for event in new:
                name = names.setdefault(event.op_id, getattr(event, "name", ""))
                if as_json:
                    print_json(describe.event_as_json(event))
                else:
                    _print_line(event.at, event.kind, event.op_id, name, _details(event))
            seq = new[-1].seq
        is_blocked = view.run.status == RunStatus.BLOCKED
        if is_blocked and not was_blocked:
            # The log has no event for it.
            if as_json:
                print_json(
                    {
                        "seq": None,
                        "at": duration.iso(view.now),
                        "kind": "run_blocked",
                        "operation": "r",
                        "name": view.run.name,
                    }
                )
            else:
                _print_line(view.now, "run_blocked", events.ROOT, view.run.name, f"see `durable runs show {run_id}`")
        was_blocked = is_blocked
        if view.run.ended:
            break
    return view


def _looks(engine: Durable, run_id: str, interval_secs: float, operations: int) -> Iterator[RunView]:
    """Look at the run again and again."""
    while True:
        yield run_view.read(engine, run_id, operations=operations)
        time.sleep(interval_secs)


def _picture(view: RunView, terminal: Terminal) -> list[Line]:
    """The lines of the screen: the end of the timeline takes the space that the rest leaves."""
    run = view.run
    took = formats.took((run.completed_at or view.now) - run.created_at)
    head: list[Line] = [
        [(run.name, "heading"), (f"  {run.id}  ", ""), (run.status, run.status), (f"  {took}", "")],
        [(f"at {duration.iso(view.now)}; Ctrl-C stops watching, and the run continues", "quiet")],
    ]
    pending = section("waiting for", waiting_table(view.waiting_for, view.now))[: max(0, terminal.height // 3)]
    # The title, an empty line, the axis, the legend and the note about earlier operations.
    space = terminal.height - len(head) - len(pending) - 5
    return [*head, *section("timeline", draw(view, terminal, most=max(1, space))), *pending]


def _details(event: Event) -> str:
    """What is worth knowing of an event beside its kind."""
    match event:
        case events.AttemptEnded():
            took = "" if event.started_at is None else f", {formats.took(event.at - event.started_at)}"
            retry = f", retry at {duration.iso(event.due_at)}" if isinstance(event, events.StepRetrying) else ""
            return f"attempt {event.attempt} on {event.worker or 'an unknown process'}{took}{retry}"
        case events.WaitCreated():
            return f"until {duration.iso(event.due_at)}"
        case events.ChildCreated() | events.RunContinued():
            return f"run {event.run_id}"
        case events.RunCancelRequested() | events.RunCancelledEvent() | events.ChildCancelled():
            return event.reason or ""
    return ""


def _print_line(at: int, kind: str, op_id: str, name: str, details: str) -> None:
    click.echo(printable(f"{duration.iso(at)}  {kind:<16}  {op_id:<6}  {name:<24}  {details}".rstrip()))
