"""The listing of ``durable/`` is the import order, and its upper half does no I/O."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

DURABLE = Path(__file__).parents[1] / "durable"

#: What decides.  Nothing here does I/O.
CORE = """
    errors lines duration events attributes interruptions current logs guarded guards lint http codec retry commands
    fingerprint signatures definitions adopted registry
    operations ledger futures parking refused shims loop
    listening racing verify webhooks calls context inside decoding replay
""".split()  # noqa: SIM905  a list of names would be a column

#: What acts.
SHELL = """
    cipher settings failpoints schema migrations payloads vault store replays notify ends fanin processes embedded leash
    publish health progress allowance dispatch stopping watchdog deadlines engine
    alarms turn children aftermath ending commit tries celery_context aio cancelling doubts outcomes overtime
    transactional running claiming steps waiting inspecting client sessions starting again continuation drive hooks
    lost sentinel sweep orphans prune housekeeping carrying trampoline childwatch tasks
    web app loading doctor dev cli testing
""".split()  # noqa: SIM905

LAYERS = CORE + SHELL

#: Modules whose calls do I/O, or read what no replay can repeat.
IMPURE = {"time", "random", "os", "socket", "subprocess", "sqlalchemy", "celery", "kombu", "redis", "flask"}

#: ``from random import Random`` and ``from secrets import token_bytes``: a seeded generator, and tokens.
ALLOWED = {("calls", "random"), ("context", "random")}


def files(layer: str) -> list[Path]:
    """The file, or the files of the folder, of a layer."""
    path = DURABLE / f"{layer}.py"
    return [path] if path.exists() else sorted((DURABLE / layer).rglob("*.py"))


def imports(path: Path) -> tuple[set[str], set[str]]:
    """The layers that a file imports, and the names of other packages; those for type checkers left out."""
    ours, theirs = set(), set()
    depth = len(path.relative_to(DURABLE).parts)
    for node in nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            theirs |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            theirs.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level == depth:
            ours |= {(node.module or "").partition(".")[0]} if node.module else {a.name for a in node.names}
    return ours, theirs


def nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Like ``ast.walk``, without the bodies of ``if TYPE_CHECKING:``."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")):
            yield from nodes(child)


def test_every_file_has_a_layer():
    """A new file is given its place in the order above."""
    present = {path.name.removesuffix(".py") for path in DURABLE.iterdir() if path.name[0] not in "_."}

    assert present - {"py.typed"} == set(LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_only_point_up(layer):
    """A file imports only what comes before it, and by relative imports."""
    for path in files(layer):
        ours, theirs = imports(path)

        assert set() == ours - set(LAYERS[: LAYERS.index(layer)]) - {layer}, path
        # Alembic runs env.py by its path, so it has no package to be relative to.
        assert path.name == "env.py" or "durable" not in theirs, path


@pytest.mark.parametrize("layer", CORE)
def test_the_core_imports_nothing_impure(layer):
    """Above the line nothing imports what reads a clock, a file, a socket or the environment."""
    for path in files(layer):
        _, theirs = imports(path)

        assert set() == {name for name in theirs & IMPURE if (layer, name) not in ALLOWED}, path


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
