"""Durations and moments: what is taken, what is refused, and how exact it is."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable.duration import LATEST, due_at, from_datetime, to_datetime, to_micros

SECOND = 1_000_000
NOON = 43_200 * SECOND
MOMENTS = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.timezones())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("30s", 30 * SECOND),
        ("1h30m", 5_400 * SECOND),
        ("1h 30m", 5_400 * SECOND),
        (" 2 d ", 2 * 86_400 * SECOND),
        ("1w", 7 * 86_400 * SECOND),
        ("500ms", 500_000),
        ("1m500ms", 60 * SECOND + 500_000),
        ("1.5h", 5_400 * SECOND),
        ("0.1s", 100_000),
        ("25", 25 * SECOND),
        ("0s", 0),
        (30, 30 * SECOND),
        (0.5, 500_000),
        (0, 0),
        (timedelta(days=1, microseconds=3), 86_400 * SECOND + 3),
    ],
)
def test_takes_text_seconds_and_timedeltas(value, expected):
    """A duration is text with units, a number of seconds, or a timedelta."""
    assert expected == to_micros(value)


@pytest.mark.parametrize(
    "value",
    [
        *[
            "",
            "s",
            "1x",
            "1H",
            "-1s",
            "+1s",
            "1h-5m",
            "1,5h",
            "1e3s",
            ".5s",
            "1.s",
            "nan",
            "inf",
            "1s\n1s",
            "\u0663s",
        ],
        *[-1, -0.5, float("nan"), float("inf"), -float("inf"), 1e300, "9" * 18 + "w", "9" * 5_000 + "s"],
        *[True, None, b"1s", [], timedelta(microseconds=-1), timedelta.max],
        pytest.param(10**5_000, id="an int too long for str"),
    ],
)
def test_refuses_anything_else_with_the_value(value):
    """What is no duration raises ValueError, and the message begins with what the value is for."""
    with pytest.raises(ValueError, match=r"\Atimeout "):
        to_micros(value, what="timeout")


def test_the_message_shows_the_value():
    """The value stands in the message, with what would be accepted."""
    with pytest.raises(ValueError, match=r"duration '5 minutes' is malformed; use a str with the units ms, s, m"):
        to_micros("5 minutes")


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=365_000)))
def test_a_timedelta_is_exact(value):
    """No microsecond is lost, however long the duration."""
    assert value == timedelta(microseconds=to_micros(value))


@given(st.integers(0, 400_000), st.sampled_from(["ms", "s", "m", "h", "d", "w"]))
def test_a_number_and_a_unit_is_exact(number, unit):
    """Text is not converted by way of a float."""
    assert number * to_micros(f"1{unit}") == to_micros(f"{number}{unit}")


def test_a_duration_is_due_after_now():
    """A sleep of a duration is due that much after its beginning."""
    assert due_at("1m30s", NOON) == NOON + 90 * SECOND


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-5)), ZoneInfo("Europe/Berlin")])
def test_an_aware_datetime_is_due_at_its_own_moment(zone):
    """A datetime means its instant, in any time zone, also one that is past."""
    assert due_at(datetime(1970, 1, 1, 12, tzinfo=UTC).astimezone(zone), 2 * NOON) == NOON


def test_a_naive_datetime_is_refused():
    """A datetime without a zone names no moment."""
    with pytest.raises(ValueError, match="has no time zone"):
        due_at(datetime(2026, 1, 1), NOON)


def test_a_moment_after_the_last_one_is_refused():
    """What would not fit a datetime is refused, rather than failing later."""
    with pytest.raises(ValueError, match="ends after the year 9999"):
        due_at(1, LATEST)


@pytest.mark.parametrize(
    "value",
    [
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-5))),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))),
    ],
)
def test_a_datetime_that_utc_has_not_is_refused(value):
    """Its offset puts it outside the years 1 to 9999 in UTC, where nothing could show it."""
    with pytest.raises(ValueError, match="is not in the years 1 to 9999 in UTC"):
        due_at(value, NOON)


@given(MOMENTS)
def test_moments_and_datetimes_are_exact_opposites(moment):
    """An aware datetime survives as microseconds; a fold is another moment."""
    micros = from_datetime(moment)

    assert moment.astimezone(UTC) == to_datetime(micros)
    assert micros == from_datetime(to_datetime(micros))


def test_the_last_moment_is_the_last_datetime():
    """LATEST is what a datetime can just hold."""
    assert datetime.max.replace(tzinfo=UTC) == to_datetime(LATEST)
