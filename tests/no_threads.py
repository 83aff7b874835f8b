"""A process that is out of threads for a moment: ``Thread.start`` raises as Python does then."""

from __future__ import annotations

import threading

import pytest


def refuse_thread(monkeypatch: pytest.MonkeyPatch, name: str, *, times: int = 1) -> list[str]:
    """Let so many starts of a thread with this name fail; return the list to which each refused start is added."""
    refused: list[str] = []
    start = threading.Thread.start

    def start_or_refuse(thread: threading.Thread) -> None:
        if thread.name == name and len(refused) < times:
            refused.append(name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_refuse)
    return refused
