"""Run every benchmark: ``python -m bench``."""

import sys

from .webhook_roundtrip import main

sys.exit(main())
