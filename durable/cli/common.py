"""What all commands share: the application, errors as messages, and the kinds of what may be typed."""

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
from ..errors import DurableError
from ..store import is_unavailable
from . import application as loading


class Refused(click.ClickException):
    """Raised when what was asked for is not done.  Exit code 1."""


class Context:
    """What every command is given: the application, loaded when first used."""

    def __init__(self, spec: str) -> None:
        self.spec = spec

    @cached_property
    def application(self) -> loading.Application:
        return loading.load(self.spec)

    @property
    def engine(self) -> Durable:
        engine = self.application.engine
        assert isinstance(engine, Durable)
        return engine


class Commands(click.Group):
    """A group whose commands' errors become messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except loading.NoApplication as error:
            raise click.UsageError(str(error)) from error
        except DurableError as error:
            raise Refused(str(error)) from error
        except SQLAlchemyError as error:
            if not is_unavailable(error):
                raise
            raise Refused(f"The database cannot be used now: {error.args[0]}") from error


def an_id(value: str) -> str:
    """A run's id.  What cannot be one never gets to the database."""
    if not 1 <= len(value) <= 64 or not all("!" <= c <= "~" for c in value):
        raise click.BadParameter(
            f"{_short(value)} is no run's id: that is 1 to 64 printable ASCII characters without blanks."
        )
    return value


def a_text(value: str, longest: int = 255) -> str:
    """Text that every database can hold: no NUL, no half of a surrogate pair."""
    if not 1 <= len(value) <= longest or "\0" in value or not _is_unicode(value):
        raise click.BadParameter(f"{_short(value)} is not 1 to {longest} characters of text without NUL.")
    return value


def a_message(value: str) -> str:
    """Text of more than a name's length."""
    return a_text(value, 10_000)


def a_duration(value: str) -> timedelta:
    """A duration, e.g. ``1h30m``; a bare number is seconds."""
    try:
        return timedelta(microseconds=duration.to_micros(value))
    except ValueError as error:
        raise click.BadParameter(f"{error}") from error


STATUSES = ("pending", "running", "completed", "failed", "cancelled", "blocked")

run_id_argument = click.argument("run_id", metavar="ID", type=an_id)
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else on stdout.")
name_option = click.option("--name", type=a_text, metavar="TEXT", help="The workflow's name.")


def limit_option(help: str) -> Callable[[Any], Any]:
    """``--limit``, at most 10,000: what is printed is held in memory."""
    return click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help=help)


def parse_json(text: str) -> Any:
    """What JSON on the command line says; UsageError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(
            f"{_short(text)} is not JSON ({error}): a string needs its quotes, '\"like this\"'."
        ) from error


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)
