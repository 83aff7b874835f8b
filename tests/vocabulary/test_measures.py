"""What a process counts in memory: counters, histograms, and what is left after a flush, a failed one, or a fork."""

from __future__ import annotations

import os
import threading

import pytest

from durable import measures
from durable.measures import MESSAGES_SENT, TURN_SECONDS, Measures


def test_a_counter_sums_by_its_labels():
    """Each combination of labels has an entry of its own."""
    counted = Measures()
    counted.count(MESSAGES_SENT, "turn")
    counted.count(MESSAGES_SENT, "turn", by=4)
    counted.count(MESSAGES_SENT, "step")

    assert counted.take() == {("durable_messages_sent", "turn", ""): 5, ("durable_messages_sent", "step", ""): 1}


@pytest.mark.parametrize(
    ("micros", "bucket"),
    [(0, "0.001"), (1_000, "0.001"), (1_001, "0.0025"), (7_200_000_000, "7200.0"), (7_200_000_001, "+Inf")],
)
def test_a_duration_is_in_the_bucket_of_the_next_bound(micros, bucket):
    """A duration that equals a bound is in its bucket, as Prometheus's ``le`` says."""
    observed = Measures()
    observed.observe(TURN_SECONDS, micros, "w")

    assert observed.take() == {(TURN_SECONDS.name, "w", bucket): 1, (TURN_SECONDS.name, "w", "sum"): micros}


def test_a_negative_duration_counts_as_none():
    """Two clocks that differ do not make a sum go down."""
    observed = Measures()
    observed.observe(TURN_SECONDS, -5)

    assert observed.take()[TURN_SECONDS.name, "", "sum"] == 0


def test_what_is_taken_is_gone_and_can_be_put_back():
    """A flush that fails loses nothing, also of what was counted meanwhile."""
    counted = Measures()
    counted.count(MESSAGES_SENT, "turn", by=2)
    taken = counted.take()
    assert counted.take() == {}

    counted.count(MESSAGES_SENT, "turn")
    counted.put_back(taken)

    assert counted.take() == {("durable_messages_sent", "turn", ""): 3}


def test_threads_lose_no_count():
    """Eight threads count, and a ninth takes meanwhile: every count is in exactly one of the parts."""
    counted, parts, ended = Measures(), [], threading.Event()

    def take():
        while not ended.is_set():
            parts.append(counted.take())

    taker = threading.Thread(target=take)
    threads = [
        threading.Thread(target=lambda: [counted.count(MESSAGES_SENT, "turn") for _ in range(5_000)]) for _ in range(8)
    ]
    for thread in (taker, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    taker.join()

    assert sum(sum(part.values()) for part in [*parts, counted.take()]) == 40_000


def test_a_child_process_begins_with_nothing():
    """What the parent has counted is the parent's to add, and not the child's too."""
    counted = Measures()
    counted.count(MESSAGES_SENT, "turn")
    pid = os.fork()
    if pid == 0:
        os._exit(len(counted.take()))

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(counted.take()) == 1


def test_names_follow_prometheus():
    """Names are in the namespace, have base units and no suffix that the exposition adds; labels are few."""
    names = [each.name for each in measures.INSTRUMENTS]

    assert len(set(names)) == len(names)
    for each in measures.INSTRUMENTS:
        assert each.name.startswith("durable_")
        assert not each.name.endswith(("_total", "_count", "_bucket", "_sum"))
        assert len(each.labels) <= (1 if isinstance(each, measures.Histogram) else 2)
        assert each.name.endswith("_seconds") == isinstance(each, measures.Histogram)
