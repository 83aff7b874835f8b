"""
Whether a failed attempt is retried, and after how long.

The rule is that of Celery's ``autoretry_for``
(``celery.utils.time.get_exponential_backoff_interval``): the delay doubles from
``backoff`` to ``backoff_max``.  With jitter it is a random number between 0 and
that, so that attempts which failed together are not retried together.  The
caller draws the random number, so this module stays deterministic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ConfigurationError


@dataclass(frozen=True)
class RetryPolicy:
    """
    How often a step is retried, and with which delays.

    Attributes:
        max_retries: The number of attempts after the first; None never gives up.
        backoff: Seconds before the second attempt, doubled for each later one.  True is 1, as in Celery.
        backoff_max: The longest delay, in seconds.
        jitter: Whether to draw the delay at random between 0 and that.

    Raises:
        ConfigurationError: A value is out of range.
    """

    max_retries: int | None = 3
    backoff: float = 1
    backoff_max: float = 600
    jitter: bool = True

    def __post_init__(self) -> None:
        retries: object = self.max_retries
        if retries is not None and (not isinstance(retries, int) or isinstance(retries, bool) or retries < 0):
            raise _bad("max_retries", retries, "a whole number, 0 or more, or None to never give up")
        if self.backoff is not True and not _is_seconds(self.backoff):
            raise _bad("retry_backoff", self.backoff, "seconds, 0 or more; 0 retries at once")
        if not _is_seconds(self.backoff_max):
            raise _bad("retry_backoff_max", self.backoff_max, "seconds, 0 or more")
        if not isinstance(self.jitter, bool):
            raise _bad("retry_jitter", self.jitter, "True or False")

    def may_retry(self, attempt: int) -> bool:
        """Whether to retry after *attempt* (the first is 1) has failed."""
        return self.max_retries is None or attempt <= self.max_retries

    def delay_before(self, attempt: int, draw: float) -> float:
        """
        Seconds to wait before *attempt*, the next one (2 or more).

        Args:
            draw: A random number in [0, 1).  Without jitter it has no effect.
        """
        doublings = min(attempt - 2, 1_000)  # 2.0 ** 1024 raises OverflowError; a product becomes inf
        delay = min(self.backoff_max, self.backoff * 2.0**doublings)
        return float(delay * draw if self.jitter else delay)


def _is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _bad(name: str, value: object, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"{name}={value!r} is out of range.  Use {wanted}.")
