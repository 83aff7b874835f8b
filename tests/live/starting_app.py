"""A process that starts one run and ends: ``python -m starting_app RUN_ID``."""

from __future__ import annotations

import sys

from live_app import engine
from live_flows import noted

if __name__ == "__main__":
    engine.start_with(noted, ("heard",), {}, {"run_id": sys.argv[1]})
    engine.close()
