"""Calls of ``continue_as_new`` that do not fit are errors where the workflow is defined."""

from __future__ import annotations

from typing import Any

import pytest

import durable
from durable import ConfigurationError, continue_as_new, workflow


async def too_many(left: int) -> None:
    continue_as_new(left, 1)


async def unknown_name(left: int) -> None:
    if left:
        durable.continue_as_new(right=1)


async def none_at_all(left: int) -> None:
    async def later() -> None:
        continue_as_new()

    await later()


async def fitting(left: int, *more: int, **names: Any) -> None:
    continue_as_new(left, *more, **names)
    continue_as_new(left=1, other=2)
    continue_as_new(*more)
    continue_as_new(**names)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (too_many, r"too_many\(left: 'int'\) -> 'None': continue_as_new\(\) at .*test_continuing.py:14 does not fit"),
        (unknown_name, "missing a required argument: 'left'"),
        (none_at_all, "missing a required argument: 'left'"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(function, text):
    """The error names the workflow, its signature and the line."""
    with pytest.raises(ConfigurationError, match=text):
        workflow(name=f"test_continuing.{function.__name__}")(function)


class CallsByName:
    """Looks its attributes up; any other name is a KeyError."""

    def __call__(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return {}[name]


calls_by_name = CallsByName()


async def calling_an_object(left: int) -> None:
    calls_by_name()
    continue_as_new(left)


def test_an_object_that_raises_when_asked_is_no_call_of_it():
    """A workflow may call any object; the check of its calls does not ask it for attributes."""
    workflow(name="test_continuing.calling_an_object")(calling_an_object)


def test_what_only_a_run_knows_is_left_to_it():
    """Arguments with stars are checked at the call."""
    assert workflow(name="test_continuing.fitting")(fitting).name == "test_continuing.fitting"
