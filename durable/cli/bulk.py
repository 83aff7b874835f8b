"""Act on several runs: on those that the command line names, or on all that match a filter."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
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


@dataclass(frozen=True)
class Look:
    """What came of an action on a run: more keys for the JSON, and the sentence for people."""

    fields: Mapping[str, object]
    sentence: str


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
    context: Context,
    given: tuple[str, ...],
    act: Callable[[str], None],
    action: Action,
    as_json: bool,
    look: Callable[[list[str]], Mapping[str, Look]] = lambda ids: {},
) -> None:
    """
    Act on each run that is named.  If one is refused, continue with the others; the exit code is then 1.

    Args:
        look: Finds what came of it, for runs that were not refused.
    """
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
        if errors and len(ids) == 1:
            raise CommandRefused(errors[run_id])
    seen = look([each for each in ids if each not in errors])
    looks = {each: seen.get(each) or Look({}, f"Run {each} is {action.sentence_end}.") for each in ids}
    if len(ids) == 1:
        report({"id": ids[0], action.key: True, **looks[ids[0]].fields}, looks[ids[0]].sentence, as_json)
        return
    if as_json:
        rows = [{"id": i, action.key: i not in errors, "error": errors.get(i)} for i in ids]
        print_json([row if row["id"] in errors else {**row, **looks[str(row["id"])].fields} for row in rows])
    else:
        for run_id in ids:
            if run_id in errors:
                click.echo(f"Error: {errors[run_id]}", err=True)
            else:
                click.echo(looks[run_id].sentence)
    if errors:
        sys.exit(1)
