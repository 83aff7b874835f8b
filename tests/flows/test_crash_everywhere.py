"""Wherever it crashes, whichever message is lost, repeated or late: a run comes to the same, and its log is whole."""

from __future__ import annotations

import os

import pytest
from corpus import CASES

from durable.testing import crash_everywhere

#: How many faults each case is tried with; ``DURABLE_CRASHES=all``, as ``make thorough`` has it, tries all of them.
SAMPLE = None if os.environ.get("DURABLE_CRASHES") == "all" else int(os.environ.get("DURABLE_CRASHES", "3"))
#: Which of them; another seed is another choice.
SEED = int(os.environ.get("DURABLE_SEED", "258611"))


@pytest.mark.parametrize(
    ("continuation", "first_turn_budget"),
    [(0, 0), ("1s", 0), ("1s", "60s")],
    ids=["by messages", "in place", "with its first turn"],
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_wherever_it_crashes_it_comes_to_the_same(case, continuation, first_turn_budget):
    """
    Every boundary and every message of the corpus, or a sample of them.

    Message by message; in place; and where the start takes the first turn.
    """
    print(f"DURABLE_SEED={SEED}")

    report = crash_everywhere(
        case.workflow,
        *case.args,
        during=case.during,
        outcome=case.outcome,
        sample=SAMPLE,
        seed=SEED,
        continuation=continuation,
        first_turn_budget=first_turn_budget,
    )

    print(f"{case}: {report}")
    assert report.boundaries > 10
    # In place the first turn's message may be the only one.
    assert report.messages >= (1 if continuation else 2)
    assert report.played == min(SAMPLE or 10**6, report.boundaries + 3 * report.messages)


def test_the_corpus_is_large_enough_to_mean_something():
    """More than 50 workflows, each once, as the documentation says."""
    assert len({case.workflow.name for case in CASES}) == len(CASES) > 50
