"""The start of a run: its row and its first inbox item, on PostgreSQL in one statement."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, text

from .. import codec
from ..events import ROOT, AttributesSet, RunCreated
from . import attributes, debounce, requests, run_limits, run_log, runs
from .database import Store
from .limits import NOT_SENT
from .outbox import SendTimes
from .run_limits import RunLimit
from .runs import Run
from .schema import runs as rows
from .statements import Prepared
from .vault import is_large


def new_run_id(now: int) -> str:
    """Return an id that begins with the time, so that new rows are neighbours in the index."""
    return f"{now // 1000:012x}{secrets.token_hex(10)}"


_COLUMNS = rows.c.keys()
_AT_ONCE = Prepared(
    text(
        f"WITH run AS (INSERT INTO durable_runs ({', '.join(_COLUMNS)})"
        f" VALUES ({', '.join(f':{name}' for name in _COLUMNS)}) RETURNING 1) " + run_log.insert_into_inbox("run")
    )
)


def create(
    tx: Connection,
    run: Run,
    created: RunCreated,
    sending: SendTimes,
    given: Mapping[str, str] | None = None,
    limits: Sequence[RunLimit] = (),
) -> str:
    """
    Insert the run, its attributes *given*, and the inbox items for its first turn; return the id of the run.

    Args:
        limits: The limits that it waits for.  No message is sent for it then.  Under a debounce, a run that waits
            already may take the arguments, and its id is returned.

    Raises IntegrityError when the id or the key exists.
    """
    debounced = next((each for each in limits if each.wait is not None), None)
    joined = None if debounced is None else debounce.join(tx, debounced, run, created, given)
    if joined is not None:
        return joined
    sending = NOT_SENT if limits else sending
    if tx.dialect.name != "postgresql":
        runs.create(tx, run)
        run_log.post(tx, run.id, created, sending)
    else:
        _AT_ONCE.changed(tx, runs.values(tx, run) | run_log.inbox_parameters(tx, run.id, created, sending))
        requests.record_references(tx, run.id, codec.request_ids(created.args))
    if given:
        # The rows find the run before its first turn, and the event brings them into its log.
        attributes.write(tx, run.id, run.created_at, [given])
        run_log.post(tx, run.id, AttributesSet(at=created.at, op_id=ROOT, attributes=given), sending)
    if limits:
        run_limits.enter(tx, [(run, limits)])
    return run.id


@dataclass(frozen=True, slots=True)
class OneOfMany:
    """A run of a batch: its row, the event that creates it, when its message is sent, and its limits."""

    run: Run
    created: RunCreated
    sending: SendTimes
    limits: Sequence[RunLimit] = ()


def create_all(tx: Connection, new: Sequence[OneOfMany], given: Mapping[str, str] | None = None) -> None:
    """As ``create``, for several runs without a debounce: one statement for all rows of a table."""
    if not new:
        return
    tx.execute(insert(rows), [runs.values(tx, each.run) for each in new])
    sending = {each.run.id: NOT_SENT if each.limits else each.sending for each in new}
    run_log.post_all(tx, [(each.run.id, each.created, sending[each.run.id]) for each in new])
    for each in new:
        run, created = each.run, each.created
        requests.record_references(tx, run.id, codec.request_ids(created.args))
        if given:
            attributes.write(tx, run.id, run.created_at, [given])
            event = AttributesSet(at=created.at, op_id=ROOT, attributes=given)
            run_log.post(tx, run.id, event, sending[run.id])
    run_limits.enter(tx, [(each.run, each.limits) for each in new if each.limits])


def commit(
    store: Store,
    run: Run,
    created: RunCreated,
    plan: Callable[[Connection], SendTimes],
    given: Mapping[str, str] | None = None,
    limits: Sequence[RunLimit] = (),
) -> str:
    """
    As ``create``, in a transaction of its own.

    Args:
        plan: Called in the transaction; returns when the message of the first turn is sent.
    """
    is_single = not given and not limits and run.not_before is None
    is_single = is_single and not is_large(created.args) and not codec.request_ids(created.args)
    return store.write(lambda tx: create(tx, run, created, plan(tx), given, limits), is_single_statement=is_single)
