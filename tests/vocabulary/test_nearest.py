"""Names that are nearly right."""

from __future__ import annotations

import pytest

from durable.nearest import did_you_mean, misspelt

NAMES = ("DATABASE_URL", "BROKER_URL", "MAX_HELD", "APP", "DEV", "SEED")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("DATABSE_URL", "DATABASE_URL"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("DATABASEURL", "DATABASE_URL"),
        ("DATABASE", "DATABASE_URL"),
        ("BROEKR_URL", "BROKER_URL"),
        ("BROKER_URLS", "BROKER_URL"),
        ("MAXHELD", "MAX_HELD"),
    ],
)
def test_a_misspelling_has_few_wrong_characters_or_lacks_the_end(given, meant):
    """Characters that are missing, too many, wrong or swapped, at most two of them."""
    assert misspelt(given, NAMES) == meant


@pytest.mark.parametrize("given", ["TEST_DATABASE_URL", "DATABASE_PASSWORD", "CONTROL_SECRET", "SERVICE_PORT", "KEY_1"])
def test_a_name_of_its_own_is_none(given):
    """A name that only shares words with another one is no misspelling of it."""
    assert misspelt(given, NAMES) is None


def test_an_error_names_the_most_similar_name():
    """Nothing is said when no name is similar."""
    assert did_you_mean("retries", ["max_retries", "retry_backoff", "timeout"]) == "  Did you mean max_retries?"
    assert did_you_mean("colour", ["max_retries", "retry_backoff", "timeout"]) == ""
