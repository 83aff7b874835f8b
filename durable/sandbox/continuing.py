"""
Find calls of ``continue_as_new`` in a workflow's source that do not fit the workflow's signature.

The call checks its arguments when it is made, which may be a month after the start.  What the source shows is an error
at once.
"""

from __future__ import annotations

import inspect
from types import CodeType, FunctionType

from ..errors import ConfigurationError
from .lint import calls_in

#: The name of the function.
_NAME = "continue_as_new"


def check(function: FunctionType, name: str, signature: inspect.Signature) -> None:
    """
    Check the body of the workflow *name*, and the functions nested in it.

    Raises:
        ConfigurationError: For the first call that the signature does not take, with its line.
    """
    if not _mentions(function.__code__):
        return
    for called, call in calls_in(function):
        # Other objects are the author's, and asking them for an attribute could run any code.
        if type(called) is not FunctionType or getattr(called, "durable_continues", False) is not True:
            continue
        names = [keyword.arg for keyword in call.keywords]
        if None in names or any(type(each).__name__ == "Starred" for each in call.args):
            continue  # only known when it runs
        try:
            signature.bind(*call.args, **{str(each): None for each in names})
        except TypeError as error:
            where = f"{function.__code__.co_filename}:{call.lineno}"
            raise ConfigurationError(
                f"Workflow {name}{signature}: continue_as_new() at {where} does not fit it: {error}."
                "  Pass the arguments of the next generation."
            ) from None


def _mentions(code: CodeType) -> bool:
    """Whether this code, or code nested in it, uses the name."""
    nested = (each for each in code.co_consts if isinstance(each, CodeType))
    return _NAME in (*code.co_names, *code.co_freevars) or any(map(_mentions, nested))
