"""Failpoints: what their text may say, what each action does, and that code and documents have the same ones."""

from __future__ import annotations

import ast
import contextvars
import threading
from pathlib import Path

import pytest

from durable import ConfigurationError, Durable, failpoints
from durable.failpoints import ACTIONS, POINTS, Failed, armed, copies, hit, watched

ROOT = Path(__file__).parents[2]
CALLS = {"hit", "copies", "_publish"}


def named_in_code() -> set[str]:
    """The names that durable's code hits."""
    found = set()
    for path in (ROOT / "durable").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", None) in CALLS:
                found |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return found


def test_the_code_hits_what_is_listed():
    """Each listed point is in the code, and the code has no other."""
    assert named_in_code() == set(POINTS)


def test_the_documents_list_the_same():
    """docs/how-to/testing.md has every point and action, in the list's own words."""
    page = (ROOT / "docs" / "how-to" / "testing.md").read_text()

    assert [line for line in page.splitlines() if (line.startswith("| `") and " → " in line) or "handed" in line] == [
        f"| `{name}` | {sides} |" for name, sides in POINTS.items()
    ]
    assert all(f"| `{action}` |" in page for action in ACTIONS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("turn.comitted=crash", "There are: commit.before"),
        ("turn.committed=explode", "Actions are: crash, raise"),
        ("turn.committed", "Actions are: crash, raise"),
        ("turn.committed=lose", "only a message"),
        ("turn.committed=crash@0", "from 1 on"),
        ("turn.committed=crash@last", "from 1 on"),
        ("turn.committed=pause", "has an argument"),
        ("turn.committed=raise:3", "no other action"),
    ],
)
def test_what_is_not_there_is_refused(text, said):
    """An unknown point, action, count or argument is a ConfigurationError that says what there is."""
    with pytest.raises(ConfigurationError, match=said):
        failpoints.parse(text)


def test_the_variable_is_read_by_the_engine(monkeypatch):
    """A mistake in DURABLE_FAILPOINTS stops the process where it makes its engine."""
    monkeypatch.setenv("DURABLE_FAILPOINTS", "no.such=crash")

    with pytest.raises(ConfigurationError, match=r"no\.such"):
        Durable(None)  # type: ignore[arg-type]


def test_only_the_nth_hit_acts():
    """With @2 the second hit raises, the first and the third do not; afterwards none does."""
    with armed("turn.read=raise@2") as points:
        hit("turn.read")
        with pytest.raises(Failed, match="hit 2"):
            hit("turn.read")
        hit("turn.read")

        assert points["turn.read"].hits == 3
    hit("turn.read")


def test_messages_are_lost_and_repeated():
    """A lost message is sent no time, a repeated one twice, any other once."""
    with armed("publish.drive=lose,publish.step=repeat"):
        assert [copies(f"publish.{name}") for name in ("drive", "step", "wait")] == [0, 2, 1]
    assert copies("publish.drive") == 1


def test_a_pause_ends_with_its_file(tmp_path):
    """pause:/path holds the thread until that file is there."""
    gone_on = threading.Event()

    def wait() -> None:
        hit("turn.read")
        gone_on.set()

    with armed(f"turn.read=pause:{tmp_path}/go") as points:
        thread = threading.Thread(target=wait)
        thread.start()
        while not points["turn.read"].hits:
            thread.join(0.001)
        assert not gone_on.is_set()
        (tmp_path / "go").touch()
        thread.join(10)
    assert gone_on.is_set()


def test_a_watcher_sees_its_own_context_only():
    """Another thread's hits are not its own, unless that thread was given the context; afterwards it sees none."""
    seen: list[str] = []

    def meet(name: str, context: contextvars.Context) -> None:
        thread = threading.Thread(target=context.run, args=(hit, name))
        thread.start()
        thread.join(10)

    with watched(seen.append):
        hit("turn.read")
        meet("step.claimed", contextvars.Context())
        meet("step.recorded", contextvars.copy_context())
    hit("turn.committed")

    assert seen == ["turn.read", "step.recorded"]
