"""Times and sentences as text."""

from __future__ import annotations

import pytest

from durable.dashboard import formats

SECOND = 1_000_000
NOON = 1_769_860_800 * SECOND


@pytest.mark.parametrize(
    ("span", "text"),
    [(3 * SECOND, "12:00:00.000"), (4 * SECOND, "12:00:00"), (3600 * SECOND, "12:00:00"), (10**12, "01-31 12:00")],
)
def test_ticks_have_as_many_digits_as_their_axis_needs(span, text):
    """Milliseconds only where ticks are closer than a second, and the day where the axis has several."""
    assert formats.tick(NOON, span) == text


def test_commands_in_a_sentence_are_code():
    """What is between backticks becomes code, and markup in a sentence stays text."""
    assert formats.with_code("Run `durable <x>`, <b>now</b>.") == (
        "Run <code>durable &lt;x&gt;</code>, &lt;b&gt;now&lt;/b&gt;."
    )
    assert formats.with_code("one ` alone") == "one ` alone"
