"""Check the length of streams."""

from __future__ import annotations

from .finding import SHOWN, Finding, listed
from .situation import MANY_ITEMS, Situation


def streams(situation: Situation) -> Finding:
    """No open stream has far more items than its ``keep`` says; those without ``keep`` that grow are named."""
    too_long = [each for each in situation.long_streams if each.keep is not None]
    unbounded = [
        f"{each.name} of run {each.run_id} ({each.items:,} items)"
        for each in situation.long_streams
        if each.keep is None
    ]
    if too_long:
        described = [f"{each.name} of run {each.run_id} ({each.items:,}, keep={each.keep:,})" for each in too_long]
        return Finding(
            name="streams",
            ok=False,
            detail=f"Streams have far more items than they keep: {listed(described)}.",
            fix="The next item that is emitted to such a stream deletes the oldest ones.  If it stays as long, please"
            " report it: this is a fault in durable.  `durable runs stream ID` lists the streams of a run.",
        )
    if unbounded:
        more = ", …" if len(unbounded) > SHOWN else ""
        return Finding(
            name="streams",
            ok=True,
            detail=f"Streams without keep= have more than {MANY_ITEMS:,} items: {', '.join(unbounded[:SHOWN])}{more}.",
            fix="If readers need only the newest items, give the stream a keep=.  They are deleted with their run.",
        )
    return Finding(name="streams", ok=True, detail="no stream is longer than it should be")
