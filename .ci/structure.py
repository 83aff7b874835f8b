"""
Print figures of the structure of ``durable/`` as JSON: ``python .ci/structure.py [FOLDER]``.

A body is a function's lines without its docstring.  "Used once" is the share of functions, methods included, whose name
begins with one underscore and stands once in the package beside its definition.  A circle is a set of files that import
one another, imports for type checkers included; files reach a room through its ``__init__``.
"""

from __future__ import annotations

import ast
import json
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any


def main(package: Path) -> dict[str, Any]:
    """The figures of a package."""
    files = {
        path: ast.parse(path.read_text()) for path in sorted(package.rglob("*.py")) if "versions" not in path.parts
    }
    functions = [node for tree in files.values() for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)]
    bodies = sorted(map(_body_lines, functions))
    private = [node.name for node in functions if node.name.startswith("_") and not node.name.startswith("__")]
    names = Counter(_names(files))
    imports = {path: _imports(path, tree, package) for path, tree in files.items()}
    return {
        "entries": sum(path.name[0] not in "_." and path.suffix in ("", ".py") for path in package.iterdir()),
        "rooms": sum(path.is_dir() and path.name[0] not in "_." for path in package.iterdir()),
        "files": len(files),
        "lines": sum(len(path.read_text().splitlines()) for path in files),
        "functions": len(functions),
        "median_body": statistics.median(bodies),
        "p90_body": bodies[len(bodies) * 9 // 10],
        "bodies_over_50": round(sum(lines > 50 for lines in bodies) / len(bodies), 4),
        "private_used_once": round(sum(names[name] == 1 for name in private) / len(functions), 3),
        "files_over_350": sum(len(path.read_text().splitlines()) > 350 for path in files),
        "circles": _circles(imports),
    }


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[1:2] if ast.get_docstring(node) and len(node.body) > 1 else node.body[:1]
    return (node.end_lineno or 0) - first[0].lineno + 1


def _names(files: dict[Path, ast.Module]) -> list[str]:
    nodes = [node for tree in files.values() for node in ast.walk(tree)]
    return [node.id for node in nodes if isinstance(node, ast.Name)] + [
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    ]


def _imports(path: Path, tree: ast.Module, package: Path) -> set[Path]:
    """The files that a file imports."""
    folder = path.parent
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = folder
        for _ in range(node.level - 1):
            base = base.parent
        base = base.joinpath(*(node.module or "").split(".")) if node.module else base
        targets = [base / alias.name for alias in node.names] + [base]
        for target in targets:
            for candidate in (target.with_suffix(".py"), target / "__init__.py"):
                if candidate.exists() and candidate.is_relative_to(package):
                    found.add(candidate)
    return found - {path}


def _circles(imports: dict[Path, set[Path]]) -> int:
    """How many sets of files import one another, rooms' ``__init__`` files left out."""
    graph = {
        path: {to for to in tos if to.name != "__init__.py"}
        for path, tos in imports.items()
        if path.name != "__init__.py"
    }
    reach: dict[Path, set[Path]] = {}
    for start, imported in graph.items():
        seen, todo = set(), list(imported)
        while todo:
            path = todo.pop()
            if path not in seen:
                seen.add(path)
                todo += graph.get(path, ())
        reach[start] = seen
    return len(
        {frozenset(to for to in reach[path] if path in reach.get(to, ())) for path in graph if path in reach[path]}
    )


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1] if len(sys.argv) > 1 else "durable")), indent=2))
