"""
Docstrings as Markdown.

Removes the ``::`` of reStructuredText before an indented block of code, and a room's list of its files, which is for
readers of the code.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class LiteralBlocks(griffe.Extension):
    """Lets the docstrings of durable, which Python shows as they are, be read as Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Griffe calls this for every module, class, function and attribute that it has loaded."""
        if obj.docstring is not None:
            text = obj.docstring.value.partition("Files, in import order::")[0]
            text = re.sub(r"^ *::\n", "", text, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)
