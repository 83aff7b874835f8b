"""The workflows, one story per file."""
