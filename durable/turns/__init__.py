"""TODO"""

from .continuation import Journey
from .drive import conclude, drive, take_in

__all__ = [
    "Journey",
    "conclude",
    "drive",
    "take_in",
]
