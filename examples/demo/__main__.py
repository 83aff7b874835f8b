"""Run the demo: ``cd examples && python -m demo``.  The exit code is 1 if anything is not as promised."""

import sys

if __name__ == "__main__":
    # To import durable takes a second, and more on a busy machine.
    print("The demo of durable starts …", flush=True)
    from .main import main

    sys.exit(main())
