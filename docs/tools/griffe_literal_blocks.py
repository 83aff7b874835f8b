"""Docstrings as Markdown: removes the ``::`` of reStructuredText before an indented block of code."""

from __future__ import annotations

import re
from typing import Any

import griffe


class LiteralBlocks(griffe.Extension):
    """Lets the docstrings of durable, which Python shows as they are, be read as Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Griffe calls this for every module, class, function and attribute that it has loaded."""
        if obj.docstring is not None:
            text = re.sub(r"^ *::\n", "", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)
