"""
The plan of ``durable/``: floors of rooms, and the order of the files in each room.

A file imports only rooms of lower floors, or rooms that stand before its own on the same floor.  In its own room it
imports only files that the room's docstring lists before it.  Imports for type checkers count too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import pytest

DURABLE = Path(__file__).parents[1] / "durable"

#: Every entry of ``durable/``, from the ground up, in import order.
FLOORS = {
    "vocabulary": ["attributes", "duration", "errors", "nearest", "display", "events", "current", "sandbox"],
    "values": ["http", "codec", "verify"],
    "workflows": ["registry", "replay", "context"],
    "storage": ["cipher", "failpoints", "forks", "greenlets", "measures", "store", "migrations"],
    "delivery": ["broker"],
    "engine": ["tracing", "engine"],
    "work": ["client", "schedules", "turns", "attempts", "recovery", "worker"],
    "faces": ["doctor", "web", "metrics", "dashboard", "app", "calls", "cli", "testing"],
}
ROOMS = [room for floor in FLOORS.values() for room in floor]

#: Nothing on these floors does I/O.
PURE = [room for floor in ("vocabulary", "values", "workflows") for room in FLOORS[floor]]

#: Modules that do I/O, or read what no replay can repeat.
IMPURE = {"time", "random", "os", "socket", "subprocess", "sqlalchemy", "celery", "kombu", "redis", "flask"}

#: ``from random import Random``, a seeded generator; ``Session`` in annotations.
ALLOWED = {
    ("replay/run_context.py", "random"),
    ("context/workflow.py", "random"),
    ("context/step.py", "sqlalchemy"),
    ("current.py", "sqlalchemy"),
}

#: Class names that are still used twice.  ``Hook`` and ``Run`` are rows of the store and objects for authors.
SHARED = {"Hook", "Run"}

FILES = sorted(path for path in DURABLE.rglob("*.py") if "versions" not in path.parts)

#: The rooms that are folders, and folders in rooms.
FOLDERS = [path.parent for path in FILES if path.name == "__init__.py" and path.parent != DURABLE]


def name(path: Path) -> str:
    """A path as a test's id."""
    return str(path.relative_to(DURABLE))


@cache
def imports(path: Path) -> list[tuple[str, ...]]:
    """What a file imports from ``durable``, each as the parts of its path below ``durable``, the name last."""
    package = list(path.relative_to(DURABLE).parent.parts)
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            module = node.module.split(".") if node.module else []
            found += [(*base, *module, alias.name) for alias in node.names]
    return found


@cache
def other_packages(path: Path) -> set[str]:
    """The names of the packages that a file imports absolutely."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


def room_of(path: Path) -> str:
    """The room of a file: a folder, or the file's own name at the top."""
    return path.relative_to(DURABLE).parts[0].removesuffix(".py")


def listed(folder: Path) -> list[str]:
    """The files of a folder, as its docstring lists them."""
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    listing = docstring.partition("Files, in import order::")[2]
    return [line.split()[0].removesuffix(".py").removesuffix("/") for line in listing.splitlines() if line.strip()]


def test_every_entry_stands_on_a_floor():
    """A new file or folder of ``durable/`` is given its place in the plan."""
    entries = {path.name.removesuffix(".py") for path in DURABLE.iterdir() if path.name[0] not in "_."}

    assert set(ROOMS) == entries - {"py.typed"}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_point_down(path):
    """A file imports only rooms that stand before its own, and by relative imports."""
    room = room_of(path)
    if room == "__init__":
        return
    allowed = set(ROOMS[: ROOMS.index(room) + 1])

    assert set() == {parts[0] for parts in imports(path)} - allowed
    # Alembic runs env.py by its path, so it has no package to be relative to.
    assert path.name == "env.py" or "durable" not in other_packages(path)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_imports_rooms_and_not_their_files(path):
    """A file imports from another room, and not from the files of that room."""
    inner = {parts for parts in imports(path) if len(parts) > 2 and parts[0] != room_of(path)}

    assert set() == inner


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_a_room_lists_its_files_in_import_order(folder):
    """The docstring of a folder lists each of its files once, and each imports only files listed before it."""
    order = listed(folder)
    present = {path.stem for path in folder.iterdir() if path.name[0] not in "_."}
    place = folder.relative_to(DURABLE).parts

    assert sorted(order) == sorted(present)
    for path in FILES:
        if folder not in path.parents or path == folder / "__init__.py":
            continue
        here = path.relative_to(folder).parts[0].removesuffix(".py")
        within = {each[len(place)] for each in imports(path) if each[: len(place)] == place and len(each) > len(place)}
        assert set() == (within & set(order)) - set(order[: order.index(here)]) - {here}, path


def test_no_two_classes_have_one_name():
    """A class name means one thing in the whole package; only the names in SHARED are used twice."""
    classes = [
        node.name for path in FILES for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
    ]
    twice = {each for each in classes if classes.count(each) > 1 and not each.startswith("_")}

    assert set() == twice - SHARED


@pytest.mark.parametrize("path", [path for path in FILES if room_of(path) in PURE], ids=name)
def test_the_lower_floors_import_nothing_impure(path):
    """Up to the workflows' floor nothing imports what reads a clock, a file, a socket or the environment."""
    assert set() == {each for each in other_packages(path) & IMPURE if (name(path), each) not in ALLOWED}


def test_a_replay_does_no_io():
    """Python's own audit events see no file, socket or process while a workflow is replayed."""
    script = textwrap.dedent(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import programs
        from programs import HISTORIES, Simulator

        histories = [Simulator.load(path) for path in sorted(HISTORIES.glob("*.json"))]
        assert histories
        for history in histories:
            history.cold()  # what Python imports at the first use of a thing is imported now

        watched = ("open", "socket.", "subprocess.", "os.", "sqlite3.", "import")
        seen = []
        sys.addaudithook(lambda event, args: seen.append((event, args)) if event.startswith(watched) else None)
        for history in histories:
            replay = history.cold()
            assert replay.outcome is not None and replay.fault is None
            replay.park()
        print(seen)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)], capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_only_the_store_knows_what_is_a_single_statement():
    """Callers outside of it call functions that are a transaction of their own."""
    users = [name(path) for path in FILES if "single_statement" in path.read_text()]

    assert [user for user in users if not user.startswith("store/")] == []
