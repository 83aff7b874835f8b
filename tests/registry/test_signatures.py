"""A signature of ours binds every call as Python's own does."""

from __future__ import annotations

import inspect
from itertools import permutations
from typing import Any

import pytest

from durable.registry.signatures import Signature

NAMED: list[dict[str, Any]] = [
    {name: name.upper() for name in names} for size in range(4) for names in permutations(("a", "b", "other"), size)
]


def bound(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """What a call binds, in its order; or what is wrong with it."""
    try:
        return list(signature.bind(*args, **kwargs).arguments.items())
    except TypeError as error:
        return str(error)


@pytest.mark.parametrize(
    "parameters",
    [
        "",
        "a",
        "a, b",
        "a, b=2",
        "b=1, a=2",
        "*, b, a",
        "a, *, b",
        "a, *, b=2",
        "a=1, *, b",
        "a, /, b",
        "a, /, b=2",
        "a, *b",
        "a, **b",
        "a, b=1, *rest, **more",
    ],
)
def test_a_call_is_bound_as_inspect_binds_it(parameters):
    """Whatever is given by position and by name: the same arguments in the same order, or the same TypeError."""
    names: dict[str, Any] = {}
    exec(f"def function({parameters}): pass", names)
    ours, pythons = Signature.from_callable(names["function"]), inspect.signature(names["function"])

    for args in ((), (1,), (1, 2), (1, 2, 3)):
        for kwargs in NAMED:
            assert bound(ours, args, kwargs) == bound(pythons, args, kwargs)
