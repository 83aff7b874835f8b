"""
``make demo``: processes are killed, the broker is emptied, and the runs go on.

======================  ==================================================================
``shop``                the program: two workflows, their steps and the web app
``deployment``          its processes: two Celery workers and gunicorn, started again when they end
``outside``             the outside world: a sender of webhooks, and who starts and watches runs
``screen``              what the demo prints
``story``               what happens, and what has to be true afterwards
======================  ==================================================================
"""
