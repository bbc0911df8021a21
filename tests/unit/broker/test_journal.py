"""The journal of clients, and the grace that a broker gives those of a killed one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from extmem.broker.journal import GRACE, Client, Grace, Journal, start_time


def test_a_process_is_told_from_another_with_its_pid() -> None:
    assert start_time(os.getpid()) == start_time(os.getpid()) > 0
    assert start_time(2**22 + 1) == 0


def test_a_zombie_is_no_process_any_more() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_time(child.pid) == 0
    child.wait()


def test_clients_are_there_for_the_next_broker(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "clients.json")
    assert journal.read() == frozenset()
    journal.add(7, os.getpid())
    journal.add(8, os.getppid())
    journal.remove(8)
    assert Journal(tmp_path / "clients.json").read() == {Client(os.getpid(), start_time(os.getpid()))}
    assert [path.name for path in tmp_path.iterdir()] == ["clients.json"]


def test_a_clean_end_leaves_no_journal_and_an_end_with_clients_does(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "clients.json")
    journal.add(7, os.getpid())
    journal.close()
    assert journal.read()
    journal.remove(7)
    journal.close()
    assert not (tmp_path / "clients.json").exists()


def test_a_journal_of_nonsense_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "clients.json").write_text('{"pid": [')
    assert Journal(tmp_path / "clients.json").read() == frozenset()


def test_a_journal_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "missing" / "clients.json")
    journal.add(1, os.getpid())
    journal.remove(1)
    journal.close()


ME = Client(os.getpid(), start_time(os.getpid()))
PARENT = Client(os.getppid(), start_time(os.getppid()))


def test_without_clients_there_is_no_grace() -> None:
    assert not Grace(frozenset(), 0.0).active


def test_the_grace_ends_when_all_have_announced() -> None:
    grace = Grace(frozenset({ME, PARENT}), 100.0)
    assert grace.active and not grace.step(100.0)
    grace.announced(ME.pid)
    assert not grace.step(100.1) and grace.active
    grace.announced(PARENT.pid)
    assert grace.step(100.2) and not grace.active
    assert not grace.step(100.3)


def test_the_dead_are_not_waited_for() -> None:
    grace = Grace(frozenset({Client(os.getpid(), ME.start - 1), Client(2**22 + 1, 5)}), 100.0)
    assert grace.active and grace.step(100.0)


def test_the_grace_ends_in_time() -> None:
    grace = Grace(frozenset({ME}), 100.0)
    assert not grace.step(100.0 + GRACE - 0.01) and grace.step(100.0 + GRACE)
