"""
The store: the only SQL, split by what it stores.

``database.py`` opens connections and knows the database's clock; the other
files are functions on a connection.  Callers open one transaction, ``with
store.begin() as tx``, and call what has to happen in it together.
"""

from .backlog import BOUND, Waiting
from .claims import Claim
from .database import Store
from .doubts import Doubt, settle
from .hooks import Hook
from .outages import PATIENCE_SECS, contended, reason, unreachable, until_recorded
from .outbox import WORK_LISTS, Kind, Sending, held_until_due
from .payloads import PayloadStore, PayloadTrouble, SqlPayloads, Stored, UrlPayloads
from .retention import EndedRun
from .run_log import DriveRow, News
from .runs import ENDED, Run
from .schema import REVISION, VERSION_TABLE, inbox
from .steps import Held, StepRow
from .vault import LIMIT, OPTION, REFERENCE, Vault, is_large, key_id_of
from .waits import WaitRow
from .workers import Worker

__all__ = [
    "BOUND",
    "ENDED",
    "LIMIT",
    "OPTION",
    "PATIENCE_SECS",
    "REFERENCE",
    "REVISION",
    "VERSION_TABLE",
    "WORK_LISTS",
    "Claim",
    "Doubt",
    "DriveRow",
    "EndedRun",
    "Held",
    "Hook",
    "Kind",
    "News",
    "PayloadStore",
    "PayloadTrouble",
    "Run",
    "Sending",
    "SqlPayloads",
    "StepRow",
    "Store",
    "Stored",
    "UrlPayloads",
    "Vault",
    "WaitRow",
    "Waiting",
    "Worker",
    "contended",
    "held_until_due",
    "inbox",
    "is_large",
    "key_id_of",
    "reason",
    "settle",
    "unreachable",
    "until_recorded",
]
