"""TODO"""

from .guards import refuse_in_workflow
from .process_ends import ProcessEnd, ends_process
from .source_lines import calling_line, waiting_line

__all__ = [
    "ProcessEnd",
    "calling_line",
    "ends_process",
    "refuse_in_workflow",
    "waiting_line",
]
