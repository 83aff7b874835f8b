"""gunicorn in a container: threads that hold webhooks, and a stop that answers what is held."""

from durable.web.gunicorn import post_worker_init

__all__ = ["post_worker_init"]

bind = "0.0.0.0:8000"
worker_class = "gthread"
threads = 64
# How long running requests may take after SIGTERM.  Held ones are answered at once, by post_worker_init.
graceful_timeout = 30
# The disk of a container may be slow, and a heartbeat that waits for it gets the worker killed.
worker_tmp_dir = "/dev/shm"
