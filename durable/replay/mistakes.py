"""
Mistakes: errors of a workflow's body that say that its code is wrong.

A mistake blocks the run, because nothing outside made it fail: corrected code goes on from the same log.  The class of
the error decides.  An error that a step or a child failed with is never a mistake of the workflow.
"""

from __future__ import annotations

from collections.abc import Iterator

from .. import codec
from ..errors import BodyNotLoaded, ConfigurationError, NonDeterministicCall, WorkflowCodeError
from ..sandbox import raising_line

#: The classes that docs/how-to/workflows.md lists.
MISTAKES: tuple[type[BaseException], ...] = (
    ImportError,
    NameError,
    AttributeError,
    TypeError,
    SyntaxError,
    NotImplementedError,
    ConfigurationError,
    NonDeterministicCall,
    BodyNotLoaded,
)


def find_mistake(
    run_id: str, error: BaseException, failure_exceptions: tuple[type[BaseException], ...], place: str
) -> WorkflowCodeError | None:
    """
    Return why an error that the workflow did not catch blocks its run; None when it fails the run.

    Args:
        failure_exceptions: Classes that fail the run all the same.
        place: Where the workflow is defined, for an error without a line of the author.
    """
    for leaf in _leaves(error):
        kind = type(leaf)  # isinstance() would also ask the error's own __class__
        if not issubclass(kind, MISTAKES) or issubclass(kind, failure_exceptions) or codec.failed_step(leaf):
            continue
        summary = codec.error_summary(codec.encode_error(leaf))
        mistake = WorkflowCodeError(run_id, summary.error_type, summary.message, raising_line(leaf) or place)
        mistake.__cause__ = leaf
        return mistake
    return None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors within an exception group, or the error itself."""
    members = codec.members(error)
    if not members:
        yield error
    for each in members:
        yield from _leaves(each)
