"""A turn that is decided and not written yet, to be committed with those of other runs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from ..engine import Checkout
from ..events import AttemptEnded
from ..store import Claim
from .decision import Decision
from .view import View


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedTurn:
    """
    What a plain turn has read and decided, and the attempt that this process runs then.

    ``began`` is when it began, by the monotonic clock in nanoseconds.
    """

    checkout: Checkout
    view: View
    decision: Decision
    begins: Claim | None
    began: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """An outcome that is not recorded yet, the turn that records it, and what puts the turn's replay away."""

    held: Claim
    ended: AttemptEnded
    turn: PreparedTurn
    checkouts: ExitStack
