"""
When a failed attempt is followed by another, and after how long.

Pure: the caller draws the random number.  Celery's ``autoretry_for`` gives the
rule (``celery.utils.time.get_exponential_backoff_interval``): the delay doubles
from ``backoff`` to ``backoff_max``, and jitter makes it anything between 0 and
that, so that attempts which failed together don't come back together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ConfigurationError


@dataclass(frozen=True)
class RetryPolicy:
    """
    How often, and how fast, a step is tried again.

    Attributes:
        max_retries: Attempts after the first; None never gives up.
        backoff: Seconds before the second attempt; doubled for each later one.  True is 1, as in Celery.
        backoff_max: The longest delay, in seconds.
        jitter: Whether the delay is drawn from 0 to that.

    Raises:
        ConfigurationError: For a value that makes no sense.
    """

    max_retries: int | None = 3
    backoff: float = 1
    backoff_max: float = 600
    jitter: bool = True

    def __post_init__(self) -> None:
        if self.max_retries is not None and not _is_count(self.max_retries):
            raise _bad("max_retries", self.max_retries, "a whole number from 0, or None to never give up")
        if self.backoff is not True and not _is_seconds(self.backoff):
            raise _bad("retry_backoff", self.backoff, "seconds from 0; 0 retries at once")
        if not _is_seconds(self.backoff_max):
            raise _bad("retry_backoff_max", self.backoff_max, "seconds from 0")
        if not isinstance(self.jitter, bool):
            raise _bad("retry_jitter", self.jitter, "True or False")

    def may_retry(self, attempt: int) -> bool:
        """Whether another attempt may follow *attempt* (1…), which has just failed."""
        return self.max_retries is None or attempt <= self.max_retries

    def delay_before(self, attempt: int, draw: float) -> float:
        """
        Seconds to wait before *attempt*, the one to come (2…).

        Args:
            draw: A random number in [0, 1), by the caller; without jitter it changes nothing.
        """
        doublings = min(attempt - 2, 1_000)  # 2.0 ** 1024 overflows; a product merely becomes inf
        delay = min(self.backoff_max, self.backoff * 2.0**doublings)
        return float(delay * draw if self.jitter else delay)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _bad(name: str, value: object, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"{name}={value!r} is not a retry policy's; use {wanted}.")
