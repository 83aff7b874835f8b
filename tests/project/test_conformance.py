"""docs/reference/conformance.md is what the names of the tests make of it."""

from __future__ import annotations

import conformance


def test_the_page_is_up_to_date():
    """Whoever adds or renames a numbered test runs ``python tests/conformance.py``."""
    assert conformance.PAGE.read_text() == conformance.page()


def test_every_statement_in_scope_has_a_test():
    """Or stands among the missing ones; none stands there that has one."""
    assert conformance.in_scope() - set(conformance.tests()) == conformance.MISSING


def test_every_number_that_a_test_cites_is_a_statement():
    """And one that durable makes."""
    assert set(conformance.tests()) - conformance.in_scope() == set()


def test_statements_are_numbered_without_a_gap():
    """Numbers are stable: tests cite them."""
    assert list(conformance.STATEMENTS) == list(range(1, 108))
