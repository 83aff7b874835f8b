"""
The attributes of a run: short texts by name, which you search runs by.

A change is a mapping from names to values; None removes an attribute.  The changes of a run are merged in the order of
its log.  ``check`` enforces the limits where the author's code calls.  Steps that run at the same time do not see each
other's changes, so together they can exceed ``COUNT_LIMIT``.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Characters of a name, bytes (UTF-8) of a value, attributes of a run.
NAME_LIMIT, VALUE_LIMIT, COUNT_LIMIT = 256, 256, 64

Changes = Mapping[str, str | None]


def merged(before: Mapping[str, str], *changes: Changes) -> dict[str, str]:
    """The attributes *before*, with *changes* applied in order."""
    result = dict(before)
    for change in changes:
        for name, value in change.items():
            if value is None:
                result.pop(name, None)
            else:
                result[name] = value
    return result


def check(before: Mapping[str, str], change: Changes) -> None:
    """
    Raise if *change* is not valid for a run that has the attributes *before*.

    Raises:
        TypeError: If a name or a value is not a str.
        ValueError: If one is empty, too long or cannot be stored, or if the run would have too many attributes.
    """
    for name, value in change.items():
        if not isinstance(name, str):
            raise TypeError(f"The name of the attribute {name!r} must be a str.")
        # Some databases pad text, so that "a" and "a " are the same name.
        if not 1 <= len(name) <= NAME_LIMIT or name != name.strip() or not _is_storable(name):
            raise ValueError(
                f"The name of the attribute {name!r} must have 1 to {NAME_LIMIT} characters, no NUL,"
                " and no spaces at its ends."
            )
        if value is None:
            continue
        if not isinstance(value, str):
            raise TypeError(f"The attribute {name!r} must be a str or None, not {value!r}; write str(...).")
        if not _is_storable(value):
            raise ValueError(f"The attribute {name!r} must be text without NUL and lone surrogates, not {value!r}.")
        if (size := len(value.encode())) > VALUE_LIMIT:
            raise ValueError(
                f"The attribute {name!r} has {size} bytes; the limit is {VALUE_LIMIT}."
                "  Attributes are for finding runs: keep the value itself elsewhere."
            )
    after = merged(before, change)
    if len(after) > max(COUNT_LIMIT, len(before)):
        raise ValueError(
            f"With {sorted(change)!r} the run would have {len(after)} attributes; the limit is {COUNT_LIMIT}."
            "  Remove some first (name=None).  Put data that you do not search by into results."
        )


def _is_storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


class RunAttributes:
    """
    The attributes of a run as its workflow sees them, the same on every replay.

    A change that the workflow requests counts at once.  It takes its place among the other changes when it is recorded
    in the log.
    """

    def __init__(self) -> None:
        self._recorded: dict[str, str] = {}
        self._requested: dict[str, Changes] = {}

    def current(self) -> dict[str, str]:
        """The recorded attributes, with the requested changes applied."""
        return merged(self._recorded, *self._requested.values())

    def request(self, op_id: str, change: Changes) -> None:
        """Apply a change of the workflow's own that the log does not have yet."""
        self._requested[op_id] = change

    def record(self, op_id: str, change: Changes) -> None:
        """Apply the next change in the log."""
        self._requested.pop(op_id, None)
        self._recorded = merged(self._recorded, change)
