"""
Write docs/reference.md from the docstrings of what is public.

::

    python docs/make_reference.py          # make docs
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from griffe import Attribute, Class, DocstringSectionKind, Function, Parser

import durable
import durable.verify

HERE = Path(__file__).parent
PAGE = HERE / "reference.md"


def _of_verify(name: str) -> str:
    """Where a name of durable.verify is defined: a sender's function has the name of its file."""
    found = getattr(durable.verify, name)
    return f"{getattr(found, 'make', found).__module__}.{name}"


#: Headings, and what stands under them in this order; a test holds that every public name stands somewhere.
SECTIONS: dict[str, list[str]] = {
    "Wiring": [
        "durable.Durable",
        "durable.web.create_blueprint",
        "durable.web.bearer.bearer",
        "durable.web.MaskTokens",
        "durable.cipher.aes_gcm",
        "durable.cipher.fernet",
        "durable.cipher.Cipher",
    ],
    "Defining": ["durable.workflow", "durable.step", "durable.definitions.Workflow", "durable.definitions.Step"],
    "In a workflow": [
        f"durable.{name}" for name in ("sleep", "race", "now", "random", "uuid4", "patched", "set_attributes")
    ],
    "Which run, which attempt": [
        "durable.get_workflow_metadata",
        "durable.context.WorkflowMetadata",
        "durable.get_step_metadata",
        "durable.heartbeat",
        "durable.step_session",
        "durable.context.StepMetadata",
    ],
    "Hooks and webhooks": [
        "durable.create_hook",
        "durable.define_hook",
        "durable.context.HookDefinition",
        "durable.create_webhook",
        "durable.listening.Hook",
        "durable.listening.Webhook",
        "durable.resume_hook",
        "durable.get_hook",
        "durable.hooks.HookInfo",
    ],
    "Who sends a webhook": [
        _of_verify(name) for name in durable.verify.__all__ if name not in ("DedupeKey", "Preset", "Unavailable")
    ],
    "Starting and watching runs": ["durable.start", "durable.get_run", "durable.Run"],
    "HTTP": ["durable.Request", "durable.Response"],
    "Errors": [f"durable.{name}" for name in durable.__all__ if isinstance(getattr(durable, name), type)],
}

_LABELS = {
    DocstringSectionKind.parameters: "Arguments",
    DocstringSectionKind.attributes: "Attributes",
    DocstringSectionKind.raises: "Raises",
    DocstringSectionKind.returns: "Returns",
}


def page() -> str:
    """The whole page."""
    package = griffe.load("durable", search_paths=[str(HERE.parent)], resolve_aliases=True)
    head = "# Reference\n\nMade from the docstrings by `make docs`.  What the words mean: [Concepts](concepts.md).\n"
    shown: set[str] = set()
    parts = [head]
    for heading, names in SECTIONS.items():
        found = [_object(package, name) for name in names]
        fresh = [(name, each) for name, each in zip(names, found, strict=True) if each.path not in shown]
        shown |= {each.path for _, each in fresh}
        parts.append(f"## {heading}\n")
        parts += [_entry(name.rpartition(".")[2], each) for name, each in fresh]
    return "\n".join(parts)


def _object(package: Any, name: str) -> Any:
    found = package[name.removeprefix("durable.")]
    return found.final_target if found.is_alias else found


def _entry(name: str, item: Any) -> str:
    lines = [f"### {name}", "", *_signatures(name, item), *_text(item)]
    if isinstance(item, Class):
        for member in _members(item):
            lines += _member(member)
    return "\n".join(lines) + "\n"


def _members(cls: Class) -> Iterator[Function | Attribute]:
    for member in cls.members.values():
        is_public = not member.name.startswith("_") and member.has_docstring
        if is_public and isinstance(member, Function | Attribute):
            yield member


def _member(member: Function | Attribute) -> list[str]:
    text = _text(member)
    shown = _call(member.name, member) if isinstance(member, Function) else member.name
    first, *more = text or [""]
    return [f"- **`{shown}`**: {first}", *(f"  {line}".rstrip() for line in more)]


def _signatures(name: str, item: Any) -> list[str]:
    function = item if isinstance(item, Function) else item.members.get("__init__") or item.members.get("__new__")
    if not isinstance(function, Function) or (isinstance(item, Class) and _is_error(item)):
        return []
    return ["```text", *textwrap.wrap(_call(name, function), 112, subsequent_indent="    "), "```", ""]


def _is_error(cls: Class) -> bool:
    """Errors are caught by users, not made."""
    return cls.module.path == "durable.errors"


def _call(name: str, function: Function) -> str:
    shown = re.sub(r"\(self(, )?", "(", function.signature(name=name))
    return shown.replace(" -> None", "")


def _text(item: Any) -> list[str]:
    """The docstring's lines: prose, and its sections as lists."""
    if item.docstring is None:
        return []
    lines: list[str] = []
    for section in item.docstring.parse(Parser.google):
        if section.kind is DocstringSectionKind.text:
            lines += [*_markdown(section.value).splitlines(), ""]
        elif section.kind in _LABELS:
            lines += [f"{_LABELS[section.kind]}:", "", *(_listed(each) for each in section.value), ""]
    return lines


def _listed(entry: Any) -> str:
    name = getattr(entry, "name", None) or entry.annotation
    described = " ".join(_markdown(entry.description).split())
    return f"- `{name}`: {described}" if name else f"- {described}"


def _markdown(text: str) -> str:
    """reStructuredText's literals as Markdown's."""
    return re.sub(r"``(.+?)``", r"`\1`", text)


if __name__ == "__main__":
    PAGE.write_text(page())
