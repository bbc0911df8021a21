"""The start time of a process: equal for one process, and 0 once it has ended."""

from __future__ import annotations

import os
import subprocess
import sys

from extmem.wire.process_start import start_time


def test_a_process_is_distinguished_from_another_with_its_pid() -> None:
    assert start_time(os.getpid()) == start_time(os.getpid()) > 0
    assert start_time(2**22 + 1) == 0


def test_the_start_time_of_a_zombie_is_0() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_time(child.pid) == 0
    child.wait()
