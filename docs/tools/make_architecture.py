"""
Write the picture and the table of docs/explanation/architecture.md from what the code imports.

::

    python docs/tools/make_architecture.py          # make docs

The floors and the way imports are read come from tests/test_layers.py, which holds the code to them.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import test_layers  # noqa: E402

PAGE = ROOT / "docs" / "explanation" / "architecture.md"
BEGIN = "<!-- Written by docs/tools/make_architecture.py: from here … -->\n"
END = "<!-- … to here. -->\n"


def page() -> str:
    """The whole page, with the part between the two markers written anew."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{picture()}\n{table()}\n{END}{after}"


def picture() -> str:
    """A Mermaid flowchart: floors, rooms, and the imports between rooms that no other path implies."""
    lines = ["```mermaid", "flowchart TB"]
    for floor, rooms in reversed(test_layers.FLOORS.items()):
        lines += [f'  subgraph floor_{floor}["{floor}"]', *(f'    {room}["{room}"]' for room in rooms), "  end"]
    imports = imports_of_rooms()
    for room, used in imports.items():
        implied = {each for other in used for each in _reached(other, imports)}
        lines += [f"  {room} --> {other}" for other in _in_order(used - implied)]
    return "\n".join([*lines, "```", ""])


def table() -> str:
    """Each room: its floor, its purpose, and every room that it imports."""
    imports = imports_of_rooms()
    lines = ["| floor | room | purpose | imports |", "|---|---|---|---|"]
    for floor, rooms in reversed(test_layers.FLOORS.items()):
        for room in reversed(rooms):
            used = ", ".join(f"`{each}`" for each in _in_order(imports[room]))
            lines.append(f"| {floor} | `{_shown(room)}` | {purpose(room)} | {used or '-'} |")
    return "\n".join([*lines, ""])


def imports_of_rooms() -> dict[str, set[str]]:
    """The rooms that each room imports."""
    found: dict[str, set[str]] = {room: set() for room in test_layers.ROOMS}
    for path in test_layers.FILES:
        room = test_layers.room_of(path)
        if room in found:
            found[room] |= {parts[0] for parts in test_layers.imports(path) if parts[0] in found}
    return {room: used - {room} for room, used in found.items()}


def purpose(room: str) -> str:
    """The first paragraph of a room's docstring, on one line, as Markdown."""
    path = test_layers.DURABLE / room / "__init__.py"
    source = path if path.exists() else test_layers.DURABLE / f"{room}.py"
    docstring = ast.get_docstring(ast.parse(source.read_text())) or ""
    # The colons before an example, which the page leaves out.
    paragraph = docstring.partition("\n\n")[0].removesuffix("::").rstrip()
    return " ".join(paragraph.split()).replace("``", "`").replace("|", r"\|")


def _shown(room: str) -> str:
    return f"{room}/" if (test_layers.DURABLE / room).is_dir() else f"{room}.py"


def _in_order(rooms: set[str]) -> list[str]:
    return sorted(rooms, key=test_layers.ROOMS.index)


def _reached(room: str, imports: dict[str, set[str]]) -> set[str]:
    """Every room that *room* imports, also by way of others."""
    found: set[str] = set()
    todo = list(imports[room])
    while todo:
        each = todo.pop()
        if each not in found:
            found.add(each)
            todo += imports[each]
    return found


if __name__ == "__main__":
    PAGE.write_text(page())
