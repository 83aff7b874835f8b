"""
``make demo``: processes are killed, the broker is emptied, and the runs go on.

======================  ==================================================================
``shop``                the program: two workflows, their steps and the web app
``deployment``          its processes: two Celery workers and gunicorn, started again when they end
``clients``             HTTP clients: one starts and reads runs, one sends a webhook request
``screen``              what the demo prints
``scenario``            the faults, and what has to be true after each of them
``main``                starts everything, runs the scenario, stops everything
======================  ==================================================================
"""
