"""``RunInfo``: the facts of a run that its workflow can see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..events import RunCreated, RunStarted


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """
    The facts of a run that its workflow can see.

    Attributes:
        started_at: Microseconds since 1970 UTC.
        scheduled_for: The time for which a schedule has started the run, likewise.
        continue_at: The ``seq`` from which ``should_continue_as_new`` is true; None: ``run_context.CONTINUE_AT``.
        handed_over: The open hooks that the generation before has left, as ``RunCreated`` has them.
        seed: The id that the random numbers come from, if it is not the run's own: a fork has those of its origin.
        renamed: For the digests of a fork, as ``RunCreated`` has it.
    """

    run_id: str
    name: str
    started_at: int
    public_url: str | None = None
    scheduled_for: int | None = None
    continue_at: int | None = None
    handed_over: tuple[Mapping[str, str | None], ...] = ()
    seed: str | None = None
    renamed: Mapping[str, str] | None = None

    @classmethod
    def of(cls, run_id: str, name: str, created: RunCreated, started: RunStarted) -> RunInfo:
        """The facts of a run whose log has these two events."""
        return cls(
            run_id=run_id,
            name=name,
            started_at=started.at,
            public_url=started.public_url,
            scheduled_for=created.scheduled_for,
            continue_at=started.continue_at,
            handed_over=created.handed_over,
            seed=created.seed,
            renamed=created.renamed,
        )
