"""
One turn of a run: read the run and its inbox, replay the workflow, write what was decided, send messages.

``drive`` is the way in.  Two turns of one run at once are harmless: the commit of the second fails its fence.

Files, in import order::

    limit_keys.py    the limits of new steps, and their keys
    decision.py      what a turn decides, and what its commit leaves to send
    run_row.py       the run's row, as a turn changes it
    children.py      child runs: create them, cancel them, report their end to the parent
    generations.py   starts the next generation of a run that continues as new
    run_end.py       a run's last turn: hooks close, and open requests are answered
    admission.py     sends the steps whose limits have room
    offers.py        which steps are offered to processes at work, instead of sent
    new_steps.py     creates the steps that wait for a process
    new_items.py     writes the items of streams that the workflow has emitted
    new_waits.py     the waits that a turn creates and withdraws
    plain_turn.py    turns that are one statement on PostgreSQL
    commit.py        writes a decision in one transaction
    view.py          what a turn reads
    prepared_turn.py a turn that is decided and not written yet
    continuation.py  goes on with a run in place, instead of sending a message
    turn_lease.py    one process takes the turns of a run while several record outcomes
    decide.py        replays the workflow, and decides what the turn writes
    emit_spans.py    emits the spans of what has ended with a turn
    forward.py       sends messages on whose workflow or step this process does not know
    report.py        logs how a run has ended or was blocked, and calls the application's handlers
    poison.py        counts turns that end their process, and blocks the run after three
    finish.py        commits a turn, keeps its replay, and sends its messages
    first_turn.py    starts a run together with its first turn
    conclude.py      records an outcome in the turn that it asks for
    together.py      commits the turns of several runs in one transaction
    begin_runs.py    takes the first turns of several runs together
    end_waits.py     ends several waits together
    gather.py        records outcomes of several runs together
    drive.py         takes turns of a run until its inbox is empty
    wake.py          ends waits that are due
"""

from .admission import KEYS, admit_after, admit_due
from .begin_runs import begin_runs
from .conclude import conclude
from .continuation import Continuation
from .drive import drive
from .end_waits import conclude_waits
from .first_turn import start_with_first_turn
from .forward import forward_attempt
from .gather import gather, write_gathered
from .prepared_turn import Gathered
from .turn_lease import BATCH_DELAY_SECS, drop_lease_of_gone_process, put_off

__all__ = [
    "BATCH_DELAY_SECS",
    "KEYS",
    "Continuation",
    "Gathered",
    "admit_after",
    "admit_due",
    "begin_runs",
    "conclude",
    "conclude_waits",
    "drive",
    "drop_lease_of_gone_process",
    "forward_attempt",
    "gather",
    "put_off",
    "start_with_first_turn",
    "write_gathered",
]
