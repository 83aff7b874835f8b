"""Planned times: cron expressions, Celery's crontab and intervals, at changes of the clock too; what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import crontab
from hypothesis import given
from hypothesis import strategies as st

from durable import ConfigurationError, duration
from durable.schedules import timing
from durable.schedules.timing import Every, from_json, last_until, make

VIENNA = "Europe/Vienna"


def times(cron, tz, begin, count):
    """The next planned times after *begin*, as the clock of the zone shows them."""
    made, zone = make(cron, None, tz), ZoneInfo(tz)
    moment, found = duration.from_iso(begin), []
    for _ in range(count):
        moment = made.next_after(moment)
        found.append(duration.to_datetime(moment).astimezone(zone).isoformat())
    return found


def test_a_time_that_the_clock_leaves_out_is_the_moment_of_the_change():
    """In Vienna there is no 02:30 on 29 March 2026: the clock goes from 02:00 to 03:00."""
    assert times("30 2 * * *", VIENNA, "2026-03-28T00:00+00:00", 3) == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_a_time_that_the_clock_shows_twice_is_the_first_of_the_two():
    """In Vienna 02:30 comes twice on 25 October 2026: the clock goes from 03:00 back to 02:00."""
    assert times("30 2 * * *", VIENNA, "2026-10-24T02:00+00:00", 3) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
        "2026-10-27T02:30:00+01:00",
    ]


@pytest.mark.parametrize(
    ("begin", "expected"),
    [
        ("2026-03-28T23:59:59+00:00", ["01:00+01:00", "01:30+01:00", "03:00+02:00", "03:30+02:00", "04:00+02:00"]),
        ("2026-10-24T23:59:59+00:00", ["02:00+02:00", "02:30+02:00", "03:00+01:00", "03:30+01:00", "04:00+01:00"]),
    ],
    ids=["forward", "back"],
)
def test_each_wall_clock_time_of_a_repeating_cron_comes_once(begin, expected):
    found = times("*/30 * * * *", VIENNA, begin, 5)
    assert [each[11:16] + each[19:] for each in found] == expected


def test_a_change_of_half_an_hour_is_a_change_too():
    """On Lord Howe Island the clock goes from 02:00 to 02:30."""
    assert times("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00+00:00", 1) == ["2026-10-04T02:30:00+11:00"]


@pytest.mark.parametrize("zone", [VIENNA, "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"])
def test_in_a_year_of_changes_each_day_has_its_time_once(zone):
    found = times("30 2 * * *", zone, "2026-01-01T12:00+00:00", 365)
    assert len({each[:10] for each in found}) == 365


def test_celerys_crontab_has_the_days_that_match_in_every_field():
    """`0 0 1 * 1` in cron is each 1st and each Monday; in Celery each 1st that is a Monday."""
    both = crontab(minute=0, hour=0, day_of_month="1", day_of_week="mon")
    assert times(both, "UTC", "2026-01-01T00:00+00:00", 2) == ["2026-06-01T00:00:00+00:00", "2027-02-01T00:00:00+00:00"]
    either = times("0 0 1 * 1", "UTC", "2026-01-01T00:00+00:00", 2)
    assert either == ["2026-01-05T00:00:00+00:00", "2026-01-12T00:00:00+00:00"]


@pytest.mark.parametrize(
    "fields", [{"minute": "*/20", "hour": "8-10"}, {"minute": 0, "hour": 0, "day_of_week": "sat,sun"}]
)
def test_celerys_crontab_has_the_times_that_celery_has(fields):
    """Celery's own computation finds the same times."""
    cron = crontab(**fields, nowfun=lambda: now, app=None)
    now, made, moment = datetime(2026, 5, 1, tzinfo=UTC), make(cron, None, "UTC"), None
    for _ in range(8):
        moment = made.next_after(duration.from_datetime(now))
        start, delta, _ = cron.remaining_delta(now, tz=UTC)
        assert duration.to_datetime(moment) == start + delta
        now = duration.to_datetime(moment)


def test_an_interval_is_counted_from_1970():
    """Every process computes the same times, also after a restart."""
    quarter = make(None, "15m", "UTC")
    first = quarter.next_after(duration.from_iso("2026-01-01T10:07+00:00"))
    assert duration.iso(first) == "2026-01-01T10:15:00+00:00"
    assert duration.iso(quarter.next_after(first)) == "2026-01-01T10:30:00+00:00"


@pytest.mark.parametrize(
    "made", [make("5 4 * * 1-5", None, VIENNA), make(None, "90s", "UTC"), make(crontab(), None, VIENNA)]
)
def test_a_timing_is_the_same_after_it_was_stored(made):
    """It is written as before, and has the same times."""
    stored = from_json(made.to_json())
    assert stored.to_json() == made.to_json()
    assert stored.next_after(0) == made.next_after(0)


@given(st.integers(0, 10**9), st.integers(0, 40 * 86_400), st.sampled_from(["* * * * *", "17 3 * * *", "0 0 1 1 *"]))
def test_the_last_time_is_found_without_counting_from_the_first(begin, passed, cron):
    made = make(cron, None, VIENNA)
    since = made.next_after(begin * 1_000_000)
    until = since + passed * 1_000_000
    last = last_until(made, until, since)
    assert since <= last <= until
    assert made.next_after(last) > until


def test_the_last_of_many_times_is_found_quickly():
    """A machine that was suspended for a year does not count the minutes."""
    made, calls = Every(60_000_000), []

    class Counted:
        def next_after(self, moment):
            calls.append(moment)
            return made.next_after(moment)

    last_until(Counted(), 366 * 86_400_000_000, 60_000_000)
    assert len(calls) < 10


@pytest.mark.parametrize(
    ("cron", "every", "tz", "says"),
    [
        ("0 0 30 2 *", None, "UTC", "never fires"),
        ("0 0 31 4,6 *", None, "UTC", "never fires"),
        ("61 * * * *", None, "UTC", "Bad minute"),
        ("* * * *", None, "UTC", "has 4 fields"),
        ("0 0 0 * * *", None, "UTC", "has 6 fields"),
        ("@reboot", None, "UTC", "has 1 fields"),
        (5, None, "UTC", "is a int"),
        (None, None, "UTC", "Give a schedule either"),
        ("* * * * *", "1h", "UTC", "Give a schedule either"),
        (None, "500ms", "UTC", "shorter than a second"),
        (None, "soon", "UTC", "malformed"),
        ("* * * * *", None, "Mars/Olympus", "no time zone"),
        ("* * * * *", None, "../etc/passwd", "no time zone"),
        ("* * * * *", None, "Europe", "no time zone"),
        (None, "1h", None, "no time zone"),
    ],
)
def test_what_never_fires_is_refused_where_it_is_defined(cron, every, tz, says):
    with pytest.raises(ConfigurationError, match=says):
        make(cron, every, tz)


def test_names_for_common_expressions_are_understood():
    assert make("@daily", None, "UTC") == timing.Cron("0 0 * * *", ZoneInfo("UTC"))
