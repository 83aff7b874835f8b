"""Times and axes as people read them."""

from __future__ import annotations

import pytest

from durable.display import WIDTH, Axis, formats

SECOND = 1_000_000
NOON = 1_769_860_800 * SECOND


@pytest.mark.parametrize(
    ("span", "text"),
    [(3 * SECOND, "12:00:00.000"), (4 * SECOND, "12:00:00"), (3600 * SECOND, "12:00:00"), (10**12, "01-31 12:00")],
)
def test_ticks_have_as_many_digits_as_their_axis_needs(span, text):
    """Milliseconds only where ticks are closer than a second, and the day where the axis has several."""
    assert formats.tick(NOON, span) == text


@pytest.mark.parametrize(
    ("secs", "text"),
    [(-1, "now"), (0.9, "now"), (1, "1 s ago"), (119, "1 min ago"), (7_200, "2 h ago"), (3 * 86_400, "3 d ago")],
)
def test_how_long_ago_has_one_unit(secs, text):
    """The largest unit that fits; a time that the clock has not reached is ``now``."""
    assert formats.ago(NOON, NOON + int(secs * SECOND)) == text
    assert formats.ago(None, NOON) == "-"


@pytest.mark.parametrize("span", [1, 999, SECOND, 61 * SECOND, 86_400 * SECOND, 10_000 * 86_400 * SECOND])
def test_an_axis_has_few_round_ticks(span):
    """However long the axis is, it has at most seven ticks, all within it."""
    axis = Axis(1_700_000_000_123_456, 1_700_000_000_123_456 + span)
    ticks = axis.ticks()

    assert len(ticks) <= 7
    assert all(0 <= axis.x(tick) <= WIDTH for tick in ticks)


def test_an_axis_cuts_what_is_beyond_it():
    """Bars that begin before or end after the axis are drawn to its ends; others are not shown."""
    axis = Axis(100, 200)

    assert (axis.x(50), axis.x(150), axis.x(300)) == (0, 50, 100)
    assert axis.shows(50, 120)
    assert not axis.shows(10, 99)
    assert (axis.zoomed(0.5).span, axis.moved(0.5).start) == (1000, 150)
