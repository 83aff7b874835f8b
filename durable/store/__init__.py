"""
The store: the only SQL, split by what it stores.

``database.py`` opens connections and knows the database's clock; the other
files are functions on a connection.  Callers open one transaction, ``with
store.begin() as tx``, and call what has to happen in it together.
"""

from .database import Store, contended, reason, unreachable
from .patience import PATIENCE_SECS, until_recorded

__all__ = ["PATIENCE_SECS", "Store", "contended", "reason", "unreachable", "until_recorded"]
