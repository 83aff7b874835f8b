"""TODO"""

from .housekeeping import Housekeeping

__all__ = [
    "Housekeeping",
]
