"""``durable`` loads its names when they are used (PEP 562), and type checkers see the same names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import durable

SOURCE = Path(durable.__file__).read_text()


def test_importing_durable_imports_only_its_errors():
    """``import durable`` loads no room and no other package; ``durable.workflow`` loads the registry."""
    script = """
import sys
before = set(sys.modules)
import durable
print(sorted({name.split(".")[1] for name in set(sys.modules) - before if name.startswith("durable.")}))
print(sorted({"celery", "sqlalchemy", "pydantic", "flask", "asyncio"} & set(sys.modules)))
durable.workflow
print("durable.registry" in sys.modules, "durable.app" in sys.modules, "workflow" in vars(durable))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["['errors']", "[]", "True False True"]


def test_type_checkers_see_the_names_that_are_loaded_later():
    """The imports under ``TYPE_CHECKING``, the table of rooms and ``__all__`` name the same things."""
    declared = {
        alias.name: node.module
        for node in ast.walk(ast.parse(SOURCE))
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    errors = {name for name, module in declared.items() if module == "errors"}

    assert sorted(declared) == sorted(durable.__all__)
    assert {name: room for name, room in declared.items() if name not in errors} == durable._ROOM_OF


def test_every_public_name_is_there():
    """``from durable import *`` and ``dir(durable)`` give all of ``__all__``."""
    names: dict[str, object] = {}
    exec("from durable import *", names)

    assert set(durable.__all__) <= set(names)
    assert set(durable.__all__) <= set(dir(durable))
    assert durable.verify.__name__ == "durable.verify"


def test_a_name_that_does_not_exist_is_an_attribute_error():
    """As of any module: ``hasattr`` and ``from durable import`` behave as usual."""
    assert not hasattr(durable, "no_such_name")
    with pytest.raises(AttributeError, match="module 'durable' has no attribute 'workflows'"):
        _ = durable.workflows
    with pytest.raises(ImportError, match="workflows"):
        exec("from durable import workflows")
