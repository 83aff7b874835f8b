"""Acting on several runs: those named on the command line, or those chosen by what they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import click

from ..client import describe
from ..errors import DurableError
from .common import Refused
from .printing import print_json, report


@dataclass(frozen=True)
class Deed:
    """What is done to runs: its key in JSON, and what a sentence says of them."""

    key: str
    says: str


def confirm(verb: str, count: int, yes: bool) -> None:
    """Ask, on stderr, before many runs are touched; without a terminal the answer is no, exit code 1."""
    if count and not yes:
        shown = f"{count} runs or more" if count >= describe.COUNTED else f"{count} runs"
        click.confirm(f"{verb} {shown}?", abort=True, err=True)


def act_on_chosen(ids: Iterable[str], act: Callable[[str], None], deed: Deed, as_json: bool) -> None:
    """Act on each of *ids*; one that has changed meanwhile is left as it is."""
    count = 0
    for run_id in ids:
        try:
            act(run_id)
        except Refused:
            continue
        count += 1
    report({deed.key: count}, f"{count} runs are {deed.says}.", as_json)


def act_on_named(ids: tuple[str, ...], act: Callable[[str], None], deed: Deed, as_json: bool) -> None:
    """Act on each of *ids*, also after one that is refused; the exit code is then 1."""
    if len(ids) == 1:
        act(ids[0])
        report({"id": ids[0], deed.key: True}, f"Run {ids[0]} is {deed.says}.", as_json)
        return
    refused = {run_id: refusal for run_id in ids if (refusal := _refusal(act, run_id)) is not None}
    if as_json:
        print_json([{"id": i, deed.key: i not in refused, "error": refused.get(i)} for i in ids])
    else:
        for run_id in ids:
            done = run_id not in refused
            click.echo(f"Run {run_id} is {deed.says}." if done else f"Error: {refused[run_id]}", err=not done)
    if refused:
        sys.exit(1)


def _refusal(act: Callable[[str], None], run_id: str) -> str | None:
    try:
        act(run_id)
    except Refused as error:
        return error.message
    except DurableError as error:
        return str(error)
    return None
