"""Act on several runs: on those that the command line names, or on all that match a filter."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import click

from ..client import describe
from ..errors import DurableError
from .common import CommandRefused, Context
from .printing import print_json, report


@dataclass(frozen=True)
class Action:
    """What a command does to runs: the key that its JSON has for it, and how a sentence about a run ends."""

    key: str
    sentence_end: str


def confirm(verb: str, count: int, yes: bool) -> None:
    """Ask on stderr before a command acts on many runs.  Without a terminal the answer is no, and the exit code 1."""
    if count and not yes:
        shown = f"{count} runs or more" if count >= describe.COUNTED else f"{count} runs"
        click.confirm(f"{verb} {shown}?", abort=True, err=True)


def act_on_matching(ids: Iterable[str], act: Callable[[str], None], action: Action, as_json: bool) -> None:
    """Act on each of *ids*.  Skip a run that has changed since it matched the filter."""
    count = 0
    for run_id in ids:
        try:
            act(run_id)
        except CommandRefused:
            continue
        count += 1
    report({action.key: count}, f"{count} runs are {action.sentence_end}.", as_json)


def act_on_named(
    context: Context, given: tuple[str, ...], act: Callable[[str], None], action: Action, as_json: bool
) -> None:
    """Act on each run that is named.  If one is refused, continue with the others; the exit code is then 1."""
    if len(given) == 1:
        run_id = context.full_id(given[0])
        act(run_id)
        report({"id": run_id, action.key: True}, f"Run {run_id} is {action.sentence_end}.", as_json)
        return
    # An ambiguous id is refused before anything is done.
    ids = [context.full_id(each) for each in given]
    errors: dict[str, str] = {}
    for run_id in ids:
        try:
            act(run_id)
        except CommandRefused as error:
            errors[run_id] = error.message
        except DurableError as error:
            errors[run_id] = str(error)
    if as_json:
        print_json([{"id": i, action.key: i not in errors, "error": errors.get(i)} for i in ids])
    else:
        for run_id in ids:
            if run_id in errors:
                click.echo(f"Error: {errors[run_id]}", err=True)
            else:
                click.echo(f"Run {run_id} is {action.sentence_end}.")
    if errors:
        sys.exit(1)
