"""
Celery's view of durable: the tasks that a worker runs.

Everything that depends on Celery's own classes is here.

Files, in import order::

    child_watch.py    has ended prefork children replaced at once
    adopted_tasks.py  an application's own Celery task as the carrier of an attempt
    in_place.py       traces the tasks of steps that run in place
    versions.py       which versions this process and other workers run
    tasks.py          the tasks ``durable.drive`` and ``durable.wake``, one task for each step, and signals
"""
