"""
The worker of ``durable dev``: ``celery`` with the same arguments, without Celery's lines about messages and tasks.

::

    python -m durable.cli.dev_worker -A app:celery worker …

The log lines of the application's own code, what it prints, and Celery's warnings and errors stay.  ``durable dev``
prints the events of the runs itself.
"""

from __future__ import annotations

import logging
import sys

from celery.__main__ import main

#: Loggers whose ordinary lines ``durable dev`` replaces.  Celery sets the levels of the root and of ``celery.task``.
QUIET = {"celery": logging.WARNING, "durable.runs": logging.ERROR, "durable.steps": logging.ERROR}

if __name__ == "__main__":
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)
    sys.argv[0] = "celery"
    main()
