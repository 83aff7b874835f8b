"""The nearest of the names that exist, for errors about a name that does not."""

from __future__ import annotations

from collections.abc import Iterable

#: How many characters may be wrong in a name that is a misspelling for certain.
_WRONG = 2


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return ``"  Did you mean max_retries?"`` with the most similar name, or nothing when none is similar."""
    # Only errors need it.
    from difflib import get_close_matches

    found = get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"  Did you mean {found[0]}?" if found else ""


def misspelt(name: str, names: Iterable[str]) -> str | None:
    """
    Return the name that *name* is a misspelling of; None when it may be a name of its own.

    A misspelling has at most two wrong characters, or lacks words at the end, as DATABASE for DATABASE_URL.
    """
    for other in names:
        if other.startswith(f"{name}_") or _distance(name, other) <= _WRONG:
            return other
    return None


def _distance(one: str, other: str) -> int:
    """How many characters have to be inserted, removed, replaced or swapped with the next to make one the other."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        before, above, row = row, before, [i]
        for j, right in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right))
            if above and j > 1 and left == other[j - 2] and one[i - 2] == right:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]
