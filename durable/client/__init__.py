"""TODO"""

from .hooks import HookInfo
from .run import Run
from .start import Options

__all__ = [
    "HookInfo",
    "Options",
    "Run",
]
