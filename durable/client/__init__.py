"""TODO"""

from .hooks import HookInfo
from .run import Client
from .start import Options

__all__ = [
    "Client",
    "HookInfo",
    "Options",
]
