"""Print the state diagrams of the docs, made from the tables of transitions."""

from __future__ import annotations

from durable.store.transitions import RUN_TRANSITIONS, STEP_TRANSITIONS, mermaid

for diagram in (mermaid(RUN_TRANSITIONS), mermaid(STEP_TRANSITIONS)):
    print(f"```mermaid\n{diagram}\n```\n")
