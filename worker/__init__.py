"""The example application's Celery side: the app, and one file per workflow."""
