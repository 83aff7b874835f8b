"""Act on several runs: on those that the command line names, or on all that match a filter."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Any

import click

from ..client import bulk
from ..errors import DurableError
from ..store import RunFilter
from .common import CommandRefused, Context, name_option, parse_attributes, parse_duration, parse_run_id
from .printing import print_json, report

#: A function of a command, and an option for it.
Command = Callable[..., object]
Option = Callable[[Command], Command]

#: How many runs one batch has, and how many ids a dry run shows.
SIZE = 100
SHOWN = 20


@dataclass(frozen=True)
class Action:
    """
    What a command does to runs.

    Attributes:
        key: The key that its JSON has for it.
        sentence_end: How a sentence about a run ends.
        verb: As a question begins with it.
        asks: Whether it asks before many runs.
        as_json: Whether to print JSON.
    """

    key: str
    sentence_end: str
    verb: str = ""
    asks: bool = True
    as_json: bool = False


@dataclass(frozen=True)
class Look:
    """What came of an action on a run: more keys for the JSON, and the sentence for people."""

    fields: Mapping[str, object]
    sentence: str


def confirm(verb: str, count: int, yes: bool) -> None:
    """Ask on stderr before a command acts on many runs.  Without a terminal the answer is no, and the exit code 1."""
    if count and not yes:
        click.confirm(f"{verb} {_counted(count)}?", abort=True, err=True)


def _counted(count: int) -> str:
    return f"{count} runs or more" if count >= bulk.COUNTED else f"{count} run{'' if count == 1 else 's'}"


#: The options of a command that choose runs, beside ``--status`` and ``--name``.
attribute_option = click.option(
    "--attribute",
    "attributes",
    metavar="NAME=VALUE",
    multiple=True,
    help="Only runs with this attribute.  Give several, and a run must have all of them.",
)
since_option = click.option(
    "--since",
    type=parse_duration,
    metavar="DURATION",
    help='Only runs that were created at most this long ago, e.g. "1h".',
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say how many runs it would be; change nothing.")


@dataclass(frozen=True)
class Chosen:
    """The runs that options choose, and whether only to say what would be done, and whether not to ask before."""

    status: str | None = None
    name: str | None = None
    attributes: tuple[str, ...] = ()
    since: timedelta | None = None
    dry_run: bool = False
    yes: bool = False

    @property
    def is_filtered(self) -> bool:
        """Whether any option chooses runs."""
        return bool(self.status or self.name or self.attributes or self.since is not None)

    def wanted(self, now: int) -> RunFilter:
        """The filter."""
        earliest = None if self.since is None else now - int(self.since.total_seconds() * 1_000_000)
        attributes = parse_attributes(self.attributes)
        return RunFilter(status=self.status, name=self.name, attributes=attributes, since=earliest)


def chooses_runs(status: Option | None, *, asks: bool = False) -> Callable[[Command], Command]:
    """
    Decorator: give a command IDs, and options that choose runs in place of them.

    The command gets ``run_ids`` and ``chosen``.

    Args:
        status: Its option ``--status``, if it has one.
        asks: Whether it has ``--yes``, since it asks before it acts on many runs.
    """
    yes = click.option("--yes", is_flag=True, help="Do not ask before it is done to many runs.")
    options = [status, name_option, attribute_option, since_option, dry_run_option, yes if asks else None]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def collect(
            *,
            name: str | None,
            attributes: tuple[str, ...],
            since: timedelta | None,
            dry_run: bool,
            status: str | None = None,
            yes: bool = False,
            **others: Any,
        ) -> object:
            return command(chosen=Chosen(status, name, attributes, since, dry_run, yes), **others)

        decorated: Command = collect
        for option in reversed([option for option in options if option is not None]):
            decorated = option(decorated)
        return click.argument("run_ids", metavar="[ID]...", nargs=-1, type=parse_run_id)(decorated)

    return decorate


def act_on_matching(context: Context, chosen: Chosen, action: str, given: bulk.Given, words: Action) -> None:
    """Act on all runs that options choose, with a bar on a terminal.  Skip a run that has changed meanwhile."""
    engine = context.engine
    engine.check_schema()
    wanted = chosen.wanted(engine.now())
    count = bulk.count(engine, wanted, action)
    if chosen.dry_run:
        ids, _ = bulk.matching(engine, wanted, action, bulk.first_place(engine, wanted), SHOWN)
        shown = "".join(f"\n{run_id}" for run_id in ids) + ("\n…" if count > len(ids) else "")
        report({"count": count, "runs": ids}, f"{_counted(count)} would be {words.sentence_end}.{shown}", words.as_json)
        return
    if words.asks:
        confirm(words.verb, count, chosen.yes)
    done = 0
    label = f"{words.verb.removesuffix('e')}ing"
    with click.progressbar(length=count, file=sys.stderr, label=label, hidden=not sys.stderr.isatty()) as bar:
        place: bulk.BulkPlace | None = bulk.first_place(engine, wanted)
        while place is not None:
            batch = bulk.act_on_batch(engine, wanted, action, given, place, SIZE)
            done += len(batch.done)
            bar.update(len(batch.done) + len(batch.refused))
            place = batch.next
    report({words.key: done}, f"{done} runs are {words.sentence_end}.", words.as_json)


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
