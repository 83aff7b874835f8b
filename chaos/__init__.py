"""Chaos: whatever can die is killed while runs go on; a ledger outside says what came of it (``make chaos``)."""
