"""Workflows that stand for what authors write, each with its outside world: the corpus of ``crash_everywhere``."""

from __future__ import annotations

from .cases import Case
from .concurrency import CASES as CONCURRENCY
from .forks import CASES as FORKS
from .generations import CASES as GENERATIONS
from .hooks import CASES as HOOKS
from .limits_of_runs import CASES as LIMITS_OF_RUNS
from .patterns import CASES as PATTERNS
from .pauses import CASES as PAUSES
from .receivers import CASES as RECEIVERS
from .replies import CASES as REPLIES
from .runs import CASES as RUNS
from .steps import CASES as STEPS

CASES: list[Case] = [
    *PATTERNS,
    *STEPS,
    *CONCURRENCY,
    *HOOKS,
    *REPLIES,
    *RECEIVERS,
    *RUNS,
    *GENERATIONS,
    *FORKS,
    *LIMITS_OF_RUNS,
    *PAUSES,
]
