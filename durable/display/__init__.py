"""
What the command and the dashboard show in the same way: times, numbers, axes, and text without secrets.

This room imports nothing heavy, because the command loads it at each start.

Files, in import order::

    formats.py     times, lengths of time and numbers as people read them
    axis.py        an axis of time: where a time is on it, and its ticks
    masking.py     text without the tokens of webhooks and the credentials of queries
    tracebacks.py  the author's frames of a traceback, and those of durable folded
"""

from .axis import WIDTH, Axis
from .masking import has_route, mask, mask_query, masked_deeply
from .tracebacks import authors_line, fold

__all__ = ["WIDTH", "Axis", "authors_line", "fold", "has_route", "mask", "mask_query", "masked_deeply"]
