"""
For the tests of applications: workflows in memory, a clock that jumps, and crashes wherever one can happen.

docs/testing.md shows them; ``durable.testing.plugin`` has the fixtures for pytest.
"""

from .clock import Crashed
from .crash_everywhere import Report, crash_everywhere
from .environment import Environment
from .histories import export, replay

__all__ = ["Crashed", "Environment", "Report", "crash_everywhere", "export", "replay"]
