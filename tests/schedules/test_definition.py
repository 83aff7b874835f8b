"""What is wrong with a schedule is an error where it is defined."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from durable import ConfigurationError, Request, schedule, step, workflow
from durable.schedules import declared


@workflow(name="defined.report")
async def report(region: str, limit: int = 10) -> None:
    """Do nothing."""


@step(name="defined.no_workflow")
def no_workflow() -> None:
    """Do nothing."""


@pytest.fixture(autouse=True)
def _own_definitions(own_registry):
    """A schedule that a test declares is not declared for the next one."""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"workflow": no_workflow}, "@workflow"),
        ({"workflow": "defined.report"}, "@workflow"),
        ({"name": "with blanks"}, "letters and digits"),
        ({"name": ""}, "letters and digits"),
        ({"args": ()}, "do not fit"),
        ({"args": "EU"}, r"args=\('EU',\)"),
        ({"args": (["EU"],)}, "do not fit"),
        ({"kwargs": {"limits": 5}}, "do not fit"),
        ({"args": ("x" * 300_000,)}, "Keep the data elsewhere"),
        ({"args": (object(),)}, "do not fit"),
        ({"args": (Request(method="GET", url="https://x.test"),)}, "do not fit|Request"),
        ({"overlap": "skipp"}, "Did you mean"),
        ({"catch_up": None}, "one of none, last, all"),
        ({"jitter": "2h"}, "longer than the shortest interval"),
        ({"jitter": "often"}, "jitter"),
        ({"until": datetime(2020, 1, 1)}, "no time zone"),
        ({"until": "2030"}, "no datetime"),
        ({"until": datetime(1970, 1, 1, tzinfo=UTC)}, "never fires"),
        ({"until": datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5)))}, "until: .* 1 to 9999 in UTC"),
        ({"every": "1h", "cron": "* * * * *"}, "either cron"),
        ({"tz": "Europe/Atlantis"}, "no time zone"),
        ({"every": None, "cron": "0 0 30 2 *"}, "never fires"),
    ],
)
def test_it_is_refused_and_nothing_is_declared(changes, says):
    given = {"name": "report", "workflow": report, "args": ("EU",), "every": "1h", **changes}
    with pytest.raises(ConfigurationError, match=says):
        schedule(given.pop("name"), given.pop("workflow"), **given)
    assert declared.definitions == {}


def test_two_schedules_have_two_names():
    schedule("report", report, ("EU",), every="1h")
    with pytest.raises(ConfigurationError, match="Two schedules are named 'report'"):
        schedule("report", report, ("US",), every="1h")


def test_a_reloader_may_declare_a_schedule_again():
    for region in ("EU", "US"):
        schedule("report", report, (region,), every="1h")
    assert '"US"' in declared.definitions["report"].args
