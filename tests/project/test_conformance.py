"""docs/reference/conformance.md matches the statements and the names of the tests."""

from __future__ import annotations

import conformance


def test_the_page_is_up_to_date():
    """Run ``python tests/conformance.py`` when you add or rename a numbered test."""
    assert conformance.PAGE.read_text() == conformance.page()


def test_every_statement_has_a_test():
    """``MISSING`` lists exactly the statements without a test."""
    assert set(conformance.STATEMENTS) - set(conformance.tests()) == conformance.MISSING


def test_every_number_that_a_test_cites_is_a_statement():
    """Tests cite no other numbers."""
    assert set(conformance.tests()) - set(conformance.STATEMENTS) == set()


def test_statements_are_numbered_without_a_gap():
    """Numbers are stable: tests cite them."""
    assert list(conformance.STATEMENTS) == list(range(1, 108))
