"""
The store: all of durable's SQL.  No other room knows tables, statements or dialects.

A file named by a noun has the queries of one table; a file named by a verb has one transaction.  Most functions take a
transaction of the caller's, ``with store.begin() as tx``.  Those named ``commit…`` take the ``Store`` and are a
transaction of their own, which on PostgreSQL is one statement where that is faster.

Files, in import order::

    schema/                the tables
    transitions.py         the statuses of runs and steps, and every change from one to another
    outages.py             which database errors pass, and retrying until the database is back
    outbox.py              when a row's message was sent, and when it is sent again
    attributes.py          attributes of runs
    audit.py               what people did to runs
    payloads.py            large values in the database, or at a URL
    poolers.py             PostgreSQL behind a pooler: whether statements are prepared
    statements.py          prepared statements of the hot path
    galera.py              MariaDB Galera: what a session reads, and to which nodes a proxy leads
    engines.py             SQLAlchemy's engines: the options of their connections
    kept_connections.py    connections that stay checked out between statements
    loop_engines.py        the engine of each event loop
    vault.py               encryption, and large values by reference
    database.py            connections, transactions, and the database's clock
    event_rows.py          events as rows
    payload_references.py  which large values runs refer to
    broker_sentinel.py     the broker's sentinel
    installation.py        the installation's id, and messages of another one
    backlog.py             the backlog over all runs, for ``durable doctor``
    run_calls.py           calls of the application's functions that are due
    upsert.py              INSERT, or UPDATE where the key is there already
    distinct.py            the values that a column has
    pauses.py              what is paused, and by what
    runs.py                runs
    claimed_attempts.py    claimed attempts, as other processes see them
    claims.py              a process claims an attempt, and keeps it
    gauges.py              what is there now, for metrics
    hooks.py               hooks and webhooks, and the tokens that find them
    requests.py            webhook requests and their answers
    pushed_answers.py      answers that go to the process which holds the connection
    published.py           the latest value of each name that runs have published
    received.py            what became of each request to a receiver
    run_log.py             a run's log and inbox
    due_turns.py           the turns that runs need, and when their messages are sent
    run_page.py            what the dashboard's page of one run reads
    schedules.py           schedules, and their latest runs
    accept_request.py      record a webhook request: its row and its run's inbox item
    generations.py         the generations of a run
    streams.py             the streams of runs, and their items
    emit_items.py          emit items: add them to streams, and close streams
    retention.py           ended runs, and their deletion
    limits.py              limits of steps, and the steps that wait for them
    run_limits.py          limits of workflows, and the runs that wait for them
    limit_lines.py         the order in which steps wait for limits
    pause_runs.py          pause runs, and let them go on
    cancel_run.py          ask a run to stop
    run_list.py            the dashboard's list of runs: pages, filters, searches
    admit_runs.py          admit the runs for which their limits have room
    debounce.py            a start whose arguments go to a run that waits
    start_run.py           start a run: its row and its first inbox item
    fork_run.py            fork a run: a new run whose log begins with the old one's
    steps.py               steps, from the call until the outcome
    begin_run.py           start a run together with its first turn
    limit_rooms.py         how many more attempts limits have room for
    admit_steps.py         admit the steps for which their limits have room
    limit_view.py          what people see of limits
    limit_faults.py        what can be wrong with limits
    due_steps.py           steps whose messages the sweep sends
    due_work.py            what the sweep has to do now, in one statement
    in_doubt.py            steps in doubt
    turn_leases.py         which process takes a run's turns
    waits.py               pending sleeps and timeouts
    turns.py               what a turn reads, and the commit of a plain turn
    end_operation.py       end an attempt or a wait: delete its row, add the outcome to the inbox
    offers.py              steps that processes take without a message
    session_settings.py    settings of the database with which durable cannot work
    standbys.py            whether a PostgreSQL primary waits for its standbys
    statistics.py          the dashboard's numbers: ended runs, durations, backlogs
    totals.py              the sums of what all processes have measured
    workers.py             live processes, their heartbeats, and the sweep's lease
"""

from .audit import AuditEntry
from .backlog import BOUND, WaitingRun
from .broker_sentinel import BrokerSentinel
from .claimed_attempts import ClaimedAttempt
from .claims import Claim
from .database import Store
from .due_turns import DriveRow
from .due_work import DueWork
from .emit_items import NewItem, StreamEmitter
from .hooks import Hook, Refusals, RefusingWebhook
from .in_doubt import InDoubt
from .limits import LimitKey
from .outages import RETRY_DELAYS_SECS, is_contention, is_unavailable, reason, retry_until_available
from .outbox import WORK_LISTS, MessageGroup, SendTimes, count_held_until_due
from .pauses import Cause, Pause
from .payloads import PayloadStore, PayloadStoreError, SqlPayloads, StoredPayload, UrlPayloads
from .poolers import ADVICE as POOLER_ADVICE
from .poolers import CHOICES as PREPARING_CHOICES
from .published import PublishedValue
from .pushed_answers import PushedAnswer
from .received import ReceivedRow, RequestOutcome
from .retention import EndedRun
from .run_limits import RunLimit
from .run_list import ErrorSearch, RunFilter, Waits
from .run_log import InboxItem
from .run_page import OpenStep, RequestRow, WholeRequest
from .runs import Run
from .schedules import ScheduledRun, ScheduleRow
from .schema import REVISION, VERSION_TABLE, inbox
from .statistics import Durations, Ended, QueueBacklog, Window
from .steps import StepRow
from .streams import StoredItem, StreamRow
from .transitions import ENDED, RunStatus, StepStatus
from .vault import LIMIT, OPTION, REFERENCE, Vault, is_large, key_id_of
from .waits import DueWait, WaitRow
from .workers import Worker

__all__ = [
    "BOUND",
    "ENDED",
    "LIMIT",
    "OPTION",
    "POOLER_ADVICE",
    "PREPARING_CHOICES",
    "REFERENCE",
    "RETRY_DELAYS_SECS",
    "REVISION",
    "VERSION_TABLE",
    "WORK_LISTS",
    "AuditEntry",
    "BrokerSentinel",
    "Cause",
    "Claim",
    "ClaimedAttempt",
    "DriveRow",
    "DueWait",
    "DueWork",
    "Durations",
    "Ended",
    "EndedRun",
    "ErrorSearch",
    "Hook",
    "InDoubt",
    "InboxItem",
    "LimitKey",
    "MessageGroup",
    "NewItem",
    "OpenStep",
    "Pause",
    "PayloadStore",
    "PayloadStoreError",
    "PublishedValue",
    "PushedAnswer",
    "QueueBacklog",
    "ReceivedRow",
    "Refusals",
    "RefusingWebhook",
    "RequestOutcome",
    "RequestRow",
    "Run",
    "RunFilter",
    "RunLimit",
    "RunStatus",
    "ScheduleRow",
    "ScheduledRun",
    "SendTimes",
    "SqlPayloads",
    "StepRow",
    "StepStatus",
    "Store",
    "StoredItem",
    "StoredPayload",
    "StreamEmitter",
    "StreamRow",
    "UrlPayloads",
    "Vault",
    "WaitRow",
    "WaitingRun",
    "Waits",
    "WholeRequest",
    "Window",
    "Worker",
    "count_held_until_due",
    "inbox",
    "is_contention",
    "is_large",
    "is_unavailable",
    "key_id_of",
    "reason",
    "retry_until_available",
]
