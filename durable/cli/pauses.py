"""``durable pauses``, and ``pause`` and ``resume`` of workflows, queues and receivers."""

from __future__ import annotations

import click

from .. import duration
from ..client import pauses as operations
from ..display import formats
from ..errors import ConfigurationError
from .common import CommandRefused, Context, as_json_option, parse_text
from .printing import print_json, print_table, report


def parse_reason(value: str) -> str:
    """The reason of a pause, no longer than a pause takes."""
    return parse_text(value, operations.LONGEST_REASON)


@click.command("pauses")
@as_json_option
@click.pass_obj
def pauses(context: Context, as_json: bool) -> None:
    """List the paused workflows, queues and receivers.  `durable runs list --paused` lists the runs."""
    found = operations.list_pauses(context.engine)
    if as_json:
        print_json(found)
        return
    now = context.engine.now()
    rows = [
        (
            each["kind"],
            each["name"] or "-",
            "resuming" if each["resuming"] else "paused",
            formats.ago(duration.from_iso(each["paused_at"]), now),
            str(each["runs"]),
            each["reason"] or "",
        )
        for each in found
    ]
    print_table(("kind", "name", "state", "since", "runs", "reason"), rows)


def _commands(kind: str) -> list[click.Command]:
    """The commands that pause and resume one kind of thing by its name."""

    @click.command("pause", help=f"Pause the {kind} NAME: nothing of it begins until it is resumed.")
    @click.argument("name", type=parse_text)
    @click.option("--reason", type=parse_reason, metavar="TEXT", help="The reason, for those who find it paused.")
    @as_json_option
    @click.pass_obj
    def pause(context: Context, name: str, reason: str | None, as_json: bool) -> None:
        try:
            paused = operations.pause(context.engine, kind, name, reason)
        except ConfigurationError as error:
            raise CommandRefused(str(error)) from error
        if not paused:
            raise CommandRefused(f"The {kind} {name} is paused already.  `durable pauses` shows since when.")
        report({"kind": kind, "name": name, "paused": True}, f"The {kind} {name} is paused.", as_json)

    @click.command("resume", help=f"Resume the {kind} NAME: what waits goes on, batch by batch.")
    @click.argument("name", type=parse_text)
    @as_json_option
    @click.pass_obj
    def resume(context: Context, name: str, as_json: bool) -> None:
        if not operations.resume(context.engine, kind, name):
            raise CommandRefused(f"The {kind} {name} is not paused.  `durable pauses` shows what is.")
        report({"kind": kind, "name": name, "resumed": True}, f"The {kind} {name} is resumed.", as_json)

    return [pause, resume]


@click.group()
def workflows() -> None:
    """Pause and resume workflows."""


@click.group()
def queues() -> None:
    """Pause and resume queues."""


for _group, _kind in ((workflows, "workflow"), (queues, "queue")):
    for _command in _commands(_kind):
        _group.add_command(_command)

#: For ``durable receivers``.
pause_receiver, resume_receiver = _commands("receiver")
