"""TODO"""

from .deadlines import Limit, grace
from .engine import Engine, send_drive, send_drives, transport_defaults
from .fan_in import MANY, PATIENCE_SECS
from .process import Identity, identify, is_gone
from .replay_cache import Kept, Loan, unclosable
from .watchdog import Watch

__all__ = [
    "MANY",
    "PATIENCE_SECS",
    "Engine",
    "Identity",
    "Kept",
    "Limit",
    "Loan",
    "Watch",
    "grace",
    "identify",
    "is_gone",
    "send_drive",
    "send_drives",
    "transport_defaults",
    "unclosable",
]
