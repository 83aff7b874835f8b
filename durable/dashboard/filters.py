"""The filter of the list of runs, which lives in the URL, so that people can send each other links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from werkzeug.datastructures import MultiDict

from .. import duration
from ..attributes import NAME_LIMIT, VALUE_LIMIT
from ..store import RunFilter, RunStatus
from .security import Refused

STATUSES = tuple(status.value for status in RunStatus)

_PLACE = re.compile(r"(\d{1,18})\.([!-~]{1,64})")


@dataclass(frozen=True, slots=True)
class ListQuery:
    """
    What the URL of a list asks for.

    Attributes:
        wanted: The filter, with times.
        parameters: The filter as parameters of the URL, as they were given.
        before: Where the page begins: after this run; None for the newest runs.
        after: Where the page ends: before this run.
    """

    wanted: RunFilter
    parameters: dict[str, list[str]]
    before: tuple[int, str] | None
    after: tuple[int, str] | None

    @property
    def is_filtered(self) -> bool:
        """Whether a filter is set."""
        return bool(self.parameters)

    def url_values(self, **changes: Any) -> dict[str, Any]:
        """The parameters of the same filter with changes; None removes one."""
        return {name: value for name, value in {**self.parameters, **changes}.items() if value is not None}


def parse(given: MultiDict[str, str], now: int) -> ListQuery:
    """Read the parameters of a URL.  Raise Refused for one that is malformed; unknown ones are left out."""
    texts = {name: given.get(name, "").strip() for name in ("status", "name", "id", "since", "until", "error")}
    for name, text in texts.items():
        _check_text(name, text, 1000 if name == "error" else 255)
    if texts["status"] and texts["status"] not in STATUSES:
        raise _malformed("status", texts["status"], f"It is one of {', '.join(STATUSES)}.")
    pairs = [pair.strip() for pair in given.getlist("attribute") if pair.strip()]
    wanted = RunFilter(
        status=texts["status"] or None,
        name=texts["name"] or None,
        id=texts["id"] or None,
        attributes=_attributes(pairs),
        since=_moment("since", texts["since"], now),
        until=_moment("until", texts["until"], now),
        error=texts["error"] or None,
        paused=given.get("paused") == "yes",
    )
    parameters = {name: [text] for name, text in texts.items() if text} | ({"attribute": pairs} if pairs else {})
    parameters |= {"paused": ["yes"]} if wanted.paused else {}
    return ListQuery(wanted, parameters, place(given, "before"), place(given, "after"))


def place(given: MultiDict[str, str], name: str) -> tuple[int, str] | None:
    """A place in a list, ``TIME.ID``."""
    text = given.get(name, "")
    if not text:
        return None
    match = _PLACE.fullmatch(text)
    if match is None:
        raise _malformed(name, text, "Follow the links of the list.")
    return int(match[1]), match[2]


def whole_number(given: MultiDict[str, str], name: str, default: int, most: int) -> int:
    """A parameter that is a number from 0 to *most*."""
    text = given.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise _malformed(name, text, "It is a whole number.")
    return min(int(text), most)


def _attributes(pairs: list[str]) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for pair in pairs:
        _check_text("attribute", pair, NAME_LIMIT + 1 + VALUE_LIMIT)
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise _malformed("attribute", pair, "Write NAME=VALUE, for example customer=acme.")
        if wanted.setdefault(name, value) != value:
            raise _malformed("attribute", pair, f"The filter also asks for {name}={wanted[name]}; no run has both.")
    return wanted


def _moment(name: str, text: str, now: int) -> int | None:
    """A time: ``2h`` ago, or a date, or a date and a time in UTC."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000_000)
    try:
        return now - duration.to_micros(timedelta(microseconds=duration.to_micros(text)))
    except (ValueError, OverflowError):
        example = "Write how long ago, for example 2h or 7d, or a time in UTC, for example 2026-01-31 12:00."
        raise _malformed(name, text, example) from None


def _check_text(name: str, text: str, longest: int) -> None:
    if len(text) > longest or "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise _malformed(name, text[:80], f"It is at most {longest} characters of text.")


def _malformed(name: str, text: str, advice: str) -> Refused:
    return Refused(400, f"The filter {name!r} is malformed", f"{text!r} does not fit.  {advice}")
