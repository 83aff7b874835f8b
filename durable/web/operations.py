"""All that a caller of the control routes can do."""

from __future__ import annotations

from . import (
    control_operations,
    go_on_operations,
    hook_operations,
    limit_operations,
    pause_operations,
    receiver_operations,
    schedule_operations,
    stream_operations,
)

OPERATIONS = (
    *control_operations.OPERATIONS,
    *hook_operations.OPERATIONS,
    *go_on_operations.OPERATIONS,
    *pause_operations.OPERATIONS,
    *schedule_operations.OPERATIONS,
    *receiver_operations.OPERATIONS,
    *limit_operations.OPERATIONS,
    *stream_operations.OPERATIONS,
)
