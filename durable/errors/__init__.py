"""
Every exception of durable.

::

    DurableError
    ├── ConfigurationError        a setting, a decorator or the wiring of the application is wrong
    │   └── SchemaOutOfDate       the database has an older schema than the code needs
    ├── SerializationError        a value cannot be written to the log, or read from it
    ├── NonDeterministicCall      a workflow body makes a call that only a step may make
    ├── NotAwaited                a call of a workflow body is used without ``await`` (a TypeError)
    ├── NonDeterminismError       a replay does something else than its log records
    ├── WorkflowCodeError         a workflow body raised an error that says that its code is wrong
    ├── TurnTooLong               a turn used more CPU time, or took more time, than it may
    ├── TurnLost                  a turn ended its process, or hung, three times in a row
    ├── TurnRefused               the database refused to store a turn, three times in a row
    ├── RunNotFound               no run has this id
    ├── RunFailed                 the run whose result you ask for has failed
    ├── LogTooLong                a run has more events than the setting max_events allows
    ├── RunCancelled              the run whose result you ask for was cancelled
    ├── ForkRefused               a run cannot be forked as you ask
    ├── RunConflict               a key or id is used again with other arguments
    ├── ValueNotPublished        a run has ended without publishing the value that you ask for
    ├── ScheduleNotFound          no schedule has this name
    ├── HookNotFound              no open hook has this token
    ├── HookClosed                a closed hook without queued payloads is awaited
    ├── HookConflict              another run holds the token
    ├── HookPayloadError          a payload does not fit the hook's type, or a validator refuses it
    ├── QuestionNotFound          no question has this id
    ├── ReplyPending              there is no reply to your payload yet (a TimeoutError)
    ├── ReplyNotSent              a run has ended without replying to your payload
    ├── StepFailed                a step failed, and its exception cannot be rebuilt in this process
    │   └── StepTimeout           an attempt took longer than its step's timeout
    ├── AttemptLost               heartbeat was called in an attempt that no longer counts
    ├── NotInDoubt                no step, or more than one, is in doubt
    ├── DecryptionError           this process's keys cannot read a stored value
    ├── PayloadMissing            a large value is missing from the payload store, or damaged
    ├── BodyNotLoaded             a workflow body reads a request's large body, which only steps can read
    └── BadRequestBody            a request's body does not have the format that it is read as (a ValueError)
    FatalError                    for you to raise: fail the step without retries
    RetryableError                for you to raise: retry the step after a delay

Each exception passes all its arguments to ``Exception.__init__``, so that it survives pickling: Celery's prefork
workers send exceptions through a pipe.

Files, in import order::

    base.py           ``DurableError``
    configuration.py  settings, decorators, the wiring of an application, the schema
    values.py         what cannot be written to the log, read from it, decrypted or parsed
    workflow_code.py  a workflow's body: forbidden calls, replays that differ, turns that do not end
    runs.py           how a run has ended, and why one cannot be found or started
    hooks.py          hooks, for a workflow that awaits one and for a caller that resumes it
    steps.py          steps and their attempts
"""

from .base import (
    DurableError,
)
from .configuration import (
    ConfigurationError,
    SchemaOutOfDate,
)
from .hooks import (
    HookClosed,
    HookConflict,
    HookNotFound,
    HookPayloadError,
    QuestionNotFound,
    ReplyNotSent,
    ReplyPending,
)
from .runs import (
    ForkRefused,
    LogTooLong,
    RunCancelled,
    RunConflict,
    RunFailed,
    RunNotFound,
    ScheduleNotFound,
    ValueNotPublished,
)
from .steps import (
    AttemptLost,
    FatalError,
    NotInDoubt,
    RetryableError,
    StepFailed,
    StepTimeout,
)
from .values import (
    BadRequestBody,
    BodyNotLoaded,
    DecryptionError,
    PayloadMissing,
    SerializationError,
)
from .workflow_code import (
    NonDeterminismError,
    NonDeterministicCall,
    NotAwaited,
    TurnLost,
    TurnRefused,
    TurnTooLong,
    WorkflowCodeError,
)

__all__ = [
    "AttemptLost",
    "BadRequestBody",
    "BodyNotLoaded",
    "ConfigurationError",
    "DecryptionError",
    "DurableError",
    "FatalError",
    "ForkRefused",
    "HookClosed",
    "HookConflict",
    "HookNotFound",
    "HookPayloadError",
    "LogTooLong",
    "NonDeterminismError",
    "NonDeterministicCall",
    "NotAwaited",
    "NotInDoubt",
    "PayloadMissing",
    "QuestionNotFound",
    "ReplyNotSent",
    "ReplyPending",
    "RetryableError",
    "RunCancelled",
    "RunConflict",
    "RunFailed",
    "RunNotFound",
    "ScheduleNotFound",
    "SchemaOutOfDate",
    "SerializationError",
    "StepFailed",
    "StepTimeout",
    "TurnLost",
    "TurnRefused",
    "TurnTooLong",
    "ValueNotPublished",
    "WorkflowCodeError",
]

# Logs, pickles and tracebacks name a class by its module: they name this room, so a class may move to another file.
for _name in __all__:
    globals()[_name].__module__ = __name__
