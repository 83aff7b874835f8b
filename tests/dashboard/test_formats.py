"""Sentences as HTML."""

from __future__ import annotations

from durable.dashboard import formats


def test_commands_in_a_sentence_are_code():
    """What is between backticks becomes code, and markup in a sentence stays text."""
    assert formats.with_code("Run `durable <x>`, <b>now</b>.") == (
        "Run <code>durable &lt;x&gt;</code>, &lt;b&gt;now&lt;/b&gt;."
    )
    assert formats.with_code("one ` alone") == "one ` alone"
