"""What all commands share: the application, errors as messages, and the types of their arguments."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from .. import duration
from ..attributes import NAME_LIMIT, VALUE_LIMIT
from ..errors import DurableError
from . import default_app
from .default_app import ApplicationNotFound
from .terminal import printable

if TYPE_CHECKING:
    from ..app import Durable
    from .application import Application


class CommandRefused(click.ClickException):
    """Raised when a command does not do what you asked for.  The exit code is 1."""

    def format_message(self) -> str:
        """The message; the names and errors in it may come from strangers."""
        return "\n".join(printable(line) for line in self.message.split("\n"))


@contextmanager
def without_collecting() -> Iterator[None]:
    """
    Import modules without garbage collection, for the block.

    An import makes a hundred thousand objects that stay, and Python would look through them again and again: a sixth
    of the CPU time of a short command.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        _freeze_once()
        if collects:
            gc.enable()


@cache
def _freeze_once() -> None:
    """
    Have Python never look through the objects that are there now.

    Only once: an application that calls the command has objects that do not stay.  `gc.get_freeze_count()` could tell
    too, but it counts them one by one, for 30 ms.
    """
    gc.freeze()


class Context:
    """Passed to every command: the application, which is loaded at its first use."""

    def __init__(self, given: str | None) -> None:
        self._given = given

    @cached_property
    def spec(self) -> str:
        """The application, as ``--app`` or ``DURABLE_APP`` names it, or as it is found in this folder."""
        return self._given or default_app.find()

    @cached_property
    def application(self) -> Application:
        """The application that ``--app`` names."""
        with without_collecting():
            from .application import include

            return include(self._found)

    @property
    def engine(self) -> Durable:
        """The engine of that application."""
        return _engine(self.application)

    @property
    def bare_engine(self) -> Durable:
        """The same, but without the modules of workflows: for commands that read no values."""
        return _engine(self._found)

    @cached_property
    def _found(self) -> Application:
        with without_collecting():
            from .application import find

            return find(self.spec)

    def full_id(self, given: str) -> str:
        """
        The id of the run that *given* means: an id, or the beginning of the id of one run.

        Returns *given* itself when no run matches, so that the command reports an unknown run as usual.

        Raises:
            CommandRefused: Several runs have ids that begin like this.
        """
        from ..client import describe

        found = describe.find_by_prefix(self.engine, given, _LISTED + 1)
        if len(found) <= 1:
            return str(found[0]["id"]) if found else given
        listed = "".join(f"\n  {run['id']}  {run['status']}  {run['name']}" for run in found[:_LISTED])
        more = "\n  and more" if len(found) > _LISTED else ""
        raise CommandRefused(f"Several runs have ids that begin with {given!r}.  Give more of the id:{listed}{more}")


def _engine(application: Application) -> Durable:
    from ..app import Durable

    assert isinstance(application.engine, Durable)
    return application.engine


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
        except Exception as error:
            # Only a command that uses the database has imported SQLAlchemy.
            from sqlalchemy.exc import SQLAlchemyError

            from ..store import is_unavailable

            if not isinstance(error, SQLAlchemyError) or not is_unavailable(error):
                raise
            raise CommandRefused(f"The database cannot be used now: {error.args[0]}") from error


@dataclass(frozen=True)
class LazyCommand:
    """
    A command that is not imported yet.

    Attributes:
        place: ``module:name`` in this room.
        short_help: The first sentence of its help.
    """

    place: str
    short_help: str

    def load(self) -> click.Command:
        """Import the command."""
        module, _, name = self.place.partition(":")
        with without_collecting():
            command: click.Command = getattr(import_module(f".{module}", __package__), name)
        return command


class LazyCommands(Commands):
    """A group that imports a command when it runs, and lists its commands without importing them."""

    def __init__(self, *args: Any, lazy: Mapping[str, LazyCommand], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command with this name, imported now; None when there is none."""
        return self._lazy[cmd_name].load() if cmd_name in self._lazy else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands in the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._lazy[name].short_help) for name in self.list_commands(ctx)])


def parse_run_id(value: str) -> str:
    """The id of a run, or its beginning.  Text that cannot be one is refused before it reaches the database."""
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


#: How many runs an error lists when the beginning of an id is not unique.
_LISTED = 5

#: The shortest ``--interval``.
LEAST_INTERVAL_SECS = 0.1

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
