"""What an object takes over from its parent in a child process, and what not."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap

import pytest
from forking import in_child

from durable import forks


class Counter:
    """Counts how often it was reset."""

    def __init__(self) -> None:
        self.resets = 0

    def reset(self) -> None:
        """Count."""
        self.resets += 1


def test_a_method_is_called_once_in_the_child_and_not_in_the_parent():
    """Each fork resets what was registered before it."""
    counter = Counter()
    forks.call_in_child(counter.reset)

    assert in_child(lambda: counter.resets == 1)
    assert counter.resets == 0


def test_a_child_of_a_child_is_reset_again():
    """A prefork child may fork as well."""
    counter = Counter()
    forks.call_in_child(counter.reset)

    assert in_child(lambda: in_child(lambda: counter.resets == 2))


def test_an_object_is_not_kept_alive():
    """An engine that is thrown away is not reset, and its entry goes with it."""
    before = len(forks._methods)
    counter = Counter()
    forks.call_in_child(counter.reset)
    del counter
    gc.collect()

    assert len(forks._methods) <= before
    assert in_child(lambda: True)


@pytest.mark.slow
def test_uwsgi_which_forks_without_pythons_hooks_is_asked_to_call_them(tmp_path):
    """In uWSGI, ``uwsgidecorators`` can be imported."""
    (tmp_path / "uwsgidecorators.py").write_text("hooks = []\npostfork = hooks.append\n")
    script = textwrap.dedent(
        """
        import uwsgidecorators
        from durable import forks
        called = []
        forks.call_in_child(lambda: called.append(1))
        [hook] = uwsgidecorators.hooks
        hook()
        print(called)
        """
    )

    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert subprocess.check_output([sys.executable, "-c", script], env=environment, text=True) == "[1]\n"
