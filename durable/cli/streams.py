"""``durable runs stream``: the streams of a run, and their items as they come."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from .. import duration
from ..client import streams
from ..display import formats, mask
from ..registry import check_stream_name
from .common import Context, as_json_option, interval_option, parse_text, run_id_argument
from .printing import as_text, print_json, print_table
from .terminal import printable

_PAGE = 500


@click.command("stream")
@run_id_argument
@click.argument("name", metavar="[NAME]", required=False, type=parse_text)
@click.option("--follow", is_flag=True, help="Wait for more items until the stream is over.")
@click.option("--start", type=click.IntRange(min=0), default=0, help="The number of the first item.")
@interval_option("1s")
@as_json_option
@click.pass_obj
def stream_command(
    context: Context, run_id: str, name: str | None, follow: bool, start: int, interval: float, as_json: bool
) -> None:
    """
    Print the items of the stream NAME, one a line; or list the streams of a run.

    Exit codes of --follow: 0 the stream is over, 130 you pressed Ctrl-C.
    """
    run_id = context.full_id(run_id)
    if name is None:
        if follow or start:
            raise click.UsageError("--follow and --start need the NAME of a stream.")
        _print_streams(context, run_id, as_json)
        return
    try:
        check_stream_name(name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="NAME") from error
    try:
        while True:
            page = streams.list_items(context.engine, run_id, name, start=start, limit=_PAGE)
            for item in page["items"]:
                _print_item(item, as_json)
            start = page["next"]
            if page["is_over"] or (not page["items"] and not follow):
                return
            if not page["items"]:
                sys.stdout.flush()
                time.sleep(interval)
    except KeyboardInterrupt:
        sys.exit(130)


def _print_streams(context: Context, run_id: str, as_json: bool) -> None:
    found = streams.list_streams(context.engine, run_id)
    if as_json:
        print_json(found)
        return
    now = context.engine.now()
    rows = [
        (
            each["name"],
            str(each["items"]),
            "over" if each["is_over"] else "open",
            formats.ago(duration.from_iso(each["created_at"]), now),
        )
        for each in found
    ]
    print_table(("stream", "items", "state", "created"), rows)


def _print_item(item: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(item)
        return
    attempt = f"  (attempt {item['attempt']})" if (item["attempt"] or 1) > 1 else ""
    click.echo(printable(f"{item['number']}  {mask(as_text(item['item']))}{attempt}"))
