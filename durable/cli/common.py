"""What all commands share: the application, errors as messages, and the types of their arguments."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from .. import duration
from ..app import Durable
from ..attributes import NAME_LIMIT, VALUE_LIMIT
from ..errors import DurableError
from ..store import RunStatus, is_unavailable
from .application import Application, ApplicationNotFound, load
from .terminal import printable


class CommandRefused(click.ClickException):
    """Raised when a command does not do what you asked for.  The exit code is 1."""

    def format_message(self) -> str:
        """The message; the names and errors in it may come from strangers."""
        return "\n".join(printable(line) for line in self.message.split("\n"))


class Context:
    """Passed to every command: the application, which is loaded at its first use."""

    def __init__(self, spec: str) -> None:
        self.spec = spec

    @cached_property
    def application(self) -> Application:
        """The application that ``--app`` names."""
        return load(self.spec)

    @property
    def engine(self) -> Durable:
        """The engine of that application."""
        engine = self.application.engine
        assert isinstance(engine, Durable)
        return engine


class Commands(click.Group):
    """A group of commands that turns their errors into messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click prints the errors raised here."""
        try:
            return super().invoke(ctx)
        except ApplicationNotFound as error:
            raise click.UsageError(str(error)) from error
        except DurableError as error:
            raise CommandRefused(str(error)) from error
        except SQLAlchemyError as error:
            if not is_unavailable(error):
                raise
            raise CommandRefused(f"The database cannot be used now: {error.args[0]}") from error


def parse_run_id(value: str) -> str:
    """The id of a run.  Text that cannot be one is refused before it reaches the database."""
    if not 1 <= len(value) <= 64 or not all("!" <= c <= "~" for c in value):
        raise click.BadParameter(
            f"{_shortened(value)} is not the id of a run, which has 1 to 64 printable ASCII characters and no blanks."
        )
    return value


def parse_text(value: str, longest: int = 255) -> str:
    """Text that every database can store: without NUL and without lone surrogates."""
    is_storable = not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value)
    if not 1 <= len(value) <= longest or not is_storable:
        raise click.BadParameter(f"{_shortened(value)} is not 1 to {longest} characters of text without NUL.")
    return value


def parse_message(value: str) -> str:
    """Text that may be longer than a name."""
    return parse_text(value, 10_000)


def parse_duration(value: str) -> timedelta:
    """A duration, e.g. ``1h30m``; a bare number is seconds."""
    try:
        return timedelta(microseconds=duration.to_micros(value))
    except ValueError as error:
        raise click.BadParameter(f"{error}") from error


def parse_interval(value: str) -> float:
    """A pause between two looks at the database, in seconds."""
    secs = parse_duration(value).total_seconds()
    if secs < LEAST_INTERVAL_SECS:
        raise click.BadParameter(f"{_shortened(value)} is shorter than {LEAST_INTERVAL_SECS} s.")
    return secs


#: The shortest ``--interval``.
LEAST_INTERVAL_SECS = 0.1

STATUSES = tuple(status.value for status in RunStatus)

run_id_argument = click.argument("run_id", metavar="ID", type=parse_run_id)
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else on stdout.")
name_option = click.option("--name", type=parse_text, metavar="TEXT", help="The workflow's name.")
no_color_option = click.option(
    "--no-color", is_flag=True, help="Print no colours.  The variable NO_COLOR does the same for all commands."
)


def interval_option(default: str) -> Callable[[Any], Any]:
    """``--interval``, not so short that it becomes a load on the database."""
    return click.option(
        "--interval",
        type=parse_interval,
        metavar="DURATION",
        default=default,
        show_default=True,
        help="How long to wait before the next look at the database; at least 0.1 s.",
    )


def limit_option(help: str) -> Callable[[Any], Any]:
    """``--limit``, at most 10,000, because a command holds everything that it prints in memory."""
    return click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help=help)


def parse_json(text: str) -> Any:
    """The value of JSON on the command line.  Raises UsageError when it is malformed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(
            f"{_shortened(text)} is not JSON ({error}).  A string needs quotes: '\"like this\"'."
        ) from error


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")


def parse_attributes(given: tuple[str, ...]) -> dict[str, str]:
    """Attributes as ``--attribute NAME=VALUE`` gives them."""
    wanted: dict[str, str] = {}
    for pair in given:
        name, equals, value = parse_text(pair, NAME_LIMIT + 1 + VALUE_LIMIT).partition("=")
        if not name or not equals:
            raise click.UsageError(
                f"--attribute {pair!r} is not NAME=VALUE.  Write for example --attribute customer=acme."
            )
        if wanted.setdefault(name, value) != value:
            raise click.UsageError(f"--attribute {name}: a run cannot have both {wanted[name]!r} and {value!r}.")
    return wanted
