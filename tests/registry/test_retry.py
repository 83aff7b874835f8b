"""RetryPolicy: how often, how fast, and what is no policy."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable import ConfigurationError
from durable.registry.retry import RetryPolicy

SECONDS = st.floats(0, 1e6)


def test_c22_by_default_there_are_four_attempts():
    """c22: three retries follow the first attempt."""
    policy = RetryPolicy()

    assert [policy.may_retry(attempt) for attempt in (1, 2, 3, 4)] == [True, True, True, False]


def test_c24_no_retries_means_one_attempt():
    """c24: max_retries=0 makes the first attempt the last."""
    assert not RetryPolicy(max_retries=0).may_retry(1)


def test_none_never_gives_up():
    """max_retries=None retries for ever."""
    assert RetryPolicy(max_retries=None).may_retry(10**9)


def test_the_delay_doubles_up_to_its_maximum():
    """Without jitter the delays are backoff, its doubles, then backoff_max."""
    policy = RetryPolicy(backoff=0.5, backoff_max=3, jitter=False)

    assert [policy.delay_before(attempt, 0.9) for attempt in (2, 3, 4, 5, 5_000)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_true_is_one_second_as_in_celery():
    """Celery's retry_backoff=True is a factor of 1."""
    assert [RetryPolicy(backoff=True, jitter=False).delay_before(n, 0) for n in (2, 3)] == [1.0, 2.0]


@given(SECONDS, SECONDS, st.integers(2, 10_000), st.floats(0, 1, exclude_max=True))
def test_jitter_draws_from_nothing_to_the_whole_delay(backoff, backoff_max, attempt, draw):
    """The drawn delay is that share of the delay without jitter: finite, and never above backoff_max."""
    whole = RetryPolicy(backoff=backoff, backoff_max=backoff_max, jitter=False).delay_before(attempt, draw)
    drawn = RetryPolicy(backoff=backoff, backoff_max=backoff_max).delay_before(attempt, draw)

    assert 0 <= whole <= backoff_max
    assert whole * draw == drawn


@pytest.mark.parametrize(
    "options",
    [{"max_retries": bad} for bad in (-1, 1.5, True, "3", math.inf)]
    + [{"backoff": bad} for bad in (-1, math.nan, math.inf, "1s", None, False)]
    + [{"backoff_max": bad} for bad in (-1, math.nan, math.inf, None, True)]
    + [{"jitter": bad} for bad in (1, None, "yes")],
)
def test_what_is_no_policy_is_refused(options):
    """A value that makes no sense is told by its name in the decorator, with the value."""
    (name,) = options

    with pytest.raises(ConfigurationError, match=name) as caught:
        RetryPolicy(**options)

    assert repr(options[name]) in str(caught.value)
