"""Telling whether a process still runs."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from forking import in_child

from durable.engine.process import ProcessIdentity, identify, is_gone


def identity_of(pid: int) -> ProcessIdentity:
    """The identity that a process of this host would have given itself."""
    here = identify()
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return replace(here, pid=pid, pid_started=int(stat[19]))


def test_this_process_is_not_gone():
    """A process that asks about itself lives."""
    assert not is_gone(identify(), identify())


def test_a_killed_process_is_gone_before_and_after_it_is_collected():
    """Also a zombie, which still has an entry in the table, has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = identity_of(child.pid)
    assert not is_gone(other, identify())

    child.kill()
    # Wait for its end without collecting it.

    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(other, identify())

    child.communicate()
    assert is_gone(other, identify())


def test_a_pid_that_is_used_again_is_another_process():
    """The pid alone says nothing: its start counts."""
    here = identify()

    assert is_gone(replace(here, pid_started=here.pid_started - 1), here)


def test_nothing_is_known_of_another_host_or_boot():
    """Its beat has to tell."""
    here = identify()

    assert not is_gone(replace(here, host="elsewhere", pid_started=1), here)
    assert not is_gone(replace(here, boot_id="before", pid_started=1), here)


def test_a_forked_child_is_another_process():
    """The identity is kept, and a child finds out its own."""
    here = identify()

    assert identify() is here
    assert in_child(lambda: identify().pid == os.getpid() != here.pid and identify().boot_id == here.boot_id)
