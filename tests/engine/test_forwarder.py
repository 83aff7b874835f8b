"""Messages for other workers are sent on at once or after a pause, and none is left when the process ends."""

from __future__ import annotations

import pytest

from durable.engine.forwarder import LONGEST_SECS, SPACING_SECS, Forwarder


def test_every_second_hop_is_at_once_and_the_pauses_between_them_grow():
    """A message whose workers are busy does not go round without a pause."""
    now = [100.0]
    forwarder = Forwarder(lambda: now[0])
    pauses = []
    for hops in range(40):
        now[0] += 1
        pauses.append(forwarder.pause(hops))

    assert set(pauses[::2]) == {0.0}
    assert 0.025 <= pauses[1] <= 0.05
    assert all(LONGEST_SECS / 2 <= pause <= LONGEST_SECS for pause in pauses[11::2])


def test_many_messages_are_spaced():
    """A long queue of unknown messages keeps the process from sending more than so many each second."""
    forwarder = Forwarder(lambda: 100.0)
    pauses = [forwarder.pause(0) for _ in range(1000)]

    assert pauses[0] == 0.0
    assert pauses[-1] == pytest.approx(999 * SPACING_SECS)
