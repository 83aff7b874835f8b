"""
Attributes of a run: short texts by name, by which it can be found.

A change is a mapping in which None unsets; the changes of a run are merged in
the order of its log.  The limits are checked where the author calls.  Steps
that call at the same moment do not see each other's changes: together they
may pass ``COUNT_LIMIT`` by what they add.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Characters of a name, bytes (UTF-8) of a value, attributes of a run.
NAME_LIMIT, VALUE_LIMIT, COUNT_LIMIT = 256, 256, 64

Changes = Mapping[str, str | None]


def merged(known: Mapping[str, str], *changes: Changes) -> dict[str, str]:
    """What *changes* make of *known*, one after the other."""
    result = dict(known)
    for change in changes:
        for name, value in change.items():
            if value is None:
                result.pop(name, None)
            else:
                result[name] = value
    return result


def check(known: Mapping[str, str], change: Changes) -> None:
    """
    Refuse a change that no run may make, or that finds no room beside *known*.

    Raises:
        TypeError: A name or a value is no str.
        ValueError: One is empty, too long or cannot be stored; or there are too many names.
    """
    for name, value in change.items():
        _check_name(name)
        if value is not None:
            _check_value(name, value)
    after = merged(known, change)
    if len(after) > max(COUNT_LIMIT, len(known)):
        raise ValueError(
            f"With {sorted(change)!r} the run would have {len(after)} attributes, and {COUNT_LIMIT} is the most."
            "  Unset some first (name=None); what is not for finding runs belongs into results."
        )


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"The name of the attribute {name!r} must be a str.")
    # Databases that pad text take "a" and "a " for the same name.
    if not 1 <= len(name) <= NAME_LIMIT or name != name.strip() or not _is_storable(name):
        raise ValueError(
            f"The name of the attribute {name!r} must have 1 to {NAME_LIMIT} characters, none of them NUL,"
            " and no blanks at its ends."
        )


def _check_value(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"The attribute {name!r} must be a str or None, not {value!r}; write str(...).")
    if not _is_storable(value):
        raise ValueError(f"The attribute {name!r} must be text without NUL and lone surrogates, not {value!r}.")
    if (size := len(value.encode())) > VALUE_LIMIT:
        raise ValueError(
            f"The attribute {name!r} has {size} bytes, and {VALUE_LIMIT} is the most."
            "  Attributes are for finding runs: keep the value itself elsewhere."
        )


def _is_storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


class Known:
    """
    A run's attributes as its workflow can know them, the same on every replay.

    What the workflow asks for counts at once, and takes its place in the log when it is recorded.
    """

    def __init__(self) -> None:
        self._recorded: dict[str, str] = {}
        self._asked: dict[str, Changes] = {}

    def now(self) -> dict[str, str]:
        return merged(self._recorded, *self._asked.values())

    def ask(self, op_id: str, change: Changes) -> None:
        """The workflow's own change, before the log has it."""
        self._asked[op_id] = change

    def record(self, op_id: str, change: Changes) -> None:
        """The next change in the log."""
        self._asked.pop(op_id, None)
        self._recorded = merged(self._recorded, change)
