"""Tracebacks: frames of durable are folded, and the author's line is found."""

from __future__ import annotations

from pathlib import Path

import durable
from durable.display import authors_line, fold

OURS = f"{Path(durable.__file__).parent}/attempts/attempt.py"

STEP = f"""\
Traceback (most recent call last):
  File "{OURS}", line 156, in _call
    result = running.within_limit(invoke)
             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/elsewhere/lib/python3.13/site-packages/durable/attempts/attempt.py", line 40, in run
    return self.step.body(*args, **kwargs)
  File "/srv/shop/pay.py", line 9, in charge
    return client.charge(
           ^^^^^^^^^^^^^^
  File "/srv/lib/python3.11/site-packages/client/api.py", line 3, in charge
    raise ValueError("no card")
ValueError: no card
"""

CROSSED = f"""\
{STEP}
That was raised in another process, and reached this one:

Traceback (most recent call last):
  File "/srv/shop/orders.py", line 20, in order
    await charge(order)
ValueError: no card
Step shop.charge (r#1) failed after 2 attempts.
"""


def test_frames_of_durable_are_folded():
    """One line for those that follow each other, wherever durable is installed; other lines stay as they are."""
    assert fold(STEP).splitlines() == [
        "Traceback (most recent call last):",
        "  [2 frames of durable]",
        '  File "/srv/shop/pay.py", line 9, in charge',
        "    return client.charge(",
        "           ^^^^^^^^^^^^^^",
        '  File "/srv/lib/python3.11/site-packages/client/api.py", line 3, in charge',
        '    raise ValueError("no card")',
        "ValueError: no card",
    ]


def test_a_project_with_durable_in_its_path_is_not_folded():
    """Only durable's own package is: a folder of the author may have any name."""
    text = 'Traceback (most recent call last):\n  File "/srv/durable/web/app.py", line 1, in view\n    f()\nE: e'

    assert fold(text) == text


def test_frames_within_groups_of_exceptions_are_folded():
    """Their frames are indented further, behind a bar, and stay readable."""
    text = f'  + Exception Group Traceback (most recent call last):\n  |   File "{OURS}", line 1, in f\n  | E: e'

    assert "E: e" in fold(text)


def test_the_authors_line_is_the_last_one_before_the_error():
    """Not a frame of durable or of an installed package, and not where another process received the error."""
    assert authors_line(STEP) == ("/srv/shop/pay.py", 9, "charge")
    assert authors_line(CROSSED) == ("/srv/shop/pay.py", 9, "charge")


def test_a_traceback_without_the_author_has_no_line():
    """An error that durable raised itself, and one whose traceback is not there."""
    assert authors_line(f'Traceback (most recent call last):\n  File "{OURS}", line 1, in f\n    x\nE: e') is None
    assert authors_line("") is None
