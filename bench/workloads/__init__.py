"""The workloads, a file each; docs/explanation/performance.md lists them."""

from __future__ import annotations

from typing import Any

from ..figures import Workload
from . import (
    batch,
    fairness,
    fan_out,
    first_step,
    held,
    items,
    long_haul,
    many_runs,
    old_runs,
    replays,
    sequence,
    sleeps,
    webhook,
)

_FILES = (
    sequence,
    many_runs,
    fan_out,
    sleeps,
    webhook,
    first_step,
    replays,
    held,
    old_runs,
    long_haul,
    batch,
    items,
    fairness,
)

#: By name, in the order in which they are measured.
WORKLOADS: dict[str, Workload[Any]] = {file.WORKLOAD.name: file.WORKLOAD for file in _FILES}
