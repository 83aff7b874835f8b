"""Benchmarks: ``make bench``.  docs/explanation/performance.md says what they measure."""
