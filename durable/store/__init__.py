"""
The store: all SQL, one file for each table or transaction.

Files named by a noun hold the queries of one table.  Files named by a verb hold one transaction, which on PostgreSQL is
one statement where that is faster.  ``with store.begin() as tx`` opens a transaction; the functions take it.

Files, in import order::

    schema.py              the tables
    outages.py             which database errors pass, and writing until one has passed
    outbox.py              when a row's message is sent, and sent again
    attributes.py          attributes of runs
    payloads.py            large values in the database, or at a URL
    statements.py          prepared statements of the hot path
    vault.py               encryption, and large values by reference
    database.py            connections, transactions, and the database's clock
    event_rows.py          events as rows
    payload_references.py  which runs refer to which large values
    backlog.py             how much waits, over all runs: bounded counts for people
    claims.py              an attempt that a process has claimed
    hooks.py               hooks and webhooks by token
    requests.py            webhook requests and their answers
    run_log.py             a run's log and inbox
    runs.py                runs
    accept_request.py      a webhook request comes in: request row and inbox item
    retention.py           ended runs, and their deletion
    start_run.py           a run begins: run row and first inbox item
    steps.py               steps to run, from the call until the outcome
    doubts.py              attempts in doubt
    turns.py               what a turn reads, and what a plain turn writes
    waits.py               sleeps and timeouts to come
    end_operation.py       an attempt or a wait ends: its row goes, its run gets an inbox item
    workers.py             live processes, their heartbeats, and the sweep's lease
"""

from .backlog import BOUND, Waiting
from .claims import Claim
from .database import Store
from .doubts import InDoubt, settle
from .hooks import Hook
from .outages import RETRY_DELAYS_SECS, is_contention, reason, is_unavailable, retry_until_available
from .outbox import WORK_LISTS, Kind, SendTimes, count_held_until_due
from .payloads import PayloadStore, PayloadStoreError, SqlPayloads, StoredPayload, UrlPayloads
from .retention import EndedRun
from .run_log import DriveRow, InboxItem
from .runs import ENDED, Run
from .schema import REVISION, VERSION_TABLE, inbox
from .steps import ClaimedAttempt, StepRow
from .vault import LIMIT, OPTION, REFERENCE, Vault, is_large, key_id_of
from .waits import WaitRow
from .workers import Worker

__all__ = [
    "BOUND",
    "ENDED",
    "LIMIT",
    "OPTION",
    "REFERENCE",
    "RETRY_DELAYS_SECS",
    "REVISION",
    "VERSION_TABLE",
    "WORK_LISTS",
    "Claim",
    "Doubt",
    "DriveRow",
    "EndedRun",
    "Held",
    "Hook",
    "InboxItem",
    "Kind",
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
